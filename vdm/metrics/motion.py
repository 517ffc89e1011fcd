"""Do clips move as real ones do: the motion distance ``fmd/flow``, blind to appearance."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.frechet import Features, GaussianStatistics, frechet_distance, frechet_interval
from vdm.metrics.optical_flow import Flow, FlowEstimator
from vdm.metrics.score import NUM_RESAMPLES, Protocol, Score

GRID = 32  # side of the flow fields
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
        estimator: Flow estimator; dense inverse search, ``medium``, if ``None``.
    """
    check_clips(clips, min_frames=MIN_FRAMES)
    estimator = estimator or FlowEstimator()
    return np.stack([motion_features_of_flow(estimator(clip, size=(GRID, GRID))) for clip in clips])


def motion_distance(
    real: Float[np.ndarray, "_ d"],
    generated: Float[np.ndarray, "_ d"],
    protocol: Protocol,
    more_real: Float[np.ndarray, "_ d"] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Score:
    """``fmd/flow``: the Frechet distance between motion features, with interval and floor.

    Args:
        real: Features of the real clips.
        generated: Features of the generated clips.
        protocol: What the score is called.
        more_real: Features of as many other real clips; their distance to ``real`` is the floor.
        num_resamples: Bootstrap resamples for the interval.
        seed: Seed of the resampling.

    Raises:
        ValueError: If a set has fewer than 2 clips, or the second real set is not as large as the
            generated one.
    """
    if more_real is not None and len(more_real) != len(generated):
        raise ValueError(f"got {len(more_real)} clips for the floor, expected {len(generated)}")
    statistics = GaussianStatistics.of(real)
    result = frechet_distance(statistics, GaussianStatistics.of(generated))
    floor = None
    if more_real is not None:
        floor = frechet_distance(statistics, GaussianStatistics.of(more_real)).value
    return Score(
        result.value,
        protocol.id,
        len(real),
        len(generated),
        frechet_interval(real, generated, num_resamples, seed),
        floor=floor,
        rank_deficient=result.rank_deficient,
    )
