"""What a clip is to a metric: uint8 RGB frames, rounded once, refused when anything is off."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from vdm.utils.video_io import to_uint8

Clips = UInt8[np.ndarray, "b t h w 3"]


def check_clips(clips: Any, min_clips: int = 1, min_frames: int = 1) -> None:
    """Refuse anything but enough uint8 RGB clips of enough frames.

    Args:
        clips: Candidate clips, ``(b, t, h, w, 3)`` uint8.
        min_clips: Fewest clips that the metric is defined for.
        min_frames: Fewest frames that the metric is defined for.

    Raises:
        TypeError: If the clips are not a uint8 NumPy array.
        ValueError: If the shape is not ``(b, t, h, w, 3)``, or there are too few clips or frames.
    """
    if not isinstance(clips, np.ndarray) or clips.dtype != np.uint8:
        got = f"{type(clips).__name__} of {getattr(clips, 'dtype', 'unknown dtype')}"
        raise TypeError(f"got {got}, expected a uint8 NumPy array (b, t, h, w, 3); see quantise")
    if clips.ndim != 5 or clips.shape[-1] != 3:
        raise ValueError(f"got clips of shape {clips.shape}, expected (b, t, h, w, 3)")
    if len(clips) < min_clips:
        raise ValueError(f"got {len(clips)} clips, expected at least {min_clips}")
    if clips.shape[1] < min_frames:
        raise ValueError(f"got clips of {clips.shape[1]} frames, expected at least {min_frames}")
    if 0 in clips.shape:
        raise ValueError(f"got clips of shape {clips.shape}, expected no empty axis")


def quantise(video: Float[Tensor, "b 3 t h w"]) -> tuple[Clips, float]:
    """Round model output to the frames that metrics see, once.

    Args:
        video: Pixels, nominally in [-1, 1]; what lies outside is clamped.

    Returns:
        The clips, rounded half to even, and the share of values that had to be clamped.

    Raises:
        TypeError: If the video is not floating point.
        ValueError: If the shape is wrong, or a value is not finite or so far outside that the video
            must be in other units (beyond 16).
    """
    if not video.is_floating_point():
        raise TypeError(f"got {video.dtype}, expected a floating-point tensor")
    if video.ndim != 5 or video.shape[1] != 3 or video.numel() == 0:
        raise ValueError(f"got video of shape {tuple(video.shape)}, expected (b, 3, t, h, w)")
    size = video.detach().abs()
    largest = float(size.max())
    if not largest <= 16:  # also true of NaN
        raise ValueError(f"got video with largest value {largest:g}, expected pixels in [-1, 1]")
    clamped = float((size > 1).double().mean())
    return np.ascontiguousarray(to_uint8(video.detach().cpu()).numpy()), clamped


def luma(clips: UInt8[np.ndarray, "*pixels 3"]) -> Float[np.ndarray, "*pixels"]:
    """Luma of RGB pixels, 0 to 255, float32.

    Source:
        ITU-R BT.601, section 2.5.1.
    """
    return clips.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
