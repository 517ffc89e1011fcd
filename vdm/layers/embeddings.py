"""How noise levels, labels and pixels become vectors, and vectors pixels again."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vdm.layers.feedforward import MLP
from vdm.layers.norms import LayerNorm
from vdm.types import Conditioning, Latents

Scalar = Literal["fps", "motion_bucket", "noise_aug", "guidance"]
ReadsGiven = bool | Literal["latents", "pixels", "frame_masks"]
PatchOrder = Literal["channels_first", "channels_last"]

NUM_FRAME_MASKS = 4
"""Masks of a latent frame that has one for each frame of pixels that it stands for."""

PATCHIFY = {
    "channels_first": "b c (t pt) (h ph) (w pw) -> b t h w (c pt ph pw)",
    "channels_last": "b c (t pt) (h ph) (w pw) -> b t h w (pt ph pw c)",
}
UNPATCHIFY = {
    "channels_first": "b t h w (c pt ph pw) -> b c (t pt) (h ph) (w pw)",
    "channels_last": "b t h w (pt ph pw c) -> b c (t pt) (h ph) (w pw)",
}


def sinusoid(
    values: Float[Tensor, "*batch"],
    dim: int,
    cos_first: bool = True,
    shift: float = 0.0,
    max_period: float = 10_000.0,
) -> Float[Tensor, "*batch dim"]:
    """Cosines and sines of numbers at geometrically spaced frequencies, in float32.

    Args:
        values: Noise levels or other numbers, in units where 1 is a small step.
        dim: Even number of channels.
        cos_first: Cosines in the first half; otherwise sines.
        shift: Subtracted from the number of frequencies in the spacing: 1 makes the slowest one
            reach ``max_period`` exactly.
        max_period: Ratio of the slowest to the fastest period.

    Raises:
        ValueError: If ``dim`` is odd.

    Source:
        Ho et al. 2020, "Denoising Diffusion Probabilistic Models", arXiv:2006.11239, appendix B.
    """
    if dim % 2:
        raise ValueError(f"got dim={dim}, expected an even number, e.g. {dim + 1}")
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    frequencies = torch.exp(-math.log(max_period) * steps / (half - shift))
    angles = values.float().unsqueeze(-1) * frequencies
    parts = (angles.cos(), angles.sin()) if cos_first else (angles.sin(), angles.cos())
    return torch.cat(parts, dim=-1)


class NoiseLevelEmbedding(nn.Module):
    """A number as a vector: sinusoid, linear, SiLU, linear.

    Args:
        dim: Width of the result.
        sinusoid_dim: Width of the sinusoid.
        cos_first: Whether cosines come first in it.
        shift: See :func:`sinusoid`.
        hidden: Width between the linear maps; ``dim`` if not given.
    """

    def __init__(
        self,
        dim: int,
        sinusoid_dim: int = 256,
        cos_first: bool = True,
        shift: float = 0.0,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.sinusoid_dim, self.cos_first, self.shift = sinusoid_dim, cos_first, shift
        self.fc1 = nn.Linear(sinusoid_dim, hidden or dim)
        self.fc2 = nn.Linear(hidden or dim, dim)

    def forward(self, values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Embed each number."""
        waves = sinusoid(values, self.sinusoid_dim, self.cos_first, self.shift)
        return self.fc2(F.silu(self.fc1(waves.to(self.fc1.weight.dtype))))


