"""The squared MMD is unbiased at any number of clips, and its interval covers the truth."""

import numpy as np
import pytest

from vdm.metrics.mmd import mmd_score, squared_mmd
from vdm.metrics.score import Protocol


def sample(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((n, d)) + shift
    return values.astype(np.float32)


@pytest.mark.parametrize("kernel", ["kid", "jedi"])
def test_the_squared_mmd_is_unbiased_at_any_n(kernel):
    same = [squared_mmd(sample(12, 6, 2 * k), sample(9, 6, 2 * k + 1), kernel) for k in range(300)]
    error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 3 * error
    assert squared_mmd(sample(60, 6, 0), sample(60, 6, 1, shift=1), kernel) > 10 * np.std(same) / 4


def test_the_squared_mmd_agrees_with_its_definition():
    x, y = sample(4, 3, 0), sample(5, 3, 1)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a.astype(np.float64) @ b.astype(np.float64)) / 3 + 1) ** 3

    xx = np.mean([k(x[i], x[j]) for i in range(4) for j in range(4) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert squared_mmd(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-9)


def test_a_score_has_an_interval_around_it_and_a_floor_about_nothing():
    x, y, z = sample(40, 5, 0), sample(30, 5, 1, shift=0.7), sample(30, 5, 2)
    protocol = Protocol("kvd", 16, 8, "64", "test-iid:start0", 30, estimator="kid")
    score = mmd_score(x, y, protocol, z, num_resamples=200)
    assert score.value == squared_mmd(x, y)
    assert score.floor == squared_mmd(x, z)
    assert score.interval[0] < score.value < score.interval[1]
    assert abs(score.floor) < score.value / 4
    assert score.protocol == "kvd/16f@8/64/native/test-iid:start0/n30/kid/r1"
    assert (score.n_real, score.n_gen) == (40, 30)
    assert mmd_score(x, y, protocol, num_resamples=2).floor is None


def test_intervals_cover_the_distance_of_the_distributions():
    protocol = Protocol("kvd", 16, 8, "64", "test-iid:start0", 30)
    truth = np.mean([squared_mmd(sample(200, 3, k), sample(200, 3, k + 50, 1)) for k in range(30)])
    inside = 0
    for k in range(40):
        x, y = sample(30, 3, 100 + k), sample(30, 3, 200 + k, 1)
        low, high = mmd_score(x, y, protocol, num_resamples=40).interval
        inside += low < truth < high
    assert inside >= 33  # 95 % of 40 are 38


def test_what_cannot_be_compared_is_refused():
    x = sample(10, 3, 0)
    with pytest.raises(ValueError, match="at least 2"):
        squared_mmd(x[:1], x)
    with pytest.raises((TypeError, ValueError)):
        squared_mmd(x, x, kernel="rbf")
