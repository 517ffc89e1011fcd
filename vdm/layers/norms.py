"""How activations are normalised, and how the noise level modulates them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.pieces import may_overwrite
from vdm.utils.tensors import fold_frames, unfold_frames

NormKind = Literal["layer", "rms"]
Statistics = Literal["frame", "clip"]


class RMSNorm(nn.Module):
    """Divide by the root mean square over one axis, in float32 at least.

    Args:
        dim: Size of the normalised axis.
        eps: Added to the mean square.
        affine: Learn one gain per channel.
        axis: Axis that is normalised; 1 for channels-first video.

    Source:
        Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", arXiv:1910.07467, eq. 4.
    """

    def __init__(self, dim: int, eps: float = 1e-6, affine: bool = True, axis: int = -1) -> None:
        super().__init__()
        self.dim, self.eps, self.axis = dim, eps, axis
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Normalise ``x`` over the chosen axis."""
        wide = x if x.dtype == torch.float64 else x.float()
        weight: Tensor | None = None
        if self.weight is not None:
            shape = [1] * x.ndim
            shape[self.axis] = self.dim
            weight = self.weight.reshape(shape)
        if may_overwrite():  # reads once what squares would be kept of
            square = torch.linalg.vector_norm(wide, dim=self.axis, keepdim=True).square()
            out = wide * torch.rsqrt(square / self.dim + self.eps)
            return (out if weight is None else out.mul_(weight)).to(x.dtype)
        scale = torch.rsqrt(wide.square().mean(self.axis, keepdim=True) + self.eps)
        scale = scale if weight is None else scale * weight
        return (wide * scale).to(x.dtype)

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return f"{self.dim}, eps={self.eps}, affine={self.weight is not None}, axis={self.axis}"


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the last axis, optionally in float32 whatever the input.

    Args:
        dim: Size of the last axis.
        eps: Added to the variance.
        affine: Learn a gain and a bias per channel.
        in_float32: Compute in float32 and cast back, for mixed-precision parity.
    """

    def __init__(
        self, dim: int, eps: float = 1e-6, affine: bool = True, in_float32: bool = False
    ) -> None:
        super().__init__(dim, eps, elementwise_affine=affine)
        self.in_float32 = in_float32

    def forward(self, input: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Normalise over the last axis."""
        if not self.in_float32 or input.dtype in (torch.float32, torch.float64):
            return super().forward(input)
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        shape = self.normalized_shape
        return F.layer_norm(input.float(), shape, weight, bias, self.eps).to(input.dtype)


def make_norm(kind: NormKind, dim: int, eps: float = 1e-6, affine: bool = True) -> nn.Module:
    """A normalisation over the last axis.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind == "layer":
        return LayerNorm(dim, eps, affine)
    if kind == "rms":
        return RMSNorm(dim, eps, affine)
    raise ValueError(f"got norm {kind!r}, expected 'layer' or 'rms'")


class PerFrameGroupNorm(nn.GroupNorm):
    """Group normalisation with statistics of one frame at a time.

    No frame's output depends on another frame, so it may be used in causal and chunked models.
    """

    def forward(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Normalise every frame by itself."""
        if may_overwrite() and is_slow(input):
            return at_rest(self, input)(input)
        frames = fold_frames(input)
        return unfold_frames(super().forward(frames), len(input))


def is_slow(x: Float[Tensor, "b c t h w"]) -> bool:
    """Whether torch's group normalisation of single frames takes twice as long as it has to.

    So it does on a CPU for frames of less than 1024 pixels with channels last; with very few
    pixels, nothing takes long.
    """
    is_channels_last = x.stride(1) == 1
    return x.device.type == "cpu" and is_channels_last and 128 <= x.shape[3] * x.shape[4] < 1024