class NumbersEmbedding(nn.Module):
    """Several numbers as one vector: their sinusoids side by side, linear, SiLU, linear.

    Args:
        count: How many numbers.
        dim: Width of the result.
        sinusoid_dim: Width of the sinusoid of each.
        cos_first: Whether cosines come first in it.
        shift: See :func:`sinusoid`.
    """

    def __init__(
        self,
        count: int,
        dim: int,
        sinusoid_dim: int = 256,
        cos_first: bool = True,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.sinusoid_dim, self.cos_first, self.shift = sinusoid_dim, cos_first, shift
        self.fc1 = nn.Linear(count * sinusoid_dim, dim)
        self.fc2 = nn.Linear(dim, dim)

    def forward(self, values: Float[Tensor, "b count"]) -> Float[Tensor, "b dim"]:
        """Embed the numbers of each sample."""
        waves = sinusoid(values, self.sinusoid_dim, self.cos_first, self.shift).flatten(1)
        return self.fc2(F.silu(self.fc1(waves.to(self.fc1.weight.dtype))))


class NumberTable(nn.Module):
    """A learned vector for each whole number from 0.

    Args:
        count: How many numbers.
        dim: Width of the vectors.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(count, dim)

    def forward(self, values: Float[Tensor, " b"]) -> Float[Tensor, "b dim"]:
        """Look the numbers up; fractions are rounded."""
        return self.table(values.round().long())


class TextAndSizeEmbedding(nn.Module):
    """The vector of a whole text and the size of the pictures as one vector.

    Beside the text's vector stand the sinusoids of height and width of the original, of the corner
    that was cut out of it, here its first pixel, and of the height and width to make.

    Args:
        pooled_dim: Width of the text's vector.
        dim: Width of the result.
        sinusoid_dim: Width of the sinusoid of each number.

    Source:
        Podell et al. 2023, "SDXL", arXiv:2307.01952, sec. 2.2.
    """

    def __init__(self, pooled_dim: int, dim: int, sinusoid_dim: int = 256) -> None:
        super().__init__()
        self.sinusoid_dim = sinusoid_dim
        self.fc1 = nn.Linear(pooled_dim + 6 * sinusoid_dim, dim)
        self.fc2 = nn.Linear(dim, dim)

    def forward(
        self, pooled: Float[Tensor, "b pooled_dim"], size: Float[Tensor, "b 2"]
    ) -> Float[Tensor, "b dim"]:
        """Embed text and size of each sample."""
        numbers = torch.cat((size, torch.zeros_like(size), size), dim=1)
        waves = sinusoid(numbers, self.sinusoid_dim).flatten(1)
        joined = torch.cat((pooled, waves.to(pooled)), dim=1)
        return self.fc2(F.silu(self.fc1(joined.to(self.fc1.weight.dtype))))


class PictureEmbedding(nn.Module):
    """An encoder's states of a picture as tokens of a network: norm, two linear maps, norm.

    Args:
        width: Width of the states.
        dim: Width of the result.
        num_tokens: How many there are, where each has a learned vector of its own; None for any.

    Source:
        Wan team 2025, arXiv:2503.20314, section 5.1, and the released models.
    """

    def __init__(self, width: int, dim: int, num_tokens: int | None = None) -> None:
        super().__init__()
        self.table: nn.Parameter | None = None
        if num_tokens is not None:
            self.table = nn.Parameter(torch.zeros(num_tokens, width))
        self.norm_in, self.norm_out = LayerNorm(width, 1e-5), LayerNorm(dim, 1e-5)
        self.maps = MLP(width, width, "none", out_dim=dim)

    def forward(self, states: Float[Tensor, "b m width"]) -> Float[Tensor, "b m dim"]:
        """Each token by itself.

        Raises:
            ValueError: If there are not as many as have learned vectors.
        """
        if self.table is not None:
            if states.shape[1] != len(self.table):
                raise ValueError(
                    f"got {states.shape[1]} tokens of pictures, expected {len(self.table)}"
                )
            states = states + self.table
        return self.norm_out(self.maps(self.norm_in(states)))


class LabelEmbedding(nn.Module):
    """A vector for each class label, and one more, ``null``, for "no label".

    Args:
        num_labels: Number of classes.
        dim: Width of the vectors.
    """

    def __init__(self, num_labels: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_labels + 1, dim)

    @property
    def null(self) -> int:
        """The label that says nothing."""
        return self.table.num_embeddings - 1

    def forward(self, label: Int[Tensor, " b"]) -> Float[Tensor, "b dim"]:
        """Look the labels up."""
        return self.table(label)


def make_pooled_embed(pooled_dim: int | None, dim: int) -> nn.Sequential | None:
    """From the vector of a whole text to the width of the level; None where none is read."""
    if pooled_dim is None:
        return None
    return nn.Sequential(nn.Linear(pooled_dim, dim), nn.SiLU(), nn.Linear(dim, dim))


def readable_fields(
    scalars: Collection[str],
    text: str | None,
    pooled: bool,
    label: bool,
    given: ReadsGiven,
    token_times: bool = True,
) -> tuple[set[str], set[str]]:
    """Which fields of the conditioning a network can read, and which it needs.

    Args:
        scalars: Numbers that it is told.
        text: Field of what it attends to, ``both`` for text and image; None for a network without
            cross-attention.
        pooled: Whether it reads the vector of a whole text.
        label: Whether it reads labels.
        given: What it reads of the given frames, see :func:`join_given`.
        token_times: Whether the noise level may vary between frames.
    """
    needs = set(scalars)
    if text is not None:
        needs |= {"text", "image"} if text == "both" else {text}
    needs |= {"pooled_text"} if pooled else set()
    reads = needs | ({"token_times"} if token_times else set())
    reads |= {"label"} if label else set()
    reads |= {"text_mask"} if "text" in needs else set()
    reads |= {"given"} if given else set()
    reads |= {"given_mask"} if _num_masks(given) else set()
    return reads, needs


def _num_masks(given: ReadsGiven) -> int:
    """Channels of the masks that are read."""
    return NUM_FRAME_MASKS if given == "frame_masks" else int(given is True)


def num_input_channels(channels: int, given: ReadsGiven) -> int:
    """Channels of what :func:`join_given` makes."""
    if given == "pixels":
        return channels + 3
    return channels * (2 if given else 1) + _num_masks(given)


def join_given(
    x: Latents, cond: Conditioning, given: ReadsGiven
) -> Float[Tensor, "b c_joined t h w"]:
    """Noisy latents, given latents and their mask along the channels.

    Args:
        x: Noisy latents.
        cond: Holds what is given, read as it is; without it no frame is given.
        given: Whether the network reads it; ``latents`` for one that is given every frame, or none,
            and has no mask; ``pixels`` for one that is given a picture beside every frame of
            latents, as large as these.

    Raises:
        ValueError: If a mask comes without latents, or the other way round.
    """
    if given in ("latents", "pixels"):
        none = x if given == "latents" else x[:, :1].expand(-1, 3, -1, -1, -1)
        known = torch.zeros_like(none) if cond.given is None else cond.given.to(x.dtype)
        return torch.cat((x, known), dim=1)
    if (cond.given is None) != (cond.given_mask is None):
        raise ValueError("got one of given and given_mask, expected both or neither")
    if not given:
        return x
    if cond.given is None or cond.given_mask is None:
        b, c, t, h, w = x.shape
        return torch.cat((x, x.new_zeros(b, c + _num_masks(given), t, h, w)), dim=1)
    return torch.cat((x, cond.given.to(x.dtype), cond.given_mask.to(x.dtype)), dim=1)


def noise_levels(
    c_noise: Float[Tensor, " b *frames"],
    cond: Conditioning,
    num_frames: int,
    scale: float,
    patch: int = 1,
) -> Float[Tensor, "b t"]:
    """The noise level of each sample (t = 1), or of each frame where noise times vary.

    Args:
        c_noise: Noise levels, one per sample or per frame.
        cond: ``cond.token_times`` takes precedence.
        num_frames: Frames of tokens.
        scale: The noise level of noise time 1.
        patch: Frames of latents in a token.

    Raises:
        ValueError: If levels vary and there is not one for each frame.
    """
    if cond.token_times is not None:
        name, levels = "token_times", scale * cond.token_times
    elif c_noise.ndim == 2:
        name, levels = "c_noise", c_noise
    else:
        return c_noise.unsqueeze(1)
    if patch != 1 or levels.shape[1] != num_frames:
        raise ValueError(
            f"got {name} for {levels.shape[1]} frames and patches of {patch} frames, "
            f"expected {num_frames} frames and patches of 1"
        )
    return levels


def add_told(
    level: Float[Tensor, "b t d"],
    cond: Conditioning,
    scalar_embeds: nn.ModuleDict,
    pooled_embed: nn.Module | None,
    label_embed: LabelEmbedding | None,
) -> Float[Tensor, "b t d"]:
    """Add what else a network is told to the embedding of the noise level.

    Args:
        level: Embedded noise level per sample or per frame.
        cond: What it is told.
        scalar_embeds: An embedding for each number, by its field; or one for several numbers
            together, by their fields with ``__`` between them.
        pooled_embed: Embedding of the whole text's vector.
        label_embed: Embedding of labels; no label is the label "none".
    """
    extra = []
    for names, embed in scalar_embeds.items():
        values = [getattr(cond, name) for name in names.split("__")]
        extra.append(embed(values[0] if len(values) == 1 else torch.stack(values, dim=1)))
    if pooled_embed is not None:
        extra.append(pooled_embed(cond.pooled_text))
    if label_embed is not None:
        none = torch.full((len(level),), label_embed.null, device=level.device)
        extra.append(label_embed(none if cond.label is None else cond.label))
    for vector in extra:
        level = level + vector.unsqueeze(1)
    return level


def patchify(
    x: Float[Tensor, "b c frames height width"],
    patch_size: tuple[int, int, int],
    order: PatchOrder = "channels_first",
) -> Float[Tensor, "b t h w d"]:
    """Cut a video into patches, one token each.

    Args:
        x: Video or latents.
        patch_size: (pt, ph, pw).
        order: Whether a token lists its channels in the outermost or the innermost place.

    Raises:
        ValueError: If the patches do not tile the video.
    """
    for name, size, patch in zip(
        ("frames", "height", "width"), x.shape[2:], patch_size, strict=True
    ):
        if size % patch:
            nearest = -(-size // patch) * patch
            raise ValueError(f"got {name}={size}, expected a multiple of {patch}, e.g. {nearest}")
    pt, ph, pw = patch_size
    return rearrange(x, PATCHIFY[order], pt=pt, ph=ph, pw=pw)


def unpatchify(
    tokens: Float[Tensor, "b t h w d"],
    patch_size: tuple[int, int, int],
    order: PatchOrder = "channels_first",
) -> Float[Tensor, "b c frames height width"]:
    """The inverse of :func:`patchify`."""
    pt, ph, pw = patch_size
    return rearrange(tokens, UNPATCHIFY[order], pt=pt, ph=ph, pw=pw)
