"""Which of the twelve motions a track is, and how fast: thresholds and least squares, no learning.

A track that is none of the twelve reads as ``None``; so do frames in another order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vdm.metrics.oracle_shapes import STEP
from vdm.world import attributes as a

MIN_PACE = 0.33  # pixels per frame, net of noise; the slowest translation has 0.8
MAX_RMS = 0.6  # pixels from the fitted path, and
RMS_PER_PACE = 0.1  # more for each pixel per frame: what is fast is placed less exactly
MIN_SWEEP = np.radians(200)
MIN_GROWTH = 0.0127  # log radius per frame, half of the slowest
MIN_SPIN = 0.6 / a.NUM_FRAMES  # radians per frame, half of the slowest
MAX_SPIN = 4.0 / a.NUM_FRAMES
MAX_TILT = np.radians(25)  # of a straight path against the axes
SPIN_MARGIN = 0.04  # overlap that a steady turn may lose against the best angle of every frame

LINE_LIMIT = 1.9  # pixels per frame; above it is fast, also among the speeds of test-speed
BOUNCE_LIMIT = sum(a.BOUNCE_SPEED.values()) / 2
CIRCLE_LIMIT = sum(a.CIRCLE_TURNS.values()) / 2 * 2 * np.pi / a.NUM_FRAMES
SPIN_LIMIT = sum(a.SPIN_ANGLE.values()) / 2 / a.NUM_FRAMES
GROWTH_LIMIT = float(np.log(list(a.GROWTH.values())).mean()) / a.NUM_FRAMES


@dataclass(frozen=True)
class Motion:
    """What a track does: one of the world's motions, slow or fast; ``None`` where unclear."""

    name: str | None
    speed: str | None = None


def _speed(value: float, limit: float) -> str:
    return "fast" if value > limit else "slow"


def _line(
    frames: Float[np.ndarray, " t"], values: Float[np.ndarray, "t k"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], float]:
    """Least-squares start and slope of ``values`` over time, and the rms distance from them."""
    centred = frames - frames.mean()
    slope = centred @ values / (centred @ centred)
    residual = values - values.mean(0) - np.outer(centred, slope)
    start = values.mean(0) - slope * frames.mean()
    return start, slope, float(np.sqrt((residual**2).sum(1).mean()))


def read_motion(
    frames: Float[np.ndarray, " t"],
    path: Float[np.ndarray, "t 2"],
    log_radius: Float[np.ndarray, " t"],
    overlaps: Float[np.ndarray, "t angles"],
) -> Motion:
    """Name the motion of one object.

    Args:
        frames: Frame numbers at which the object was seen whole.
        path: Its centre on the plane, in pixels of a 64-pixel frame.
        log_radius: Logarithm of its radius on the plane.
        overlaps: Overlap with its shape's template at every angle, ``STEP`` degrees apart.
    """
    if len(frames) < 4:
        return Motion(None)
    _, velocity, rms = _line(frames, path)
    extent = np.sqrt(((path - path.mean(0)) ** 2).sum(1).mean())
    # A line of that pace spreads pace * sqrt(var of frames); every other motion more.
    if extent < MIN_PACE * frames.std():
        return _in_place(frames, log_radius, overlaps)
    steps = np.diff(path, axis=0) / np.diff(frames)[:, None]
    tolerance = MAX_RMS + RMS_PER_PACE * float(np.median(np.hypot(*steps.T)))
    if rms < tolerance:
        return _straight(velocity)
    circle = _circle(frames, path, tolerance)
    if circle is not None:
        return circle
    return _bounce(frames, steps)


def _straight(velocity: Float[np.ndarray, " 2"]) -> Motion:
    pace = float(np.hypot(*velocity))
    for name, direction in a.DIRECTIONS.items():
        if velocity @ np.array(direction) > pace * np.cos(MAX_TILT):
            return Motion(name, _speed(pace, LINE_LIMIT))
    return Motion(None)


