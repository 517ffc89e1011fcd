"""How far apart two sets of features are: Frechet distance and its unbiased limit.

Nothing here knows where features come from; every Frechet metric (video, image, motion) ends in
this file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from vdm.metrics.score import NUM_RESAMPLES, Z95, Protocol, Score, resample_indices

Features = Float[np.ndarray, "n d"]


class GaussianStatistics:
    """Sums from which mean and covariance follow; add batches and merge workers' parts.

    Args:
        dim: Length of a feature vector.

    Raises:
        ValueError: If ``dim`` is not positive.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"got dim={dim}, expected at least 1")
        self.n = 0
        self.total = np.zeros(dim)
        self.outer = np.zeros((dim, dim))

    @classmethod
    def of(cls, features: Features) -> GaussianStatistics:
        """Statistics of a whole set at once."""
        features = check_features(features)
        return cls(features.shape[1]).update(features)

    def update(self, features: Features) -> GaussianStatistics:
        """Add a batch of features and return itself.

        Raises:
            TypeError: If features are not floating point.
            ValueError: If they are not ``(n, dim)`` or not finite.
        """
        features = check_features(features).astype(np.float64)
        if features.shape[1] != len(self.total):
            raise ValueError(
                f"got features of length {features.shape[1]}, expected {len(self.total)}"
            )
        self.n += len(features)
        self.total += features.sum(0)
        self.outer += features.T @ features
        return self

    def merge(self, other: GaussianStatistics) -> GaussianStatistics:
        """The statistics of both sets together."""
        if len(self.total) != len(other.total):
            raise ValueError(
                f"got statistics of length {len(other.total)}, expected {len(self.total)}"
            )
        merged = GaussianStatistics(len(self.total))
        merged.n = self.n + other.n
        merged.total = self.total + other.total
        merged.outer = self.outer + other.outer
        return merged

    @property
    def mean(self) -> Float[np.ndarray, " d"]:
        """Mean of the features."""
        return self.total / self.n

    def covariance(self, ddof: int = 1) -> Float[np.ndarray, "d d"]:
        """Covariance, divided by ``n - ddof``.

        Raises:
            ValueError: If there are too few samples.
        """
        if self.n <= ddof:
            raise ValueError(f"got {self.n} sample(s), expected at least {ddof + 1}")
        return (self.outer - np.outer(self.mean, self.total)) / (self.n - ddof)


@dataclass(frozen=True)
class FrechetDistance:
    """A Frechet distance.

    Args:
        value: The distance.
        rank_deficient: Whether a set had no more samples than dimensions: not comparable with
            published numbers.
    """

    value: float
    rank_deficient: bool


def check_features(features: Features) -> Features:
    """Refuse features that are not a finite floating-point ``(n, d)`` array.

    Raises:
        TypeError: If they are not a floating-point NumPy array.
        ValueError: If the shape is wrong or a value is not finite.
    """
    if not isinstance(features, np.ndarray) or not np.issubdtype(features.dtype, np.floating):
        got = f"{type(features).__name__} of {getattr(features, 'dtype', 'unknown dtype')}"
        raise TypeError(f"got {got}, expected a floating-point NumPy array (n, d)")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"got features of shape {features.shape}, expected (n, d) with n and d at least 1"
        )
    if not np.isfinite(features).all():
        raise ValueError("got features with NaN or infinity, expected finite values")
    return features


