import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from vdm.metrics.frechet import (
    GaussianStatistics,
    frechet_distance,
    frechet_distance_inf,
    frechet_influence,
    frechet_interval,
    frechet_score,
    frechet_score_of_frames,
    gaussian_distance,
)
from vdm.metrics.score import Protocol, resample_indices


def sample(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((n, d)) * scale + shift
    return values.astype(np.float32)


def distance(x: np.ndarray, y: np.ndarray, ddof: int = 1) -> float:
    return frechet_distance(GaussianStatistics.of(x), GaussianStatistics.of(y), ddof).value


def random_covariance(d: int, seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).standard_normal((d, d + 3))
    return root @ root.T / d


def test_commuting_gaussians_have_the_known_distance():
    d = 7
    variances1, variances2 = np.arange(1.0, d + 1), np.arange(d, 0.0, -1)
    expected = 4 * d + ((np.sqrt(variances1) - np.sqrt(variances2)) ** 2).sum()
    value = gaussian_distance(
        np.zeros(d), np.diag(variances1), np.full(d, 2.0), np.diag(variances2)
    )
    assert value == pytest.approx(expected, rel=1e-12)


def test_general_gaussians_agree_with_the_matrix_square_root():
    d = 9
    cov1, cov2 = random_covariance(d, 0), random_covariance(d, 1)
    root = scipy.linalg.sqrtm(cov1 @ cov2).real
    expected = np.trace(cov1 + cov2 - 2 * root)
    zero = np.zeros(d)
    assert gaussian_distance(zero, cov1, zero, cov2) == pytest.approx(expected, rel=1e-9)


def test_the_core_agrees_with_torchmetrics_on_shared_features():
    class Features(torch.nn.Module):
        num_features = 11

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :11].double()

    x, y = sample(40, 11, 0), sample(50, 11, 1, shift=0.3, scale=1.2)
    reference = FrechetInceptionDistance(feature=Features(), normalize=True)
    reference.set_dtype(torch.float64)
    for values, real in ((x, True), (y, False)):
        images = torch.zeros(len(values), 3, 2, 2)
        images.view(len(values), -1)[:, :11] = torch.from_numpy(values)
        reference.update(images, real=real)
    assert distance(x, y) == pytest.approx(float(reference.compute()), rel=1e-6)


def test_the_divisor_is_n_minus_1_or_n():
    x, y = sample(21, 3, 0), sample(21, 3, 1, scale=2)
    for ddof in (0, 1):
        cov1, cov2 = np.cov(x.T, ddof=ddof), np.cov(y.T, ddof=ddof)
        expected = gaussian_distance(x.mean(0), cov1, y.mean(0), cov2)
        assert distance(x, y, ddof) == pytest.approx(expected, rel=1e-5)
    assert distance(x, y, 0) != distance(x, y, 1)


@pytest.mark.parametrize("n", [20, 300])
def test_a_set_is_at_distance_zero_from_itself_even_if_rank_deficient(n):
    x = sample(n, 64, 0, shift=3)
    assert distance(x, x) < 1e-8


def test_order_does_not_matter():
    x, y = sample(60, 5, 0), sample(70, 5, 1, shift=1)
    order = np.random.default_rng(2).permutation(60)
    assert distance(x[order], y) == pytest.approx(distance(x, y), rel=1e-9)
    assert distance(y, x) == pytest.approx(distance(x, y), rel=1e-9)


def test_merged_parts_equal_the_whole():
    x = sample(53, 6, 0, shift=2)
    whole = GaussianStatistics.of(x)
    merged = GaussianStatistics.of(x[:20]).merge(GaussianStatistics(6).update(x[20:]))
    assert merged.n == 53
    assert np.allclose(merged.mean, whole.mean, rtol=1e-12)
    assert np.allclose(merged.covariance(), whole.covariance(), rtol=1e-10)
    assert np.allclose(whole.covariance(), np.cov(x.T.astype(np.float64)), rtol=1e-9)


def test_rank_deficiency_is_carried():
    y = GaussianStatistics.of(sample(100, 16, 1))
    assert frechet_distance(GaussianStatistics.of(sample(16, 16, 0)), y).rank_deficient
    assert not frechet_distance(GaussianStatistics.of(sample(17, 16, 0)), y).rank_deficient


def test_the_bias_falls_with_n_and_the_fit_removes_it():
    d = 24
    small = distance(sample(256, d, 0), sample(256, d, 1))
    large = distance(sample(2048, d, 2), sample(2048, d, 3))
    assert small == pytest.approx(8 * large, rel=0.35)
    assert large > 0.1
    corrected = frechet_distance_inf(sample(2048, d, 2), sample(2048, d, 3))
    assert abs(corrected) < large / 4


def test_the_fit_keeps_a_true_distance():
    d = 8
    value = frechet_distance_inf(sample(400, d, 0), sample(400, d, 1, shift=1.0))
    assert value == pytest.approx(d, rel=0.1)


