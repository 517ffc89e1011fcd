"""Tests and intervals over seeds and clips."""

import numpy as np
import pytest

from vdm.comparison.statistics import compare, holm, interval, sign_flip_p, spread


def outcomes(rate, seeds=3, clips=80, seed=0):
    generator = np.random.default_rng(seed)
    return (generator.random((seeds, clips)) < rate).astype(float)


def test_spread_is_mean_and_sample_deviation():
    assert spread([1.0, 2.0, 4.0]) == (
        pytest.approx(7 / 3),
        pytest.approx(np.std([1, 2, 4], ddof=1)),
    )
    assert spread([5.0]) == (5.0, 0.0)
    with pytest.raises(ValueError, match="got no value"):
        spread([])


def test_p_of_few_clips_is_the_share_of_sign_patterns():
    # All eight signs of three equal differences: two of them are as large.
    assert sign_flip_p(np.ones(3)) == pytest.approx(2 / 8, abs=0.02)
    assert sign_flip_p(np.array([1.0, -1.0])) == pytest.approx(1.0)
    assert sign_flip_p(np.zeros(7)) == 1.0


def test_p_is_uniform_where_nothing_differs_and_small_where_much_does():
    ps = [
        sign_flip_p((outcomes(0.5, seed=k) - outcomes(0.5, seed=k + 500)).mean(0), num_flips=500)
        for k in range(100)
    ]
    assert np.mean(np.array(ps) < 0.05) < 0.13
    assert np.mean(ps) == pytest.approx(0.5, abs=0.12)
    assert sign_flip_p((outcomes(0.8) - outcomes(0.4, seed=1)).mean(0)) < 0.001


def test_holm_multiplies_the_smallest_by_all_and_keeps_order():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_interval_holds_the_mean_and_narrows_with_clips():
    few, many = outcomes(0.3, clips=40), outcomes(0.3, clips=1000)
    for values in (few, many):
        low, high = interval(values)
        assert low < values.mean() < high
    assert np.subtract(*interval(many)) > np.subtract(*interval(few))


def test_arms_are_compared_on_the_same_clips_only():
    base = outcomes(0.4)
    better = np.maximum(base, outcomes(0.5, seed=3))
    found = compare(base, {"better": better, "same": base})
    assert found["better"].value == pytest.approx((better - base).mean())
    assert found["better"].p < 0.01
    assert found["same"].value == 0
    assert found["same"].p == 1
    with pytest.raises(ValueError, match=r"'other'.*same seeds and clips"):
        compare(base, {"other": base[:, :70]})
