"""Which part of a longer, larger video a sample is: windows in time and space, by a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import reduce
from jaxtyping import UInt8

from vdm.world.philox import Words


@dataclass(frozen=True)
class Window:
    """A part of a video.

    Args:
        start: First frame.
        stride: Every how manyeth frame is taken.
        top: First row.
        left: First column.
        shrink: Side of the squares of pixels that are averaged into one.
    """

    start: int
    stride: int
    top: int = 0
    left: int = 0
    shrink: int = 1


def draw_window(
    video: tuple[int, int, int],
    num_frames: int,
    size: int,
    strides: Sequence[int],
    shrinks: Sequence[int],
    *key: int | str,
) -> Window:
    """A window drawn uniformly: first among the strides and shrinks that fit, then in place.

    Args:
        video: Frames, height and width of the video.
        num_frames: Frames of the window.
        size: Height and width of the window after shrinking.
        strides: Strides to choose from.
        shrinks: Shrinks to choose from.
        key: What the window is for; the same key draws the same window.

    Raises:
        ValueError: If no window fits.
    """
    length, height, width = video
    fitting_strides = [s for s in strides if (num_frames - 1) * s < length]
    fitting_shrinks = [s for s in shrinks if size * s <= min(height, width)]
    if not fitting_strides or not fitting_shrinks:
        raise ValueError(
            f"got a video of {length} frames, {width}x{height}, expected at least "
            f"{(num_frames - 1) * min(strides) + 1} frames, {size * min(shrinks)} pixels a side"
        )
    words = Words(*key)
    stride, shrink = words.choice(fitting_strides), words.choice(fitting_shrinks)
    return Window(
        start=words.below(length - (num_frames - 1) * stride),
        stride=stride,
        top=words.below(height - size * shrink + 1),
        left=words.below(width - size * shrink + 1),
        shrink=shrink,
    )


def cut(
    video: UInt8[np.ndarray, "T H W 3"], window: Window, num_frames: int, size: int
) -> UInt8[np.ndarray, "t h w 3"]:
    """Take a window out of a video, which may be memory-mapped: only the window is read."""
    side = size * window.shrink
    part = video[
        window.start : window.start + (num_frames - 1) * window.stride + 1 : window.stride,
        window.top : window.top + side,
        window.left : window.left + side,
    ]
    if window.shrink == 1:
        return np.array(part)
    pattern = "t (h sh) (w sw) c -> t h w c"
    mean = reduce(part.astype(np.float32), pattern, "mean", sh=window.shrink, sw=window.shrink)
    return np.rint(mean).astype(np.uint8)
