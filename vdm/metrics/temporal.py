"""Does a clip hang together in time: the three jitter numbers, in percent, and plain flicker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from vdm.metrics.clips import Clips, check_clips, luma
from vdm.metrics.optical_flow import Flow, FlowEstimator, visible_mask, warp

LIMIT = 4.0  # percent; a clip set passes below it
MAX_RATIO = 2.0  # times the real reference


@dataclass(frozen=True)
class Jitter:
    """Jitter of a clip, or means over clips, in percent.

    Args:
        residual: What warping cannot explain: boiling, noise, drifting texture.
        luma: Second difference of mean brightness: gain flicker.
        jerk: Change of the flow along its own path, in percent of the width: shake.
    """

    residual: float
    luma: float
    jerk: float

    def passes(self, reference: Jitter) -> bool:
        """Whether every number is under 4 % and none above twice the reference's."""
        pairs = [
            (self.residual, reference.residual),
            (self.luma, reference.luma),
            (self.jerk, reference.jerk),
        ]
        return all(value < LIMIT and value <= MAX_RATIO * real for value, real in pairs)


def residual_jitter(frames: UInt8[np.ndarray, "t h w 3"], forward: Flow, backward: Flow) -> float:
    """Mean absolute difference of neighbours after warping, visible pixels only, in percent."""
    scaled = frames / 255.0
    warped, inside = warp(scaled[1:], forward)
    count = visible_mask(forward, backward) & inside
    difference = np.abs(scaled[:-1] - warped).mean(-1)
    return float(100 * np.mean((difference * count).sum((1, 2)) / np.maximum(count.sum((1, 2)), 1)))


def luma_jitter(frames: UInt8[np.ndarray, "t h w 3"]) -> float:
    """Second difference of the mean luma, relative to the luma, in percent; 0 for a black clip."""
    mean = luma(frames).mean((1, 2), dtype=np.float64)
    return float(50 * np.abs(np.diff(mean, n=2)).mean() / max(mean.mean(), 1e-12))


def jerk_jitter(flow: Flow) -> float:
    """Mean change of the flow along its path, in percent of the frame's width."""
    ahead, inside = warp(flow[1:], flow[:-1])
    change = np.linalg.norm(ahead - flow[:-1], axis=-1)
    return float(100 / flow.shape[2] * change[inside].mean()) if inside.any() else 0.0


def jitter(clips: Clips, estimator: FlowEstimator | None = None) -> list[Jitter]:
    """The three jitter numbers of every clip.

    Args:
        clips: uint8 clips of at least 3 frames.
        estimator: Flow estimator; dense inverse search, ``medium``, if ``None``.
    """
    check_clips(clips, min_frames=3)
    estimator = estimator or FlowEstimator()
    result = []
    for clip in clips:
        forward, backward = estimator(clip), estimator(clip, reverse=True)
        result.append(
            Jitter(
                residual_jitter(clip, forward, backward), luma_jitter(clip), jerk_jitter(forward)
            )
        )
    return result


def mean_jitter(values: list[Jitter]) -> Jitter:
    """Mean over clips.

    Raises:
        ValueError: If there is no clip.
    """
    if not values:
        raise ValueError("got no clips, expected at least 1")
    return Jitter(
        *(
            float(np.mean([getattr(v, name) for v in values]))
            for name in ("residual", "luma", "jerk")
        )
    )


def flicker(clips: Clips) -> Float[np.ndarray, " b"]:
    """Mean absolute difference between neighbouring frames, in [0, 1].

    It depends on the content, so it means something only as a ratio.

    Args:
        clips: uint8 clips of at least 2 frames.
    """
    check_clips(clips, min_frames=2)
    return (
        np.abs(np.diff(clips.astype(np.float32), axis=1)).mean((1, 2, 3, 4), dtype=np.float64) / 255
    )


def temporal_flickering(clips: Clips) -> Float[np.ndarray, " b"]:
    """One minus flicker: 1 is perfectly still. Meant for static prompts.

    Source:
        Huang et al. 2023, "VBench", arXiv:2311.17982, section 3.2 (temporal flickering).
    """
    return 1 - flicker(clips)
