"""A picture that every frame is to be like, more or less, as PIA is told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LIKENESS = (
    (1.0, 0.9, 0.85, 0.85, 0.85, 0.8),
    (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75),
    (1.0, 0.8, *[0.7] * 8, 0.6, 0.5),
    (1.0, 0.9, *[0.85] * 3, *[0.8] * 7, 0.85, 0.85, 0.9, 1.0),
    (1.0, *[0.8] * 3, 0.79, 0.78, *[0.75] * 5, 0.78, 0.79, 0.8, 0.8, 1.0),
    (1.0, 0.8, *[0.7] * 4, 0.6, 0.5, 0.5, 0.6, *[0.7] * 4, 0.8, 1.0),
    (0.5, *[0.4] * 3, 0.35, 0.3),
    (0.5, *[0.4] * 3, 0.35, 0.35, 0.3, 0.25, 0.2),
    (0.5, 0.2),
)
"""How like the frames are, from the first one on; the last number holds for all that follow.

Little, more and much motion; the same three back to the start; the same three in another style.
Source: Zhang et al. 2023, "PIA", arXiv:2312.13964, sec. 3.2 and its inference code.
"""


@dataclass(frozen=True)
class Likeness:
    """The picture's latents stand beside the noise of every frame, with a mask of how like it is.

    Args:
        motion: Which row of the table is taken, where nothing is said.

    Source:
        Zhang et al. 2023, "PIA", arXiv:2312.13964, sec. 3.2.
    """

    motion: int = 0

    def mask(self, num_frames: int, motion: int | None = None) -> Float[Tensor, " t"]:
        """How like every frame is to the picture.

        Args:
            num_frames: Frames of the clip.
            motion: A row of the table.

        Raises:
            ValueError: If the table has no such row.
        """
        motion = self.motion if motion is None else motion
        if not 0 <= motion < len(LIKENESS):
            raise ValueError(f"got motion_bucket={motion}, expected 0 to {len(LIKENESS) - 1}")
        row = LIKENESS[motion]
        return torch.tensor([row[min(frame, len(row) - 1)] for frame in range(num_frames)])
