"""Two networks as one: which of them predicts is told by the noise level."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vdm.types import Conditioning, Latents
from vdm.utils.config import configurable


@configurable
class Experts(nn.Module):
    """A network for much noise and one for little.

    A sample is read by one of them alone; where noise levels vary over frames, the highest counts.

    Args:
        high: Predicts at noise levels from the boundary on.
        low: Predicts below.
        boundary: In the units of ``c_noise``.

    Raises:
        ValueError: If they read or predict different things.

    Source:
        Balaji et al. 2022, "eDiff-I: Text-to-Image Diffusion Models with an Ensemble of Expert
        Denoisers", arXiv:2211.01324, section 4; Wan-AI/Wan2.2-T2V-A14B.
    """

    def __init__(self, high: nn.Module, low: nn.Module, boundary: float) -> None:
        super().__init__()
        for name in ("in_channels", "patch_size", "reads", "needs"):
            one, other = getattr(high, name), getattr(low, name)
            if one != other:
                raise ValueError(f"got experts with {name} {one} and {other}, expected the same")
        self.high, self.low, self.boundary = high, low, boundary
        shared: Any = high
        self.in_channels, self.patch_size = shared.in_channels, shared.patch_size
        self.reads, self.needs = shared.reads, shared.needs

    def forward(
        self, x: Latents, c_noise: Float[Tensor, " b *frames"], cond: Conditioning
    ) -> Latents:
        """Predict the target from noisy latents.

        Args:
            x: Noisy latents.
            c_noise: Noise level in the units of training.
            cond: What else the networks are told.
        """
        is_high = c_noise.flatten(1).amax(1) if c_noise.ndim > 1 else c_noise
        is_high = is_high >= self.boundary
        # Reads the device once per call; that each sample is read by one network is the point.
        if is_high.all():
            return self.high(x, c_noise, cond)
        if not is_high.any():
            return self.low(x, c_noise, cond)
        pred = torch.empty_like(x)
        for network, mine in ((self.high, is_high), (self.low, ~is_high)):
            rows = mine.nonzero()[:, 0]
            pred[rows] = network(x[rows], c_noise[rows], cond.select(rows))
        return pred