def check_sets(
    first: Float[np.ndarray, "n1 d1"], second: Float[np.ndarray, "n2 d2"]
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets that can be compared, in float64."""
    x, y = check_features(first).astype(np.float64), check_features(second).astype(np.float64)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"got sets of {len(x)} and {len(y)} samples, expected at least 2 each")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"got features of length {x.shape[1]} and {y.shape[1]}, expected the same")
    return x, y


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def gaussian_distance(
    mean1: Float[np.ndarray, " d"],
    cov1: Float[np.ndarray, "d d"],
    mean2: Float[np.ndarray, " d"],
    cov2: Float[np.ndarray, "d d"],
) -> float:
    """Squared 2-Wasserstein distance between two Gaussians.

    The last trace is the sum of the singular values of ``S1^.5 S2^.5``: the square roots of the
    eigenvalues of ``S1^.5 S2 S1^.5`` without squaring first, so a rank-deficient covariance does
    not cost half of the digits.

    Source:
        Dowson and Landau 1982, "The Frechet distance between multivariate normal distributions",
        eq. 16; Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    """
    trace = np.linalg.svd(_root(cov1) @ _root(cov2), compute_uv=False).sum()
    gap = mean1 - mean2
    return float(max(0.0, gap @ gap + np.trace(cov1) + np.trace(cov2) - 2 * trace))


def frechet_distance(
    first: GaussianStatistics, second: GaussianStatistics, ddof: int = 1
) -> FrechetDistance:
    """Frechet distance between two sets of features.

    Args:
        first: Statistics of one set.
        second: Statistics of the other.
        ddof: 1 divides the covariance by n - 1; 0 by n, as most published FVD numbers do.

    Raises:
        ValueError: If the feature lengths differ or a set has fewer than two samples.
    """
    if len(first.total) != len(second.total):
        raise ValueError(
            f"got features of length {len(first.total)} and {len(second.total)}, expected the same"
        )
    if min(first.n, second.n) < 2:
        raise ValueError(f"got sets of {first.n} and {second.n} samples, expected at least 2 each")
    value = gaussian_distance(
        first.mean, first.covariance(ddof), second.mean, second.covariance(ddof)
    )
    return FrechetDistance(value, rank_deficient=min(first.n, second.n) <= len(first.total))


def _factor(features: np.ndarray, counts: np.ndarray, ddof: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of rows that occur ``counts`` times, and ``A`` of at most d rows with ``A^T A = S``."""
    n = counts.sum()
    mean = counts @ features / n
    factor = np.sqrt(counts / (n - ddof))[:, None] * (features - mean)
    if len(factor) > factor.shape[1]:
        return mean, np.linalg.qr(factor).R
    return mean, factor


def _distance(
    first: np.ndarray,
    second: np.ndarray,
    ddof: int = 1,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    """The same distance from the features themselves: no root of a covariance, so 1000 are quick.

    With ``S = A^T A`` the singular values of ``A1 A2^T`` are those of ``S1^.5 S2^.5``, and rows
    that were drawn more than once count as one.

    Args:
        first: Features of one set, float64.
        second: Features of the other, float64.
        ddof: As in :func:`frechet_distance`.
        rows: Which samples of each set to take, with repetition; all if None.
    """
    factors = []
    for k, features in enumerate((first, second)):
        drawn = np.arange(len(features)) if rows is None else rows[k]
        some, counts = np.unique(drawn, return_counts=True)
        factors.append(_factor(features[some], counts, ddof))
    (mean1, a1), (mean2, a2) = factors
    trace = np.linalg.svd(a1 @ a2.T, compute_uv=False).sum()
    gap = mean1 - mean2
    return float(max(0.0, gap @ gap + (a1 * a1).sum() + (a2 * a2).sum() - 2 * trace))


def frechet_distance_inf(
    first: Float[np.ndarray, "n1 d"],
    second: Float[np.ndarray, "n2 d"],
    num_sizes: int = 6,
    num_resamples: int = 5,
    seed: int = 0,
    ddof: int = 1,
) -> float:
    """The Frechet distance of infinitely many samples: the intercept of a line over 1/n.

    Args:
        first: Features of one set.
        second: Features of the other; as many samples are used as the smaller set has.
        num_sizes: Sample sizes, from a quarter of the samples to all.
        num_resamples: Random subsets per size.
        seed: Seed of the subsets.
        ddof: As in :func:`frechet_distance`.

    Raises:
        ValueError: If there are fewer than 8 samples, fewer than 6 sizes or fewer than 5 subsets.

    Source:
        Chong and Forsyth 2020, "Effectively Unbiased FID and Inception Score", arXiv:1911.07023,
        section 4.
    """
    first, second = check_sets(first, second)
    n_max = min(len(first), len(second))
    if n_max < 8:
        raise ValueError(f"got {n_max} samples, expected at least 8")
    if num_sizes < 6 or num_resamples < 5:
        raise ValueError(
            f"got num_sizes={num_sizes}, num_resamples={num_resamples}, expected at least 6 and 5"
        )
    inverse = np.linspace(
        4 / n_max, 1 / n_max, num_sizes
    )  # even steps of 1/n: no end of the line dominates
    sizes = np.unique(np.round(1 / inverse).astype(int))
    draws = np.random.Philox(key=seed)
    xs, ys = [], []
    for n in sizes:
        for _ in range(num_resamples):
            some = [
                np.argsort(draws.random_raw(len(x)), kind="stable")[:n] for x in (first, second)
            ]
            xs.append(1 / n)
            ys.append(_distance(first, second, ddof, (some[0], some[1])))
    return float(np.polyfit(xs, ys, 1)[1])


def frechet_interval(
    first: Float[np.ndarray, "n1 d"],
    second: Float[np.ndarray, "n2 d"],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    ddof: int = 1,
) -> tuple[float, float]:
    """Bootstrap 95 % interval of the Frechet distance.

    Both sets are resampled. Resampling itself adds a positive bias, so the spread is centred on the
    full-sample value.

    Args:
        first: Features of one set, one row per video.
        second: Features of the other.
        num_resamples: Bootstrap resamples.
        seed: Seed of the resampling.
        ddof: As in :func:`frechet_distance`.

    Raises:
        ValueError: If the feature lengths differ or a set has fewer than two samples.
    """
    first, second = check_sets(first, second)
    value = _distance(first, second, ddof)
    rows1 = resample_indices(len(first), num_resamples, 2 * seed)
    rows2 = resample_indices(len(second), num_resamples, 2 * seed + 1)
    values = np.array(
        [_distance(first, second, ddof, rows) for rows in zip(rows1, rows2, strict=True)]
    )
    low, high = value + np.percentile(values, [2.5, 97.5]) - values.mean()
    return float(max(0.0, low)), float(high)


def frechet_score(
    real: Float[np.ndarray, "_ d"],
    generated: Float[np.ndarray, "_ d"],
    protocol: Protocol,
    more_real: Float[np.ndarray, "_ d"] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    ddof: int = 1,
) -> Score:
    """The Frechet distance between features of clips, with interval and floor.

    Args:
        real: Features of the real clips.
        generated: Features of the generated clips.
        protocol: What the score is called.
        more_real: Features of as many other real clips; their distance to ``real`` is the floor.
        num_resamples: Bootstrap resamples for the interval.
        seed: Seed of the resampling.
        ddof: As in :func:`frechet_distance`.

    Raises:
        ValueError: If a set has fewer than 2 clips, or the second real set is not as large as the
            generated one.
    """
    if more_real is not None and len(more_real) != len(generated):
        raise ValueError(f"got {len(more_real)} clips for the floor, expected {len(generated)}")
    x, y = check_sets(real, generated)
    return Score(
        _distance(x, y, ddof),
        protocol.id,
        len(real),
        len(generated),
        frechet_interval(real, generated, num_resamples, seed, ddof),
        floor=None if more_real is None else _distance(*check_sets(real, more_real), ddof),
        num_features=x.shape[1],
    )


def frechet_influence(
    first: Float[np.ndarray, "n1 d"], second: Float[np.ndarray, "n2 d"], ddof: int = 1
) -> Float[np.ndarray, " n1"]:
    """How much each sample of the first set moves the distance: its derivative by their weights.

    With ``T = S1^-.5 (S1^.5 S2 S1^.5)^.5 S1^-.5``, which carries the first Gaussian over to the
    second, the derivative by ``S1`` is ``1 - T`` and that by ``m1`` is ``2 (m1 - m2)``.

    Args:
        first: Features of one set, more than they are long.
        second: Features of the other.
        ddof: As in :func:`frechet_distance`.

    Source:
        Hampel 1974, "The Influence Curve and Its Role in Robust Estimation", JASA 69(346), sec. 2,
        for the distance of Dowson and Landau 1982, eq. 16.
    """
    x, y = check_sets(first, second)
    one, other = GaussianStatistics.of(x), GaussianStatistics.of(y)
    values, vectors = np.linalg.eigh(one.covariance(ddof))
    values = values.clip(min=values[-1] * 1e-12)  # what hardly varies hardly counts, either way
    root, inverse = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    carry = inverse @ _root(root @ other.covariance(ddof) @ root) @ inverse
    away = x - one.mean
    spread = (away * away).sum(1) - ((away @ carry) * away).sum(1)
    return 2 * away @ (one.mean - other.mean) + spread - spread.mean()


def frechet_score_of_frames(
    real: Float[np.ndarray, "n t d"],
    generated: Float[np.ndarray, "n2 t d"],
    protocol: Protocol,
    more_real: Float[np.ndarray, "n2 t d"] | None = None,
    ddof: int = 1,
) -> Score:
    """The Frechet distance between features of frames, as FID is.

    The interval is that of a normal distribution with the variance of the videos' influence: 1,000
    distances between Gaussians of 2,048 dimensions would take hours. Frames of one video are not
    independent, so each video counts once.

    Args:
        real: Features of the frames of each real video.
        generated: Of each generated video.
        protocol: What the score is called.
        more_real: Of as many other real videos; their distance to ``real`` is the floor.
        ddof: As in :func:`frechet_distance`.

    Raises:
        ValueError: If a set has fewer than 2 frames, or the second real set is not as large as the
            generated one.
    """
    if more_real is not None and len(more_real) != len(generated):
        raise ValueError(f"got {len(more_real)} clips for the floor, expected {len(generated)}")
    frames = real.shape[1]
    x, y = check_sets(*(rows.reshape(-1, rows.shape[-1]) for rows in (real, generated)))
    score = Score(
        _distance(x, y, ddof),
        protocol.id,
        len(real),
        len(generated),
        num_features=x.shape[1],
        per_clip=frames,
    )
    if score.rank_deficient:
        return score
    variance = 0.0
    for a, b in ((x, y), (y, x)):
        of_videos = frechet_influence(a, b, ddof).reshape(-1, frames).mean(1)
        variance += of_videos.var(ddof=1) / len(of_videos)
    half = Z95 * float(np.sqrt(variance))
    floor = None
    if more_real is not None:
        floor = _distance(*check_sets(x, more_real.reshape(-1, x.shape[1])), ddof)
    interval = (max(0.0, score.value - half), score.value + half)
    return replace(score, interval=interval, floor=floor)
