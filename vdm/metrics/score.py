"""What a score is: a number with its protocol, its sample sizes, its interval and its floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

NUM_RESAMPLES = 1000
Z95 = 1.959963984540054  # 97.5 % point of the standard normal


@dataclass(frozen=True)
class Protocol:
    """Everything that changes a score, in one identifier.

    Args:
        metric: Name of the metric, with its extractor where it has one: ``fvd/i3d-k400@af5c50f0``.
        frames: Frames per clip.
        fps: Frames per second; ``None`` where the metric does not depend on it.
        resolution: Frame size, ``64`` or ``64x96`` (height x width).
        data: Real split and clip rule: ``test-iid:start0``.
        n: Clips scored.
        resize: How frames reached that size; ``native`` if they were never resized.
        estimator: Settings of the estimator, where there is a choice.
        revision: Rises whenever the code changes the number.
    """

    metric: str
    frames: int
    fps: float | None
    resolution: str
    data: str
    n: int
    resize: str = "native"
    estimator: str = ""
    revision: int = 1

    @property
    def id(self) -> str:
        """The identifier, e.g. ``fmd/flow/16f@8/64/native/test-iid:start0/n512/dis-medium/r1``."""
        frames = f"{self.frames}f" + ("" if self.fps is None else f"@{self.fps:g}")
        parts = [
            self.metric,
            frames,
            self.resolution,
            self.resize,
            self.data,
            f"n{self.n}",
            self.estimator,
        ]
        return "/".join([*(part for part in parts if part), f"r{self.revision}"])


@dataclass(frozen=True)
class Score:
    """A measured number.

    Args:
        value: The number.
        protocol: Protocol id.
        n_real: Real clips behind it.
        n_gen: Generated clips behind it.
        interval: 95 % interval, low and high.
        floor: The same metric between two disjoint real sets of the same size, where that is
            defined.
        ceiling: The same metric on real clips, for scores where more is better.
        num_features: Length of the features whose covariances the number is made of, if it is.
        per_clip: Features that each clip gives.

    Raises:
        ValueError: If the protocol is empty, a count is negative or the interval is reversed.
    """

    value: float
    protocol: str
    n_real: int
    n_gen: int
    interval: tuple[float, float] | None = None
    floor: float | None = None
    ceiling: float | None = None
    num_features: int | None = None
    per_clip: int = 1

    def __post_init__(self) -> None:
        if not self.protocol:
            raise ValueError(
                "got an empty protocol id, expected one such as 'psnr/16f/64/native/val/n512/r1'"
            )
        if min(self.n_real, self.n_gen) < 0:
            raise ValueError(
                f"got n_real={self.n_real}, n_gen={self.n_gen}, expected no negative count"
            )
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError(f"got interval {self.interval}, expected low <= high")

    @property
    def rank_deficient(self) -> bool:
        """Whether a covariance was made of no more clips than it has dimensions.

        Such a number never stands beside a published one.
        """
        samples = self.per_clip * min(self.n_real, self.n_gen)
        return self.num_features is not None and samples <= self.num_features

    @property
    def not_enough(self) -> str:
        """Why the number says nothing, if it does not: empty otherwise.

        A distance does not where it is no larger than that of real clips from real clips.
        """
        if self.floor is not None and self.value <= self.floor:
            return (
                f"at or below the floor {self.floor:.3g} between real clips: {self.n_gen} clips "
                "do not tell the two apart"
            )
        return ""

    def _comparable(self, other: Score) -> None:
        if self.protocol != other.protocol:
            raise ValueError(
                f"scores of different protocols cannot be compared: {self.protocol!r} and "
                f"{other.protocol!r}"
            )
        for score in (self, other):
            if score.not_enough:
                raise ValueError(f"{score.protocol}: not enough: {score.not_enough}")

    def __sub__(self, other: Score) -> float:
        self._comparable(other)
        return self.value - other.value

    def __lt__(self, other: Score) -> bool:
        return self - other < 0

    def __gt__(self, other: Score) -> bool:
        return self - other > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; fields that do not apply are left out.

        Where it is not enough, the reason stands instead of every number.
        """
        data = {key: value for key, value in asdict(self).items() if value is not None}
        if self.per_clip == 1:
            del data["per_clip"]
        if self.rank_deficient:
            data["rank_deficient"] = True
        if self.not_enough:
            data = {key: data[key] for key in data if key not in ("value", "interval", "floor")}
            return {"not_enough": self.not_enough, **data}
        return data

    def __str__(self) -> str:
        if self.not_enough:
            return f"not enough: {self.not_enough} ({self.protocol})"
        interval = f" [{self.interval[0]:.4g}, {self.interval[1]:.4g}]" if self.interval else ""
        return f"{self.value:.4g}{interval} ({self.protocol})"


