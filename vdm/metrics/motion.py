"""Do clips move as real ones do: the motion distance ``fmd/flow``, blind to appearance."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.frechet import Features
from vdm.metrics.optical_flow import Flow, FlowEstimator

GRID = 32  # side of the flow fields
SIDE = 2 * GRID  # of the frames between which flow is found: what is finer is mostly noise
EXTRACTOR = f"dis-medium-{SIDE}"
SEGMENTS, CELLS, DIRECTIONS = 3, 2, 8
MIN_FRAMES = SEGMENTS + 2  # so that every segment of the differences holds one


def _histograms(fields: Float[np.ndarray, "s h w 2"]) -> Float[np.ndarray, " _"]:
    """Directions in 3 time segments x 2x2 cells, weighted by log(1 + length), per pixel.

    The eight bins are centred on the axes and diagonals, so motion along an axis does not straddle
    two.
    """
    turn = np.arctan2(fields[..., 1], fields[..., 0]) / (2 * np.pi) * DIRECTIONS
    bins = np.round(turn).astype(int) % DIRECTIONS
    weights = np.log1p(np.linalg.norm(fields, axis=-1))
    votes = np.where(bins[..., None] == np.arange(DIRECTIONS), weights[..., None], 0)
    cells = votes.reshape(len(fields), CELLS, GRID // CELLS, CELLS, GRID // CELLS, DIRECTIONS).mean(
        (2, 4)
    )
    return np.concatenate([part.mean(0).ravel() for part in np.array_split(cells, SEGMENTS)])


def motion_features_of_flow(flow: Flow) -> Float[np.ndarray, " _"]:
    """Features of a clip's flow at 32x32: histograms of velocities, then of their differences.

    Raises:
        ValueError: If the flow is not ``(t - 1, 32, 32, 2)`` with at least 4 fields.
    """
    if flow.shape[1:] != (GRID, GRID, 2) or len(flow) < MIN_FRAMES - 1:
        raise ValueError(
            f"got flow of shape {flow.shape}, expected (s, 32, 32, 2) with s >= {MIN_FRAMES - 1}"
        )
    both = [_histograms(flow), _histograms(np.diff(flow, axis=0))]
    return np.concatenate(both).astype(np.float32)


def motion_features(clips: Clips, estimator: FlowEstimator | None = None) -> Features:
    """192 numbers per clip that say what moves where, when and how it accelerates.

    Args:
        clips: uint8 clips of at least 5 frames.
        estimator: Flow estimator; dense inverse search, ``medium``, on frames of 64 pixels if
            ``None``.
    """
    check_clips(clips, min_frames=MIN_FRAMES)
    estimator = estimator or FlowEstimator(side=SIDE)
    return np.stack([motion_features_of_flow(estimator(clip, size=(GRID, GRID))) for clip in clips])


DYNAMIC_SHARE, DYNAMIC_LENGTH, REFERENCE_SIDE = 0.05, 6.0, 256
"""Largest vectors that count, how long they are in a pair that moves, in frames of which side."""
DYNAMIC_PAIRS, REFERENCE_FRAMES = 4, 16
"""Pairs that move in a clip that does, of how many frames."""


def motion_amount(flow: Flow) -> float:
    """Mean length of the flow, in percent of the frame's width."""
    return float(100 / flow.shape[2] * np.linalg.norm(flow, axis=-1).mean())


def is_dynamic(flow: Flow) -> bool:
    """Whether enough neighbouring frames differ by a large motion.

    VBench takes the flow of RAFT between frames of 8 a second; here it is that of frames as they
    are, by whatever estimator.

    Source:
        Huang et al. 2023, "VBench", arXiv:2311.17982, section 3.2 (dynamic degree).
    """
    s, h, w = flow.shape[:3]
    lengths = np.sort(np.linalg.norm(flow, axis=-1).reshape(s, -1), axis=1)
    largest = lengths[:, -max(1, round(DYNAMIC_SHARE * h * w)) :].mean(1)
    moving = (largest > DYNAMIC_LENGTH * min(h, w) / REFERENCE_SIDE).sum()
    return bool(moving >= round(DYNAMIC_PAIRS * (s + 1) / REFERENCE_FRAMES))
