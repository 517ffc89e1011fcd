"""Frames between known ones without a network: held, cross-faded, or moved by optical flow.

Every rule is called as ``rule(frames, known)`` and leaves known frames as they are. Before the
first and after the last known frame that frame is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vdm.metrics.optical_flow import FlowEstimator, warp

Frames = UInt8[np.ndarray, "t h w 3"]
Known = Bool[np.ndarray, " t"]
Between = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``rule(frames, known) -> frames`` with the unknown ones filled in."""

PHOTOMETRIC = 20.0
"""How fast a pixel that looks different in the other frame loses weight, values in [0, 1]."""


def hold(frames: Frames, known: Known) -> Frames:
    """The nearest known frame, the earlier of two."""
    filled = frames.copy()
    for left, right, missing in _gaps(known):
        for k in missing:
            filled[k] = frames[left if k - left <= right - k else right]
    return filled


def linear(frames: Frames, known: Known) -> Frames:
    """A cross-fade from each known frame to the next one."""
    filled = frames.copy()
    for left, right, missing in _gaps(known):
        for k in missing:
            share = (k - left) / max(right - left, 1)
            filled[k] = np.rint((1 - share) * frames[left] + share * frames[right])
    return filled


def flow_warp(frames: Frames, known: Known, estimator: FlowEstimator | None = None) -> Frames:
    """Both known neighbours moved along the optical flow between them, and blended.

    Pixels are splatted forward, so that they arrive where they are at that time. Of those that meet
    in one place those count most that look the same in both frames: the others are about to be
    hidden. Places that nothing arrives at are cross-faded.

    Args:
        frames: The clip; what is not known is not looked at.
        known: Which frames are known.
        estimator: Finds the flow.

    Source:
        Niklaus & Liu 2020, "Softmax Splatting for Video Frame Interpolation", arXiv:2003.05534,
        eqs. 6 to 8 with the brightness constancy of eq. 13 as importance, its scale fixed.
    """
    estimator = FlowEstimator() if estimator is None else estimator
    filled = linear(frames, known)
    for left, right, missing in _gaps(known):
        if left == right:
            continue
        ends = frames[[left, right]]
        flows = [estimator(ends)[0], estimator(ends, reverse=True)[0]]
        sides = list(zip(ends / 255, flows, _importance(ends / 255, flows), strict=True))
        for k in missing:
            share = (k - left) / (right - left)
            total = np.zeros((*frames.shape[1:3], 4))
            for (image, flow, weight), time in zip(sides, (share, 1 - share), strict=True):
                total += (1 - time) * _splat(image, time * flow, weight)
            arrived = total[..., 3:] > 1e-3
            moved = total[..., :3] / np.maximum(total[..., 3:], 1e-3)
            filled[k] = np.where(arrived, np.rint(255 * moved), filled[k])
    return filled


def _gaps(known: Known) -> Iterator[tuple[int, int, range]]:
    """The known frames around each gap, the same one twice at the ends, and the frames in it."""
    places = np.flatnonzero(known).tolist()
    if not places:
        raise ValueError("got no known frame, expected at least one")
    yield places[0], places[0], range(places[0])
    for left, right in pairwise(places):
        yield left, right, range(left + 1, right)
    yield places[-1], places[-1], range(places[-1] + 1, len(known))


def _importance(
    ends: Float[np.ndarray, "2 h w 3"], flows: list[np.ndarray]
) -> list[Float[np.ndarray, "h w"]]:
    """Weight of every pixel of both frames where several arrive in one place."""
    there, inside = warp(ends[::-1], np.stack(flows))
    error = np.abs(ends - there).mean(-1) + (1 - inside)
    return list(np.exp(-PHOTOMETRIC * error.clip(max=1)))


def _splat(
    image: Float[np.ndarray, "h w 3"],
    flow: Float[np.ndarray, "h w 2"],
    weight: Float[np.ndarray, "h w"],
) -> Float[np.ndarray, "h w 4"]:
    """Weighted sums of the pixels that arrive, bilinearly, and of their weights."""
    h, w = weight.shape
    x = np.arange(w) + flow[..., 0].astype(np.float64)
    y = np.arange(h)[:, None] + flow[..., 1].astype(np.float64)
    values = np.concatenate([image, np.ones((h, w, 1))], axis=-1) * weight[..., None]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    total = np.zeros((h * w, 4))
    for column, row in ((0, 0), (1, 0), (0, 1), (1, 1)):
        at_x, at_y = left + column, top + row
        share = (1 - np.abs(x - at_x)) * (1 - np.abs(y - at_y))
        inside = (at_x >= 0) & (at_x < w) & (at_y >= 0) & (at_y < h)
        places = (at_y * w + at_x)[inside]
        np.add.at(total, places, (values * share[..., None])[inside])
    return total.reshape(h, w, 4)