def wilson_interval(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval for a proportion, also near 0 and 1; (0, 1) for no trial at all.

    Raises:
        ValueError: If there are more successes than trials or a negative count.

    Source:
        Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", JASA
        22(158).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"got {successes} successes of {n}, expected 0 <= successes <= n")
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == n else centre + half


def difference_interval(successes1: int, n1: int, successes2: int, n2: int) -> tuple[float, float]:
    """Interval for the difference of two independent proportions, the first minus the second.

    Source:
        Newcombe 1998, "Interval estimation for the difference between independent proportions",
        Statistics in Medicine 17(8), method 10.
    """
    low1, high1 = wilson_interval(successes1, n1)
    low2, high2 = wilson_interval(successes2, n2)
    p1, p2 = successes1 / max(n1, 1), successes2 / max(n2, 1)
    down = math.hypot(p1 - low1, high2 - p2)
    up = math.hypot(high1 - p1, p2 - low2)
    return p1 - p2 - down, p1 - p2 + up


def resample_indices(
    n: int, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Int[np.ndarray, "r n"]:
    """Which videos each bootstrap resample holds, from raw Philox words so that they never change.

    Raises:
        ValueError: If there is no video or no resample.
    """
    if n < 1 or num_resamples < 1:
        raise ValueError(f"got n={n}, num_resamples={num_resamples}, expected at least 1 each")
    words = np.random.Philox(key=seed).random_raw(num_resamples * n).reshape(num_resamples, n)
    return (words % np.uint64(n)).astype(np.int64)


def bootstrap_interval(
    values: Sequence[float] | Float[np.ndarray, " n"],
    statistic: Callable[..., np.ndarray] = np.mean,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The 2.5 and 97.5 % points of a statistic over resampled videos.

    Args:
        values: One value per *video*; average over frames first.
        statistic: Called as ``statistic(resampled, axis=1)``.
        num_resamples: Bootstrap resamples.
        seed: Seed of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: If there is no value.
    """
    values = np.asarray(values, np.float64)
    resampled = statistic(values[resample_indices(len(values), num_resamples, seed)], axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def mean_score(
    values: Sequence[float], protocol: str, n_real: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Score:
    """The mean of one value per video, with its bootstrap interval.

    Args:
        values: One value per video.
        protocol: Protocol id.
        n_real: Real clips that the values were measured against.
        num_resamples: Bootstrap resamples for the interval.

    Raises:
        ValueError: If there is no value.
    """
    interval = bootstrap_interval(values, num_resamples=num_resamples)
    return Score(float(np.mean(values)), protocol, n_real, len(values), interval)


def proportion_score(successes: int, n: int, protocol: str, ceiling: float | None = None) -> Score:
    """A share of videos, in percent, with its Wilson interval.

    Raises:
        ValueError: If there is no video.
    """
    if n < 1:
        raise ValueError(f"got n={n}, expected at least 1")
    low, high = wilson_interval(successes, n)
    return Score(100 * successes / n, protocol, 0, n, (100 * low, 100 * high), ceiling=ceiling)
