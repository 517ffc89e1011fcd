"""How far apart two sets of features are, without bias at any number of clips: squared MMD."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from vdm.metrics.frechet import check_sets
from vdm.metrics.score import NUM_RESAMPLES, Protocol, Score, resample_indices

Kernel = Literal["kid", "jedi"]
"""``kid``: ``(x.y / d + 1)^3``; ``jedi``: ``(x.y / d)^2``, the result times 100."""


class _Grams:
    """Kernels between all samples of two sets."""

    def __init__(self, x: np.ndarray, y: np.ndarray, kernel: Kernel) -> None:
        if kernel not in get_args(Kernel):
            raise ValueError(
                f"got kernel {kernel!r}, expected one of {', '.join(get_args(Kernel))}"
            )

        def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            product = a @ b.T / a.shape[1]
            return (product + 1) ** 3 if kernel == "kid" else 100 * product**2

        self.xx, self.yy, self.xy = k(x, x), k(y, y), k(x, y)

    def distance(self, p: np.ndarray, q: np.ndarray) -> float:
        """Where sample ``i`` of the first set counts ``p[i]`` times, of the second ``q[i]`` times.

        Pairs of a sample with itself are left out.
        """

        def mean(gram: np.ndarray, counts: np.ndarray) -> float:
            pairs = counts @ gram @ counts - counts**2 @ np.diag(gram)
            return pairs / (counts.sum() ** 2 - (counts**2).sum())

        between = p @ self.xy @ q / (p.sum() * q.sum())
        return float(mean(self.xx, p) + mean(self.yy, q) - 2 * between)


def squared_mmd(
    first: Float[np.ndarray, "n1 d"],
    second: Float[np.ndarray, "n2 d"],
    kernel: Kernel = "kid",
) -> float:
    """Unbiased squared maximum mean discrepancy; may be slightly negative.

    Args:
        first: Features of one set.
        second: Features of the other.
        kernel: Which kernel.

    Raises:
        ValueError: If a set has fewer than two samples, lengths differ or the kernel is unknown.

    Source:
        Gretton et al. 2012, "A Kernel Two-Sample Test", eq. 3; kernels of Binkowski et al. 2018,
        arXiv:1801.01401, section 4.1, and of Luo et al. 2024, arXiv:2410.05203.
    """
    x, y = check_sets(first, second)
    return _Grams(x, y, kernel).distance(np.ones(len(x)), np.ones(len(y)))


def mmd_score(
    real: Float[np.ndarray, "_ d"],
    generated: Float[np.ndarray, "_ d"],
    protocol: Protocol,
    more_real: Float[np.ndarray, "_ d"] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    kernel: Kernel = "kid",
) -> Score:
    """The squared MMD between features of clips, with bootstrap interval and floor.

    Args:
        real: Features of the real clips.
        generated: Features of the generated clips.
        protocol: What the score is called.
        more_real: Features of other real clips; their distance to ``real`` is the floor, about 0.
        num_resamples: Bootstrap resamples for the interval, centred on the value.
        seed: Seed of the resampling.
        kernel: Which kernel.

    Raises:
        ValueError: If a set has fewer than 2 clips.
    """
    x, y = check_sets(real, generated)
    grams = _Grams(x, y, kernel)
    value = grams.distance(np.ones(len(x)), np.ones(len(y)))
    rows = (resample_indices(len(z), num_resamples, 2 * seed + k) for k, z in enumerate((x, y)))
    drawn = [
        grams.distance(
            np.bincount(p, minlength=len(x)) * 1.0, np.bincount(q, minlength=len(y)) * 1.0
        )
        for p, q in zip(*rows, strict=True)
        if min(len(set(p)), len(set(q))) > 1  # one clip over and over has no pair
    ]
    low, high = value + np.percentile(drawn, [2.5, 97.5]) - np.mean(drawn) if drawn else (0, 0)
    return Score(
        value,
        protocol.id,
        len(x),
        len(y),
        (float(min(value, low)), float(max(value, high))) if drawn else None,
        floor=None if more_real is None else squared_mmd(real, more_real, kernel),
    )
