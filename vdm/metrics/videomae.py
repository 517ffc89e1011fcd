"""Features that see motion more than frames do: VideoMAE, for the content-debiased FVD.

The network is that of transformers, out of a folder or from the hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch.nn import functional as F

from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.frechet import Features
from vdm.metrics.weights_file import check_folder, hash_of, reading

NAME = "videomae"


class VideoMAE:
    """VideoMAE, fine-tuned to classify, without its last layer.

    Frames are resized bilinearly to the network's size and stay in [0, 1], as the authors of the
    content-debiased FVD have it.

    Args:
        source: A folder in transformers' layout, or its name on the hub, e.g.
            ``MCG-NJU/videomae-base-finetuned-ssv2``.

    Attributes:
        id: How protocol ids name it.
        num_frames: Frames that a clip must have.

    Raises:
        FileNotFoundError: If there is no such folder.
        ImportError: If transformers is not installed.
        ValueError: If no such network can be read from it.

    Source:
        Ge et al. 2024, "On the Content Bias in Frechet Video Distance", arXiv:2404.12391, sec. 4.
    """

    def __init__(self, source: str | Path) -> None:
        check_folder(source)
        problem = f"{source}: no VideoMAE that classifies clips"
        with reading(problem, "fvd/videomae", "transformers"):
            from transformers import VideoMAEForVideoClassification

            loaded: Any = VideoMAEForVideoClassification.from_pretrained(
                source, output_loading_info=True
            )
            model, about = loaded
            if missing := sorted(about["missing_keys"]):
                raise ValueError(f"{missing[0]} is missing")
            if model.fc_norm is None:
                raise ValueError("its features are not means over all places")
        self.model = model.eval().requires_grad_(False)
        self.num_frames: int = model.config.num_frames
        self.side: int = model.config.image_size
        self.id = f"{NAME}@{hash_of(model)[:8]}"

    @property
    def resize(self) -> str:
        """How frames reach the network, for protocol ids."""
        return f"{self.side}x{self.side}-bilinear-unit"

    def __call__(self, clips: Clips) -> Features:
        """Mean features of each clip; clips go through the network one by one.

        Args:
            clips: uint8 clips of as many frames as the network takes.

        Raises:
            ValueError: If clips have another number of frames.
        """
        check_clips(clips)
        if clips.shape[1] != self.num_frames:
            raise ValueError(
                f"got clips of {clips.shape[1]} frames, expected {self.num_frames} for {self.id}"
            )
        return np.stack([self._clip(torch.from_numpy(clip)) for clip in clips])

    @torch.inference_mode()
    def _clip(self, frames: torch.Tensor) -> np.ndarray:
        pixels = rearrange(frames.float() / 255, "t h w c -> t c h w")
        resized = F.interpolate(pixels, (self.side, self.side), mode="bilinear")
        states = self.model.videomae(rearrange(resized, "t c h w -> 1 t c h w"))[0]
        return self.model.fc_norm(states.mean(1))[0].numpy()
