"""VBench's consistency of features and smoothness of motion, and its scale.

Its flicker is in :mod:`vdm.metrics.temporal`, its dynamic degree in :mod:`vdm.metrics.motion`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vdm.metrics.clips import Clips, check_clips

SUBJECT, BACKGROUND, FLICKER = "subject-consistency", "background-consistency", "flicker"
RANGES = {SUBJECT: (0.1462, 1.0), BACKGROUND: (0.2615, 1.0), FLICKER: (0.6293, 1.0)}
"""Least and largest value of each dimension, ``NORMALIZE_DIC`` of VBench's ``scripts/constant.py``.

Motion smoothness is not among them: its range is that of values by AMT, which is not here.
"""


def scaled(dimension: str, value: float) -> float:
    """A value as VBench's leaderboard counts it: 0 at the least one of its range, 1 at the largest.

    Args:
        dimension: A key of ``RANGES``.
        value: Measured as VBench does, with the same network where there is one.
    """
    low, high = RANGES[dimension]
    return (value - low) / (high - low)


def consistency(features: Float[Tensor, "b t d"]) -> Float[Tensor, " b"]:
    """How alike all frames of a clip are to the first one and to the one before, 1 if all the same.

    Args:
        features: Of at least 2 frames of each clip, of any length.

    Raises:
        ValueError: If there are fewer frames.

    Source:
        Huang et al. 2023, "VBench", arXiv:2311.17982, section 3.2 (subject and background
        consistency); cosines below 0 count as 0, as in VBench's code.
    """
    if features.shape[1] < 2:
        raise ValueError(f"got features of {features.shape[1]} frame, expected at least 2")
    first = F.cosine_similarity(features[:, 1:], features[:, :1], dim=-1)
    before = F.cosine_similarity(features[:, 1:], features[:, :-1], dim=-1)
    return ((first.clamp(min=0) + before.clamp(min=0)) / 2).mean(1)


def smoothness(
    clips: Clips, between: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Float[np.ndarray, " b"]:
    """How well every second frame is foretold by its two neighbours, 1 if exactly.

    Args:
        clips: uint8 clips of at least 3 frames; the last of an even number is not read.
        between: Makes frames that are not known, ``between(frames, known)``; see
            :mod:`vdm.metrics.between`. The number depends on it, and is VBench's only with AMT-S.

    Source:
        Huang et al. 2023, "VBench", arXiv:2311.17982, section 3.2 (motion smoothness).
    """
    check_clips(clips, min_frames=3)
    whole = clips[:, : clips.shape[1] - (clips.shape[1] + 1) % 2]
    known = np.arange(whole.shape[1]) % 2 == 0
    made = np.stack([between(clip, known) for clip in whole])
    error = np.abs(whole[:, 1::2].astype(np.int16) - made[:, 1::2])
    return 1 - error.mean((1, 2, 3, 4), dtype=np.float64) / 255
