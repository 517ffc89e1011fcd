"""How frames get to know of each other: convolution over time, the past of a stream, blending."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.attention import Attention, KVCache
from vdm.layers.conv import StreamState
from vdm.layers.factorization import Factorization
from vdm.layers.norms import at_rest
from vdm.layers.pieces import HEIGHT, is_one_piece, map_pieces, may_overwrite, silu
from vdm.layers.positions import RelativeBias, RotaryTable, sincos

Volume = Float[Tensor, "b c t h w"]
VideoTokens = Float[Tensor, "b t h w d"]


class Stream:
    """What a causal network remembers of the frames of a clip that it has seen.

    Layers replace entries and never write into the tensors, so a shallow copy is an independent
    continuation of the same past.

    Args:
        frames: Last frames that temporal convolutions have seen.
        keys: Keys and values that attentions have seen.
        num_frames: Frames seen so far, those dropped from the memories included.
    """

    def __init__(
        self,
        frames: StreamState | None = None,
        keys: Mapping[nn.Module, KVCache] | None = None,
        num_frames: int = 0,
    ) -> None:
        self.frames = StreamState() if frames is None else frames
        self.keys = dict(keys or {})
        self.num_frames = num_frames

    def copy(self) -> Stream:
        """An independent continuation of the same past."""
        return Stream(self.frames.copy(), self.keys, self.num_frames)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors held."""
        return self.frames.num_bytes + sum(kv.num_bytes for kv in self.keys.values())


def attend_frames(
    rule: Factorization,
    tokens: VideoTokens,
    attention: Attention,
    table: RotaryTable | None = None,
    stream: Stream | None = None,
    bias: RelativeBias | None = None,
) -> VideoTokens:
    """Let tokens attend as a factorization says, to the past of a stream as well if there is one.

    Args:
        rule: Which tokens attend together.
        tokens: Tokens of the whole clip, or of the next frames of a stream.
        attention: Self-attention.
        table: Rotary positions of these frames.
        stream: The past, to which these frames are added.
        bias: What is added to scores for the distance of two frames.
    """
    if stream is None:
        return rule(tokens, attention, table, bias)
    out, kv = rule.step(tokens, attention, table, stream.keys.get(attention), bias)
    if kv is not None:
        stream.keys[attention] = kv
    return out


def frame_sincos(
    num_frames: int, dim: int, start: int = 0, device: torch.device | str = "cpu"
) -> Float[Tensor, "t dim"]:
    """Positions of frames: sines in even channels, cosines in odd ones.

    Source:
        Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, sec. 3.5.
    """
    frames = torch.arange(start, start + num_frames, dtype=torch.float64, device="cpu")
    halves = sincos(frames, dim)
    return rearrange(halves, "t (two d) -> t (d two)", two=2).to(device)


class TemporalConv(nn.Conv3d):
    """A convolution over time alone: kernel (k, 1, 1), frames in, as many frames out.

    It runs as a 2D convolution over (t, h w), of which channels-last video is a view; on a CPU
    without gradients as one product for every frame that the kernel sees, which takes 0.25 (32
    channels) to 0.7 (320 channels) of the time.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd number of frames.
        is_causal: See earlier frames only; before the first one time goes on as a still image, as
            in :class:`vdm.layers.conv.CausalConv3d`. Otherwise the clip is padded with zeros.

    Raises:
        ValueError: If the kernel size is even.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, is_causal: bool = False
    ) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"got kernel_size={kernel_size}, expected an odd number")
        super().__init__(in_channels, out_channels, (kernel_size, 1, 1))
        self.is_causal = is_causal

    def close(self) -> None:
        """Start at zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(  # type: ignore[override]
        self, x: Volume, stream: Stream | None = None
    ) -> Float[Tensor, "b c_out t h w"]:
        """Convolve a clip, or the next frames of a stream.

        Args:
            x: The clip or the frames.
            stream: The past, to which these frames are added; for causal convolutions.
        """
        size = x.shape[3:]
        reach = self.kernel_size[0] // 2
        if self.is_causal:
            x, reach = self._after_past(x, stream), 0
        if may_overwrite() and x.device.type == "cpu" and x.dtype == torch.float32:
            return self._as_products(x, reach)
        flat = F.conv2d(x.flatten(3), self.weight[..., 0], self.bias, padding=(reach, 0))
        return flat.unflatten(3, size)

    def _as_products(self, x: Tensor, reach: int) -> Tensor:
        """The convolution of a clip that goes on with ``reach`` frames of zeros on both sides."""
        frames = rearrange(x, "b c t h w -> b t (h w) c").contiguous()
        b, num_in, places, _ = frames.shape
        num_out = num_in + 2 * reach - self.kernel_size[0] + 1
        taps = rearrange(self.weight, "c_out c k 1 1 -> k c c_out").contiguous()
        out = frames.new_empty(b, num_out, places, self.out_channels)
        for source, result in zip(frames, out, strict=True):
            # The tap that no frame of the result misses goes first.
            whole, seen = result.flatten(0, 1), source[:num_out].flatten(0, 1)
            torch.addmm(self.bias, seen, taps[reach], out=whole)  # type: ignore[arg-type]
            for number, tap in enumerate(taps):
                ahead = number - reach
                first, end = max(0, -ahead), min(num_out, num_in - ahead)
                if ahead and first < end:
                    seen = source[first + ahead : end + ahead].flatten(0, 1)
                    result[first:end].flatten(0, 1).addmm_(seen, tap)
        return rearrange(out, "b t (h w) c -> b c t h w", h=x.shape[3])

    def _after_past(self, x: Tensor, stream: Stream | None) -> Tensor:
        """The frames behind those before them, as many as the kernel reaches."""
        keep = self.kernel_size[0] - 1
        if keep == 0:
            return x
        past = None if stream is None else stream.frames.recall(self)
        before = [x[:, :, :1]] * keep if past is None else [past]
        joined = torch.cat([*before, x], dim=2)
        if stream is not None:
            # Copied, so that a stream does not hold the whole chunk in memory.
            stream.frames.remember(self, joined[:, :, -keep:].clone())
        return joined


