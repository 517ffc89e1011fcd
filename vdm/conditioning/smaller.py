"""A smaller clip that a model enlarges: shown in pixels beside the latents, with noise on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vdm.types import Video
from vdm.utils.tensors import expand_as


@dataclass(frozen=True)
class SmallerClip:
    """How a model sees the clip that it enlarges.

    Latents are as large as the pixels of that clip. Its noise is that of an entry of a table, which
    the network is told (``Conditioning.noise_aug``).

    Args:
        schedule: The table, as a noise schedule whose entry ``k`` stands at ``(k + 1) / 1000``.
        level: Entry in sampling.
        factor: How many times as high and wide the larger clip is.
        max_frames: Frames enlarged together; longer clips are taken to pieces.

    Raises:
        ValueError: If a number is too small.

    Source:
        Rombach et al. 2022, arXiv:2112.10752, sec. 4.4, with the noise of Ho et al. 2022,
        "Cascaded Diffusion Models", arXiv:2106.15282, sec. 4.2; for clips Wang et al. 2023,
        "LaVie", arXiv:2309.15103, sec. 3.3.
    """

    schedule: Any
    level: float = 50.0
    factor: int = 4
    max_frames: int = 8

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.level < 0 or self.factor < 2 or self.max_frames < 1:
            raise ValueError(
                f"got level={self.level:g}, factor={self.factor}, max_frames={self.max_frames}, "
                "expected at least 0, 2 and 1"
            )

    def show(self, video: Video, level: Float[Tensor, " b"], eps: Video) -> Video:
        """What the network sees.

        Args:
            video: The smaller clip, pixels in [-1, 1].
            level: Entry of the table, one per sample.
            eps: Standard normal noise.
        """
        t = (level.double() + 1) / 1000
        alpha, sigma = self.schedule.alpha(t).to(video), self.schedule.sigma(t).to(video)
        return expand_as(alpha, video) * video + expand_as(sigma, video) * eps
