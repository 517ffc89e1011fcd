"""How noise levels, labels and pixels become vectors, and vectors pixels again."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

PatchOrder = Literal["channels_first", "channels_last"]

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