def normed_conv(
    norm: nn.GroupNorm,
    conv: TemporalConv,
    x: Volume,
    stream: Stream | None = None,
    finish: Callable[[Tensor, Tensor], Tensor] | None = None,
    onto: Volume | None = None,
) -> Volume:
    """A convolution over time after normalisation and nonlinearity.

    Args:
        norm: The normalisation.
        conv: The convolution.
        x: A clip, or the next frames of a stream.
        stream: The past.
        finish: Takes the result and ``onto`` to what is returned.
        onto: A volume that nobody else reads, written over where possible.
    """
    axis = HEIGHT if stream is None else None
    is_whole = axis is None or is_one_piece(x, axis)
    ready = norm if is_whole else at_rest(norm, x)

    def convolve(x: Tensor, *onto: Tensor) -> Tensor:
        h = conv(silu(ready(x)), stream)
        return h if finish is None else finish(h, *onto)

    inputs = (x,) if onto is None else (x, onto)
    return map_pieces(convolve, *inputs, axis=axis, into=onto)


class Blend(ABC):
    """How the result of a temporal branch meets what went into it."""

    @abstractmethod
    def make(self) -> nn.Module:
        """A module that takes (before, after) and gives what goes on."""


@dataclass(frozen=True)
class Additive(Blend):
    """The result goes on: a residual branch has added itself already."""

    def make(self) -> nn.Module:
        """A module that hands ``after`` on."""
        return FixedMix(0.0)


@dataclass(frozen=True)
class Fixed(Blend):
    """A constant mixture.

    Args:
        before: Share of what went in.

    Raises:
        ValueError: If the share is not in [0, 1].
    """

    before: float = 0.5

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 <= self.before <= 1:
            raise ValueError(f"got before={self.before}, expected a share in [0, 1]")

    def make(self) -> nn.Module:
        """A module without parameters."""
        return FixedMix(self.before)


@dataclass(frozen=True)
class Learned(Blend):
    """A mixture with one learned number, through a sigmoid.

    Args:
        initial: The number before training; 0 is half and half.
        switched: Whether it is the share of the result instead of that of what went in.

    Source:
        Blattmann et al. 2023, "Align your Latents", arXiv:2304.08818, eq. 6; switched in the
        decoder of Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127.
    """

    initial: float = 0.5
    switched: bool = False

    def make(self) -> nn.Module:
        """A module with one parameter."""
        return LearnedMix(self.initial, self.switched)


class FixedMix(nn.Module):
    """``share * before + (1 - share) * after``."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(
        self, before: Float[Tensor, "*shape"], after: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """Mix."""
        return after if self.share == 0 else torch.lerp(after, before, self.share)


class LearnedMix(nn.Module):
    """The same with the sigmoid of a parameter as the share."""

    def __init__(self, initial: float, switched: bool) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([initial]))
        self.switched = switched

    def forward(
        self, before: Float[Tensor, "*shape"], after: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """Mix."""
        share = self.mix_factor.sigmoid().to(before.dtype)
        return torch.lerp(before, after, share) if self.switched else after.lerp(before, share)