def _circle(
    frames: Float[np.ndarray, " t"], path: Float[np.ndarray, "t 2"], tolerance: float
) -> Motion | None:
    """A circle if the path lies on one and goes round it steadily.

    Source:
        Kasa 1976, "A circle fitting procedure and its error analysis", IEEE Trans. IM-25(1).
    """
    design = np.concatenate([2 * path, np.ones((len(path), 1))], 1)
    x, y, rest = np.linalg.lstsq(design, (path**2).sum(1), rcond=None)[0]
    offset = path - (x, y)
    radius = np.sqrt(max(rest + x * x + y * y, 1e-9))
    if np.sqrt(((np.hypot(*offset.T) - radius) ** 2).mean()) > tolerance:
        return None
    angle = np.unwrap(np.arctan2(offset[:, 1], offset[:, 0]))
    steps = np.diff(angle) / np.diff(frames)
    if abs(angle[-1] - angle[0]) < MIN_SWEEP:
        return None
    rate = float(np.median(steps))
    if np.mean(np.abs(steps - rate) < 0.5 * abs(rate) + 0.1) < 0.75:
        return None
    return Motion("circle-cw" if rate > 0 else "circle-ccw", _speed(abs(rate), CIRCLE_LIMIT))


def _bounce(frames: Float[np.ndarray, " t"], steps: Float[np.ndarray, "s 2"]) -> Motion:
    """A bounce if the pace along each axis is steady, but turns at least once."""
    pace = np.median(np.abs(steps), 0)
    steady = np.abs(np.abs(steps) - pace) < 0.5 + 0.15 * pace
    signs = [np.sign(axis[np.abs(axis) > 0.5]) for axis in steps.T]
    turns = sum(int((np.diff(sign) != 0).sum()) for sign in signs)
    if steady.mean() < 0.7 or not 1 <= turns <= len(frames) / 2:
        return Motion(None)
    return Motion("bounce", _speed(float(np.hypot(*pace)), BOUNCE_LIMIT))


def _in_place(
    frames: Float[np.ndarray, " t"],
    log_radius: Float[np.ndarray, " t"],
    overlaps: Float[np.ndarray, "t angles"],
) -> Motion:
    _, (growth,), rms = _line(frames, log_radius[:, None])
    if rms > 0.5 * MIN_GROWTH * a.NUM_FRAMES:
        return Motion(None)
    if abs(growth) > MIN_GROWTH:
        return Motion("grow" if growth > 0 else "shrink", _speed(abs(growth), GROWTH_LIMIT))
    rate, score = spin_rate(frames, overlaps)
    if score < overlaps.max(1).mean() - SPIN_MARGIN:
        return Motion(None)
    if abs(rate) > MIN_SPIN:
        return Motion("spin-cw" if rate > 0 else "spin-ccw", _speed(abs(rate), SPIN_LIMIT))
    return Motion("static")


def spin_rate(
    frames: Float[np.ndarray, " t"], overlaps: Float[np.ndarray, "t angles"]
) -> tuple[float, float]:
    """The steady turn that explains all frames best.

    Args:
        frames: Frame numbers.
        overlaps: Overlap at every angle, ``STEP`` degrees apart over one period of the shape.

    Returns:
        Radians per frame, clockwise, and the mean overlap at that rate; rate 0 for round shapes.
    """
    count = overlaps.shape[1]
    if count == 1:
        return 0.0, float(overlaps.mean())
    rates = np.linspace(-MAX_SPIN, MAX_SPIN, 81)
    angle = np.outer(rates, frames - frames[0]) / np.radians(STEP)  # in steps
    low = np.floor(angle).astype(int)
    share = (angle - low)[..., None]
    frame, phase = np.arange(len(frames))[:, None], np.arange(count)
    index = (low[..., None] + phase) % count
    total = overlaps[frame, index] * (1 - share) + overlaps[frame, (index + 1) % count] * share
    scores = total.mean(1).max(1)
    best = int(scores.argmax())
    return float(rates[best]), float(scores[best])
