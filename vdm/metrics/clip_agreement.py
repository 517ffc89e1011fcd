"""Do frames show what the caption says, and do they look alike: cosines of CLIP's embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vdm.metrics.clip_measures import ClipMeasure, Row
from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.weights_file import check_folder, hash_of, reading

NAME = "clip"
BATCH = 32
"""Frames that are embedded together."""


class ClipAgreement:
    """CLIP, out of files that the user has: none can be brought by a package.

    Frames are prepared as the files say (for the published ones: the shorter side to 224 pixels,
    bicubically, and the centre), captions cut to what the text transformer reads.

    Args:
        source: A folder in transformers' layout with model, tokenizer and preprocessor, or its name
            on the hub, e.g. ``openai/clip-vit-base-patch32``.

    Raises:
        FileNotFoundError: If there is no such folder.
        ImportError: If transformers is not installed.
        ValueError: If no CLIP can be read from it.

    Source:
        Wu et al. 2021, "GODIVA", arXiv:2104.14806, sec. 4.2 (CLIPSIM): the mean over frames of the
        cosine between frame and caption, as it is.
    """

    def __init__(self, source: str | Path) -> None:
        check_folder(source)
        with reading(f"{source}: no CLIP in transformers' layout", NAME, "transformers"):
            from transformers import CLIPModel, CLIPProcessor

            model = CLIPModel.from_pretrained(source)
            self.process = CLIPProcessor.from_pretrained(source)
        self.source, self.model = source, model.eval().requires_grad_(False)
        text: Any = model.config.text_config
        self.length: int = text.max_position_embeddings
        self.id = hash_of(model)[:8]

    def measure(self) -> ClipMeasure:
        """What it measures, as a protocol whose id names the weights."""
        return ClipMeasure(NAME, self, weights=self.id, reads_captions=True)

    def embed(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Embeddings of any length of frames that are prepared already."""
        return self.model.visual_projection(self.model.vision_model(pixels).pooler_output)

    @torch.no_grad()
    def frames(self, clips: Clips) -> Float[Tensor, "b t d"]:
        """Unit embeddings of all frames."""
        rows = [frame for clip in clips for frame in clip]
        parts = []
        for first in range(0, len(rows), BATCH):
            pixels = self.process.image_processor(rows[first : first + BATCH], return_tensors="pt")
            parts.append(self.embed(pixels["pixel_values"]))
        return F.normalize(torch.cat(parts), dim=-1).unflatten(0, clips.shape[:2])

    @torch.no_grad()
    def captions(self, captions: Sequence[str]) -> Float[Tensor, "b d"]:
        """Unit embeddings of captions."""
        words = self.process.tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        )
        states = self.model.text_model(**words).pooler_output
        return F.normalize(self.model.text_projection(states), dim=-1)

    def __call__(self, clips: Clips, captions: Sequence[str]) -> list[Row]:
        """Mean cosines of every clip.

        Args:
            clips: uint8 clips of at least 2 frames.
            captions: One for each.

        Returns:
            ``text`` (CLIPSIM) between frames and caption, ``neighbours`` between each frame and the
            next, ``first`` between the first frame and each other.
        """
        check_clips(clips, min_frames=2)
        frames, words = self.frames(clips), self.captions(captions)
        agreement = {
            "text": (frames * words.unsqueeze(1)).sum(-1).mean(1),
            "neighbours": (frames[:, 1:] * frames[:, :-1]).sum(-1).mean(1),
            "first": (frames[:, 1:] * frames[:, :1]).sum(-1).mean(1),
        }
        return [{k: float(v[n]) for k, v in agreement.items()} for n in range(len(clips))]