def test_the_interval_is_centred_and_narrows():
    wide = frechet_interval(sample(40, 4, 0), sample(40, 4, 1, shift=1), num_resamples=200)
    x, y = sample(600, 4, 0), sample(600, 4, 1, shift=1)
    narrow = frechet_interval(x, y, num_resamples=200)
    assert narrow[0] < distance(x, y) < narrow[1]
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 2


@pytest.mark.parametrize("n", [10, 40])  # fewer samples than dimensions, and more
def test_the_interval_is_that_of_the_distance_between_resampled_sets(n):
    x, y = sample(n, 24, 0), sample(n + 3, 24, 1, shift=0.2)
    rows = zip(resample_indices(n, 20, 0), resample_indices(n + 3, 20, 1), strict=True)
    values = np.array([distance(x[a], y[b]) for a, b in rows])
    low, high = distance(x, y) + np.percentile(values, [2.5, 97.5]) - values.mean()
    assert frechet_interval(x, y, 20) == pytest.approx((low, high), rel=1e-7)


def test_the_score_carries_interval_floor_and_rank():
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal((40, 6)).astype(np.float32) for _ in range(3))
    protocol = Protocol("fmd/flow", 16, 8, "64", "test-iid:start0", 40, estimator="dis-medium")
    score = frechet_score(x, y + 1, protocol, z, num_resamples=50)
    assert score.protocol == "fmd/flow/16f@8/64/native/test-iid:start0/n40/dis-medium/r1"
    assert score.interval[0] < score.value < score.interval[1]
    assert score.floor < score.value / 4
    assert score.value == pytest.approx(distance(x, y + 1), rel=1e-9)
    assert score.floor == pytest.approx(distance(x, z), rel=1e-9)
    assert not score.rank_deficient
    assert frechet_score(x[:6], y, protocol, num_resamples=2).rank_deficient
    with pytest.raises(ValueError, match="expected 40"):
        frechet_score(x, y, protocol, z[:20], num_resamples=2)


def test_bad_features_are_refused():
    x = sample(10, 3, 0)
    with pytest.raises((TypeError, ValueError)):
        GaussianStatistics.of(x.astype(int))
    with pytest.raises((TypeError, ValueError)):
        GaussianStatistics.of(x[0])
    with pytest.raises(ValueError, match="NaN"):
        GaussianStatistics.of(np.where(x > 1, np.nan, x))
    with pytest.raises(ValueError, match="length 3, expected 4"):
        GaussianStatistics(4).update(x)
    with pytest.raises(ValueError, match="length 3, expected 4"):
        GaussianStatistics(4).merge(GaussianStatistics(3))
    with pytest.raises(ValueError, match="dim=0"):
        GaussianStatistics(0)
    one, ten = GaussianStatistics.of(x[:1]), GaussianStatistics.of(x)
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(one, ten)
    with pytest.raises(ValueError, match="expected the same"):
        frechet_distance(ten, GaussianStatistics.of(sample(10, 4, 0)))
    with pytest.raises(ValueError, match="at least 2"):
        one.covariance()
    with pytest.raises(ValueError, match="sets of 1 and 10 samples"):
        frechet_interval(x[:1], x, 2)
    with pytest.raises(ValueError, match="at least 8"):
        frechet_distance_inf(x[:7], x)
    with pytest.raises(ValueError, match="at least 6 and 5"):
        frechet_distance_inf(x, x, num_sizes=5)


def test_influence_is_the_derivative_by_the_weight_of_a_sample():
    x, y = sample(60, 4, 0), sample(50, 4, 1, shift=0.4, scale=1.3)
    found = frechet_influence(x, y, ddof=0)
    more = 400  # copies of all others for each sample: a weight of 1 / 401 more on it
    for k in (0, 17):
        longer = np.concatenate([x] * more + [x[k : k + 1]] * 60)
        change = distance(longer, y, 0) - distance(x, y, 0)
        assert found[k] / (more + 1) == pytest.approx(change, rel=0.05, abs=1e-4)
    assert found.mean() == pytest.approx(0, abs=1e-9)


def test_frames_of_one_video_count_once_in_the_interval():
    protocol = Protocol("fid", 5, 8, "64", "test-iid:start0", 80)
    rng = np.random.default_rng(0)
    videos = rng.standard_normal((160, 1, 6)).astype(np.float32)
    x, y = videos[:80].repeat(5, 1), videos[80:].repeat(5, 1) + 0.5
    score = frechet_score_of_frames(x, y, protocol, y - 0.5)
    alone = frechet_score_of_frames(x[:, :1], y[:, :1], protocol)
    assert score.value == pytest.approx(alone.value, rel=0.05)
    width, expected = (s.interval[1] - s.interval[0] for s in (score, alone))
    assert width == pytest.approx(expected, rel=0.05)
    low, high = frechet_interval(x[:, 0], y[:, 0], num_resamples=300)
    assert width == pytest.approx(high - low, rel=0.2)
    assert 0 < score.floor < score.value
    few = frechet_score_of_frames(x[:1], y[:1], protocol)
    assert few.rank_deficient
    assert not frechet_score_of_frames(x[:2], y[:2], protocol).rank_deficient
