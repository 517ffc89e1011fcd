"""Given frames that steer a clip without being part of it, as SparseCtrl is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SparseFrames:
    """The network sees given frames, and zeros with a mask elsewhere; it may depart from them.

    Args:
        sees: ``latents`` of the frames, in the scale of those that are denoised, or their
            ``pixels`` in [0, 1].

    Source:
        Guo et al. 2023, "SparseCtrl", arXiv:2311.16933, sec. 3.2.
    """

    sees: Literal["latents", "pixels"] = "latents"

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.sees not in ("latents", "pixels"):
            raise ValueError(f"got sees={self.sees!r}, expected 'latents' or 'pixels'")
