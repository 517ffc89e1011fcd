"""Do subject and background stay what they are: consistency of what networks see in each frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from vdm.metrics.clip_agreement import BATCH, ClipAgreement
from vdm.metrics.clip_measures import ClipMeasure, Row
from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.vbench import BACKGROUND, SUBJECT, consistency, scaled
from vdm.metrics.weights_file import check_folder, hash_of, reading

DINO, CLIP = "facebook/dino-vitb16", "openai/clip-vit-base-patch32"
"""Names on the hub of VBench's networks."""
HEADS = ("pooler.", "classifier.")
"""Parts of a vision transformer's file that come after its features."""


@dataclass(frozen=True)
class FrameEncoder:
    """A network that sees single frames, prepared as VBench prepares them.

    Args:
        name: Kind of network with the side of its patches, for protocol ids.
        embed: From prepared frames ``(n, 3, h, w)`` to features ``(n, d)``.
        weights: Hash of its weights.
        side: Height and width in pixels that the shorter side of a frame is brought to.
        resize: How, without antialiasing.
        is_cropped: Whether only the square in the middle is seen.
        mean: Subtracted from each channel in [0, 1].
        std: What is left is divided by it.
        is_published: Whether VBench has the same network.
    """

    name: str
    embed: Callable[[Tensor], Tensor]
    weights: str
    side: int
    resize: Literal["bilinear", "bicubic"]
    is_cropped: bool
    mean: Sequence[float]
    std: Sequence[float]
    is_published: bool = False

    @property
    def id(self) -> str:
        """The network and how frames reach it, for protocol ids."""
        crop = "-crop" if self.is_cropped else ""
        return f"{self.name}-{self.side}-{self.resize}{crop}"

    def prepare(self, frames: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 _ _"]:
        """Frames as the network takes them."""
        pixels = rearrange(torch.from_numpy(frames).float() / 255, "n h w c -> n c h w")
        height, width = (self.side * size // min(frames.shape[1:3]) for size in frames.shape[1:3])
        pixels = F.interpolate(pixels, (height, width), mode=self.resize)
        if self.is_cropped:
            top, left = round((height - self.side) / 2), round((width - self.side) / 2)
            pixels = pixels[:, :, top : top + self.side, left : left + self.side]
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    @torch.no_grad()
    def __call__(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "t d"]:
        """Features of the frames of one clip."""
        starts = range(0, len(frames), BATCH)
        return torch.cat([self.embed(self.prepare(frames[k : k + BATCH])) for k in starts])


def load_dino(source: str | Path) -> FrameEncoder:
    """A vision transformer for subject consistency: the class token after the last norm.

    Frames are not cropped. Where they are not square, positions are interpolated on transformers'
    grid, by up to 0.1 of a patch other than on that of DINO's authors.

    Args:
        source: A folder in transformers' layout with model and preprocessor, or a name on the hub;
            VBench has ``facebook/dino-vitb16``.

    Raises:
        FileNotFoundError: If there is no such folder.
        ImportError: If transformers is not installed.
        ValueError: If no vision transformer can be read from it.

    Source:
        Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers",
        arXiv:2104.14294.
    """
    check_folder(source)
    with reading(f"{source}: no ViT in transformers' layout", SUBJECT, "transformers"):
        from transformers import AutoConfig, ViTImageProcessor, ViTModel

        kind = AutoConfig.from_pretrained(source).model_type
        if kind != "vit":
            raise ValueError(f"got a model of type {kind!r}, expected 'vit'")
        loaded: Any = ViTModel.from_pretrained(
            source, add_pooling_layer=False, output_loading_info=True
        )
        model, about = loaded
        if missing := sorted(about["missing_keys"]):
            raise ValueError(f"{missing[0]} is missing")
        surplus = [key for key in about["unexpected_keys"] if not any(h in key for h in HEADS)]
        if surplus:
            raise ValueError(f"got {min(surplus)}, expected no such key")
        process = ViTImageProcessor.from_pretrained(source)
    model = model.eval().requires_grad_(False)

    def embed(pixels: Tensor) -> Tensor:
        return model(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]

    return FrameEncoder(
        name=f"vit{model.config.patch_size}",
        embed=embed,
        weights=hash_of(model)[:8],
        side=model.config.image_size,
        resize="bilinear",
        is_cropped=False,
        mean=process.image_mean,
        std=process.image_std,
        is_published=_is(source, DINO),
    )


def clip_encoder(clip: ClipAgreement) -> FrameEncoder:
    """CLIP's image tower for background consistency."""
    vision: Any = clip.model.config.vision_config
    process = clip.process.image_processor
    return FrameEncoder(
        name=f"clip{vision.patch_size}",
        embed=clip.embed,
        weights=clip.id,
        side=vision.image_size,
        resize="bicubic",
        is_cropped=True,
        mean=process.image_mean,
        std=process.image_std,
        is_published=_is(clip.source, CLIP),
    )


def _is(source: str | Path, name: str) -> bool:
    """Whether weights come from the hub under a name; what stands in a folder nobody knows."""
    return str(source) == name and not Path(source).exists()


def subject_consistency(source: str | Path) -> ClipMeasure:
    """VBench's subject consistency, as a protocol whose id names the weights; see `load_dino`."""
    return _measure(SUBJECT, load_dino(source))


def background_consistency(clip: ClipAgreement) -> ClipMeasure:
    """VBench's background consistency, as a protocol whose id names the weights."""
    return _measure(BACKGROUND, clip_encoder(clip))


def _measure(dimension: str, encoder: FrameEncoder) -> ClipMeasure:
    rows = partial(measure_consistency, dimension=dimension, encoder=encoder)
    return ClipMeasure(dimension, rows, encoder.id, weights=encoder.weights)


def measure_consistency(clips: Clips, dimension: str, encoder: FrameEncoder) -> list[Row]:
    """Consistency of every clip, in percent.

    Args:
        clips: uint8 clips of at least 2 frames.
        dimension: Its name in ``vdm.metrics.vbench.RANGES``.
        encoder: What sees the frames.

    Returns:
        ``raw``, and where the network is that of VBench ``scaled`` as on its leaderboard.
    """
    check_clips(clips, min_frames=2)
    values = [float(consistency(encoder(clip)[None])) for clip in clips]
    if not encoder.is_published:
        return [{"raw": 100 * value} for value in values]
    return [{"raw": 100 * v, "scaled": 100 * scaled(dimension, v)} for v in values]
