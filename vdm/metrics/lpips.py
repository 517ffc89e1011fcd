"""How different a reconstruction looks from its input: LPIPS, per frame, then per video.

The linear heads are those that torchmetrics ships; the backbones are torchvision's ImageNet files,
which the user has (``alexnet-owt-7be5be79.pth`` for tables, ``vgg16-397923af.pth``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float

from vdm.autoencoder.losses import AlexFeatures, VGGFeatures
from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.weights_file import WeightsFile, reading
from vdm.utils.video_io import from_uint8

NAME = "lpips"
NETWORKS = {11: AlexFeatures, 3: VGGFeatures}
"""By the side of the first kernel."""
MIN_SIDE = 32


class LPIPS:
    """LPIPS v0.1 with the backbone that a file holds.

    Args:
        weights: torchvision's file of AlexNet or of VGG-16, see :meth:`WeightsFile.of`.

    Attributes:
        id: How protocol ids name it: network and hash of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If torchmetrics or torchvision is not installed.
        ValueError: If the file holds neither network.

    Source:
        Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features", arXiv:1801.03924, eq.
        1.
    """

    def __init__(self, weights: str | Path) -> None:
        file = WeightsFile.of(weights)
        with reading(f"{file.path}: neither AlexNet nor VGG-16", "lpips"):
            state = torch.load(file.path, map_location="meta", weights_only=True)
            kind = NETWORKS[state["features.0.weight"].shape[-1]]
            self.features = kind(str(file.path)).eval()
        self.id = f"{kind.net}@{file.id}"

    def __call__(self, real: Clips, reconstructed: Clips) -> Float[np.ndarray, " b"]:
        """The distance of every video: the mean over its frames.

        Args:
            real: uint8 input clips, at least 32 pixels high and wide.
            reconstructed: uint8 reconstructions of the same shape.

        Raises:
            ValueError: If the shapes differ or frames are too small for the network.
        """
        check_clips(real)
        check_clips(reconstructed)
        if real.shape != reconstructed.shape:
            raise ValueError(
                f"got reconstruction of shape {reconstructed.shape}, expected {real.shape}"
            )
        if min(real.shape[2:4]) < MIN_SIDE:
            h, w = real.shape[2:4]
            raise ValueError(f"got frames of {h}x{w}, expected at least {MIN_SIDE}x{MIN_SIDE}")
        return np.array([self._clip(*pair) for pair in zip(real, reconstructed, strict=True)])

    def _clip(self, real: np.ndarray, reconstructed: np.ndarray) -> float:
        with torch.inference_mode():
            x, y = (
                self.features(rearrange(from_uint8(torch.from_numpy(clip)), "c t h w -> t c h w"))
                for clip in (real, reconstructed)
            )
            maps = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(x, y, strict=True)]
        return float(torch.stack(maps).sum(0).mean())
