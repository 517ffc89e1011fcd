"""Is one arm better than another: spread over seeds, intervals, paired tests on the same clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vdm.metrics.score import NUM_RESAMPLES, resample_indices

Outcomes = Float[np.ndarray, "seeds clips"]
NUM_FLIPS = 10_000


@dataclass(frozen=True)
class Difference:
    """An arm minus the baseline, on the same captions and the same noise.

    Args:
        value: Mean difference.
        interval: 95 % interval over seeds and clips.
        p: Probability of a difference as large if the arms were alike; corrected for the number of
            arms.
    """

    value: float
    interval: tuple[float, float]
    p: float


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard deviation over seeds (0 for one seed).

    Raises:
        ValueError: If there is no value.
    """
    if not len(values):
        raise ValueError("got no value, expected at least 1")
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def interval(outcomes: Outcomes, num_resamples: int = NUM_RESAMPLES) -> tuple[float, float]:
    """95 % interval of the mean: seeds are resampled, and clips, the same ones for all seeds.

    Raises:
        ValueError: If there is no seed or no clip.
    """
    seeds, clips = outcomes.shape
    rows = resample_indices(seeds, num_resamples, seed=1)
    columns = resample_indices(clips, num_resamples, seed=2)
    means = [
        outcomes[np.ix_(row, column)].mean() for row, column in zip(rows, columns, strict=True)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def sign_flip_p(differences: Float[np.ndarray, " clips"], num_flips: int = NUM_FLIPS) -> float:
    """How often random signs give a mean difference as large: a paired permutation test.

    Args:
        differences: One per clip.
        num_flips: Random assignments of signs.

    Source:
        Phipson & Smyth 2010, "Permutation P-values Should Never Be Zero", SAGMB 9(1): one is added
        above and below.
    """
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    words = np.random.Philox(key=3).random_raw(num_flips * len(differences))
    signs = (words.reshape(num_flips, -1) & 1).astype(np.float64) * 2 - 1
    reached = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
    return float((reached.sum() + 1) / (num_flips + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for several tests at once.

    Source:
        Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statist. 6.
    """
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = largest
    return corrected


def compare(
    baseline: Outcomes, others: Mapping[str, Float[np.ndarray, "_ _"]]
) -> dict[str, Difference]:
    """Every arm against the baseline.

    Args:
        baseline: Outcomes ``(seeds, clips)``.
        others: Those of other arms, on the same clips, with the same seeds.

    Raises:
        ValueError: If an arm has other clips or seeds.
    """
    for name, outcomes in others.items():
        if outcomes.shape != baseline.shape:
            raise ValueError(
                f"got {outcomes.shape} outcomes of {name!r}, expected {baseline.shape} as the "
                "baseline has: paired tests need the same seeds and clips"
            )
    paired = {name: outcomes - baseline for name, outcomes in others.items()}
    corrected = holm([sign_flip_p(values.mean(0)) for values in paired.values()])
    return {
        name: Difference(float(values.mean()), interval(values), p)
        for (name, values), p in zip(paired.items(), corrected, strict=True)
    }
