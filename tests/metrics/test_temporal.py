import numpy as np
import pytest
from textured_clips import panned

from vdm.metrics.optical_flow import FlowEstimator
from vdm.metrics.temporal import (
    Jitter,
    flicker,
    jitter,
    luma_jitter,
    mean_jitter,
    temporal_flickering,
)


@pytest.fixture(scope="module")
def estimator() -> FlowEstimator:
    return FlowEstimator("fast")


def with_gain(still: np.ndarray, sigma: float) -> np.ndarray:
    gains = 1 + sigma * np.random.default_rng(0).standard_normal(still.shape[1])
    return (still * gains.reshape(1, -1, 1, 1, 1)).round().clip(0, 255).astype(np.uint8)


def with_noise(still: np.ndarray, sigma: float) -> np.ndarray:
    noise = sigma * np.random.default_rng(0).standard_normal(still.shape)
    return (still + noise).round().clip(0, 255).astype(np.uint8)


def test_nothing_jitters_on_a_still_clip(still, estimator):
    assert jitter(still, estimator) == [Jitter(0, 0, 0)]
    assert flicker(still) == [0]
    assert temporal_flickering(still) == [1]


def test_residual_rises_with_noise(still, estimator):
    values = [jitter(with_noise(still, s), estimator)[0].residual for s in (0, 2, 5, 10)]
    assert values == sorted(values)
    assert values[2] == pytest.approx(2.2, rel=0.35)


def test_luma_reads_the_gain_and_rises_with_it(still, estimator):
    planted = (0.01, 0.02, 0.04, 0.08)
    clips = np.concatenate([with_gain(still, s) for s in planted])
    values = [value.luma for value in jitter(clips, estimator)]
    assert values == sorted(values)
    ratios = [value / values[0] for value in values]
    assert ratios == pytest.approx([1, 2, 4, 8], rel=0.15)


def test_luma_reads_sigma_of_independent_gain_on_long_clips(still):
    long = np.repeat(still[:, :1, :8, :8], 600, 1)
    assert luma_jitter(with_gain(long, 0.04)[0]) == pytest.approx(4, rel=0.1)


def test_jerk_rises_with_shake_which_warping_hides(estimator):
    rng = np.random.default_rng(0)
    shakes = rng.integers(-1, 2, (9, 2))
    clips = np.stack([panned(5, amount * shakes) for amount in (0, 1, 2)])
    values = jitter(clips, estimator)
    jerks = [value.jerk for value in values]
    assert jerks[0] == 0
    assert jerks == sorted(jerks)
    assert jerks[1] > 1
    assert values[1].residual < 0.1


def test_a_steady_pan_has_no_jerk(estimator):
    pan = panned(6, np.arange(9)[:, None] * [1, 0])
    assert jitter(pan[None], estimator)[0].jerk < 0.3


def test_passing_needs_every_number_under_the_limit_and_near_the_reference():
    reference = Jitter(1.0, 0.5, 0.5)
    assert Jitter(1.9, 1.0, 0.9).passes(reference)
    assert not Jitter(2.1, 1.0, 0.9).passes(reference)
    assert not Jitter(4.1, 0.1, 0.1).passes(Jitter(3.0, 3.0, 3.0))
    assert mean_jitter([Jitter(1, 2, 3), Jitter(3, 4, 5)]) == Jitter(2, 3, 4)


def test_flicker_is_the_mean_difference_of_neighbours(still):
    clip = still.copy()
    clip[:, 1::2] += 1
    assert flicker(clip) == pytest.approx([1 / 255])


def test_short_or_wrong_clips_are_refused(still, estimator):
    with pytest.raises(ValueError, match="at least 3"):
        jitter(still[:, :2], estimator)
    with pytest.raises(ValueError, match="at least 2"):
        flicker(still[:, :1])
    with pytest.raises((TypeError, ValueError)):
        jitter(still / 255.0, estimator)
    with pytest.raises(ValueError, match="no clips"):
        mean_jitter([])
