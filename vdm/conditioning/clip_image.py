"""CLIP's image transformer, as transformers builds it: a picture as one vector or as many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vdm.conditioning.clip import build_clip
from vdm.utils.config import configurable

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that it was trained on, in [0, 1]."""


@configurable
class ClipImageEncoder(nn.Module):
    """A published image encoder with its projection into the space that texts share.

    Args:
        config: Settings of ``transformers.CLIPVisionConfig``.

    Raises:
        ValueError: If they make no encoder.

    Source:
        Radford et al. 2021, arXiv:2103.00020, sec. 2.4; OpenCLIP's ViT-H in Stable Video Diffusion.
    """

    mean: Tensor
    std: Tensor
    model: Any
    kind = "CLIPVisionModelWithProjection"
    """Its class there."""
    num_tokens = 1
    """Of a picture."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = build_clip(self.kind, config)
        self.size = int(config.get("image_size", 224))
        self.width = int(self.model.config.hidden_size)
        self.register_buffer("mean", torch.tensor(MEAN, device="cpu"), persistent=False)
        self.register_buffer("std", torch.tensor(STD, device="cpu"), persistent=False)

    def encode_image(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 d"]:
        """One token for each picture.

        Args:
            pictures: In [-1, 1], of any size.
        """
        return self._run(pictures).image_embeds[:, None]

    def encode_parts(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """A vector for the whole and one for every patch, as the last layer leaves them.

        Args:
            pictures: In [-1, 1], of any size.
        """
        return self._run(pictures).last_hidden_state

    def _run(self, pictures: Tensor) -> Any:
        return self.model(pixel_values=self._standard((shrink(pictures, self.size) + 1) / 2))

    def _standard(self, small: Tensor) -> Tensor:
        """Pictures in [0, 1] as it was trained to see them."""
        mean, std = (value.reshape(1, 3, 1, 1).to(small) for value in (self.mean, self.std))
        return (small - mean) / std


@configurable
class ClipStatesEncoder(ClipImageEncoder):
    """A published image encoder without projection, whose last layer is not used.

    Args:
        config: Settings of ``transformers.CLIPVisionConfig``.

    Raises:
        ValueError: If they make no encoder.

    Source:
        Wan team 2025, arXiv:2503.20314, section 5.1: OpenCLIP's ViT-H beside XLM-RoBERTa.
    """

    kind = "CLIPVisionModel"

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        side = self.size // int(self.model.config.patch_size)
        self.num_tokens = 1 + side * side

    def encode_image(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """A vector for the whole and one for every patch, as the last layer but one leaves them.

        Args:
            pictures: In [-1, 1], of any size; what is outside of the square in the middle is not
                seen.
        """
        return self.states(self.prepare(pictures))

    def prepare(
        self, pictures: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 3 {self.size} {self.size}"]:
        """What it sees of pictures."""
        return self._standard(middle(pictures, self.size).to(self.mean))

    def states(
        self, squares: Float[Tensor, "b 3 {self.size} {self.size}"]
    ) -> Float[Tensor, "b n d"]:
        """The vectors of pictures that are prepared."""
        return self.model(pixel_values=squares, output_hidden_states=True).hidden_states[-2]


def middle(pictures: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "b 3 {size} {size}"]:
    """The square in the middle of pictures, in [0, 1], as CLIP's own code prepares it.

    Pictures have eight bits when they are resized.

    Source:
        Radford et al. 2021, arXiv:2103.00020, and its released code.
    """
    levels = ((pictures.float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)
    height, width = levels.shape[2:]
    short = min(height, width)
    sides = (size * height // short, size * width // short)
    levels = F.interpolate(levels, sides, mode="bicubic", antialias=True)
    top, left = ((side - size) // 2 for side in sides)
    return levels[:, :, top : top + size, left : left + size].to(pictures.device) / 255


def shrink(pictures: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "b 3 {size} {size}"]:
    """Pictures as squares: blurred as much as they shrink, then sampled by cubics.

    Source:
        The inference code of Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127.
    """
    for axis in (3, 2):
        pictures = _blur(pictures, pictures.shape[axis] / size, axis)
    return F.interpolate(pictures, (size, size), mode="bicubic", align_corners=True)


def _blur(pictures: Tensor, factor: float, axis: int) -> Tensor:
    """A Gaussian along one axis, half as wide as the factor is above 1; borders are mirrored."""
    sigma = max((factor - 1) / 2, 0.001)
    width = math.floor(max(4 * sigma, 3)) | 1  # odd
    places = torch.arange(width, dtype=pictures.dtype, device=pictures.device) - width // 2
    weights = torch.exp(-(places**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).reshape(1, 1, *((1, width) if axis == 3 else (width, 1)))
    side = width // 2
    padded = F.pad(pictures, (side, side, 0, 0) if axis == 3 else (0, 0, side, side), "reflect")
    return F.conv2d(padded, weights.expand(3, -1, -1, -1), groups=3)