def at_rest(
    norm: nn.GroupNorm, x: Float[Tensor, "b c t h w"]
) -> Callable[[Float[Tensor, "b c t _ _"]], Float[Tensor, "b c t _ _"]]:
    """A group normalisation with its statistics of a whole clip, for parts of the picture.

    With gradients it is the normalisation itself, for the whole.

    Args:
        norm: The normalisation.
        x: The clip.
    """
    if not may_overwrite():
        return norm
    groups, is_per_frame = norm.num_groups, isinstance(norm, PerFrameGroupNorm)
    mean, var = (rearrange(v, "b (g d) t -> b g d t", g=groups) for v in _moments(x))
    axes = (2,) if is_per_frame else (2, 3)
    center = mean.mean(axes, keepdim=True)
    spread = (var + (mean - center).square()).mean(axes, keepdim=True)
    gain, bias = (rearrange(v, "(g d) -> g d 1", g=groups) for v in (norm.weight, norm.bias))
    scale = gain * torch.rsqrt(spread + norm.eps)
    shift = bias - center * scale
    # Channels last in memory, like what they are applied to: a tenth of the time, and so it stays.
    scale, shift = (
        rearrange(rearrange(v, "b g d t -> b t 1 1 (g d)").contiguous(), "b t h w c -> b c t h w")
        for v in (scale, shift)
    )
    return lambda part: torch.addcmul(shift, part, scale).to(x.dtype)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance ``b c t`` of every channel of every frame, in float32 at least."""
    if x.device.type != "cpu":
        var, mean = torch.var_mean(x.float(), dim=(3, 4), correction=0)
        return mean, var
    found = [
        # The one kernel that reads channels-last frames once, and as they lie in memory.
        torch.batch_norm_update_stats(frame.float(), None, None, 0.0)
        for frame in rearrange(x, "b c t h w -> (b t) 1 c h w")
    ]
    mean, var = (
        rearrange(torch.stack(values), "(b t) c -> b c t", b=len(x))
        for values in zip(*found, strict=True)
    )
    return mean, var


def make_group_norm(
    channels: int, num_groups: int, eps: float = 1e-5, statistics: Statistics = "frame"
) -> nn.GroupNorm:
    """Group normalisation of video, over one frame at a time or over all frames of a clip.

    Raises:
        ValueError: If the groups do not divide the channels, or the statistics are unknown.
    """
    if statistics not in ("frame", "clip"):
        raise ValueError(f"got statistics={statistics!r}, expected 'frame' or 'clip'")
    if channels % num_groups:
        nearest = max(n for n in range(1, num_groups + 1) if channels % n == 0)
        raise ValueError(
            f"got num_groups={num_groups}, expected a divisor of {channels}, e.g. {nearest}"
        )
    kind = PerFrameGroupNorm if statistics == "frame" else nn.GroupNorm
    return kind(num_groups, channels, eps)


def modulate(
    x: Float[Tensor, "b *tokens d"],
    shift: Float[Tensor, "b *frames d"],
    scale: Float[Tensor, "b *frames d"],
) -> Float[Tensor, "b *tokens d"]:
    """``x * (1 + scale) + shift``, per sample or per frame: the vectors have axes of size 1.

    Source:
        Peebles & Xie 2023, "Scalable Diffusion Models with Transformers", arXiv:2212.09748,
        sec. 3.2.
    """
    return torch.addcmul(shift, x, 1 + scale)


class AdaLNLinear(nn.Module):
    """Modulation from a linear map of its own: AdaLN-Zero.

    The map starts at zero: no shift, no scale and a closed gate, so a block starts as the identity.

    Args:
        dim: Width of the tokens.
        num_chunks: How many vectors to make, e.g. 6 for shift, scale and gate of two branches.
        cond_dim: Width of the conditioning vector; that of the tokens if not given.

    Source:
        Peebles & Xie 2023, arXiv:2212.09748, sec. 3.2, "adaLN-Zero block".
    """

    def __init__(self, dim: int, num_chunks: int, cond_dim: int | None = None) -> None:
        super().__init__()
        self.num_chunks = num_chunks
        self.linear = nn.Linear(cond_dim or dim, num_chunks * dim)
        self.close()

    def close(self) -> None:
        """Start at zero."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, cond: Float[Tensor, "b t c"]) -> tuple[Float[Tensor, "b t 1 1 d"], ...]:
        """The vectors for one conditioning vector per sample (``t`` = 1) or per frame."""
        chunks = rearrange(self.linear(F.silu(cond)), "b t (k d) -> k b t 1 1 d", k=self.num_chunks)
        return chunks.unbind(0)


class AdaLNTable(nn.Module):
    """Modulation from a projection that all blocks share, plus a learned table of this block.

    Saves the largest part of a small transformer's conditioning parameters. The table starts at
    zero, so with a shared projection that starts at zero a block starts as the identity.

    Args:
        dim: Width of the tokens.
        num_chunks: How many vectors to make.

    Source:
        Chen et al. 2023, "PixArt-alpha", arXiv:2310.00426, sec. 2.3, "adaLN-single".
    """

    def __init__(self, dim: int, num_chunks: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_chunks, dim))

    def forward(self, shared: Float[Tensor, "b t kd"]) -> tuple[Float[Tensor, "b t 1 1 d"], ...]:
        """The vectors, given the output of the shared projection per sample or per frame."""
        chunks = rearrange(shared, "b t (k d) -> b t k d", k=len(self.table)) + self.table
        chunks = chunks.to(shared.dtype)  # with half precision around it, tokens are to stay half
        return rearrange(chunks, "b t k d -> k b t 1 1 d").unbind(0)
