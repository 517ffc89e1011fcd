"""Whether a long clip stays what it was: how measures of its windows change as it goes on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from vdm.metrics.clips import Clips, check_clips, luma
from vdm.metrics.motion import motion_amount
from vdm.metrics.optical_flow import FlowEstimator

WINDOW = 16
"""Frames of a window; windows do not overlap, and frames that fill no window are not read."""


def windows(clips: UInt8[np.ndarray, "b t h w 3"]) -> UInt8[np.ndarray, "n s h w 3"]:
    """The windows of clips, one after the other.

    Args:
        clips: uint8 clips of at least one window.
    """
    b, t = clips.shape[:2]
    count = t // WINDOW
    return clips[:, : count * WINDOW].reshape(b * count, WINDOW, *clips.shape[2:])


def slope(values: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """Change from one window to the next of the line with the least squared error.

    Args:
        values: A measure of every window, at least two, of every clip.
    """
    k = values.shape[1]
    place = np.arange(k) - (k - 1) / 2
    return values @ place / (place @ place)


def drift(clips: Clips) -> list[dict[str, float]]:
    """Change per window of brightness, contrast, sharpness and motion of every clip.

    Brightness is the mean luma, contrast its standard deviation and sharpness the mean length of
    its gradient, in percent of the full range; motion is in percent of the width a frame. All are 0
    where nothing changes, and have a sign: clips that fade or freeze drift downwards.

    Args:
        clips: uint8 clips of at least two windows.

    Raises:
        ValueError: If they are shorter.
    """
    check_clips(clips, min_frames=2 * WINDOW)
    parts = windows(clips)
    grey = luma(parts).astype(np.float64) / 2.55
    dy, dx = np.gradient(grey, axis=(2, 3))
    estimator = FlowEstimator()
    measures = {
        "brightness": grey.mean((1, 2, 3)),
        "contrast": grey.std((2, 3)).mean(1),
        "sharpness": np.hypot(dx, dy).mean((1, 2, 3)),
        "motion": np.array([motion_amount(estimator(part)) for part in parts]),
    }
    slopes = {name: slope(v.reshape(len(clips), -1)) for name, v in measures.items()}
    return [{name: float(v[k]) for name, v in slopes.items()} for k in range(len(clips))]
