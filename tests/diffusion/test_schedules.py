import math

import pytest
import torch
from all_schedules import COGVIDEOX, SCHEDULES

from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.schedules import EDM, Cosine, LinearPath, ScaledLinear, VPLinear, check_times
from vdm.diffusion.shifted_schedules import ZeroTerminalSNR
from vdm.utils.config import build, describe

VARIANCE_PRESERVING = [
    schedule for schedule in SCHEDULES if abs(schedule.prior_std(0.5) - 1) < 1e-9
]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


def times(n=777, dtype=torch.float64):
    return torch.linspace(0.0003, 1, n, dtype=dtype)


@each_schedule
def test_derivatives_match_autograd(schedule):
    t = times().requires_grad_()
    for value, dot in ((schedule.alpha, schedule.alpha_dot), (schedule.sigma, schedule.sigma_dot)):
        (expected,) = torch.autograd.grad((value(t) + 0 * t).sum(), t)
        torch.testing.assert_close(dot(t), expected, rtol=1e-9, atol=1e-11)


@each_schedule
def test_log_snr_decreases(schedule):
    log_snr = schedule.log_snr(torch.linspace(0, 1, 3001, dtype=torch.float64))
    assert bool((log_snr[1:] < log_snr[:-1]).all())
    assert log_snr[0] == math.inf


@each_schedule
def test_log_snr_has_an_exact_inverse(schedule):
    t = torch.cat([torch.zeros(1, dtype=torch.float64), times()])
    recovered = schedule.t_from_log_snr(schedule.log_snr(t))
    torch.testing.assert_close(recovered, t, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        schedule.t_from_edm_sigma(schedule.edm_sigma(t)), t, rtol=1e-11, atol=1e-12
    )


@each_schedule
def test_log_snr_and_edm_sigma_are_what_alpha_and_sigma_say(schedule):
    t = times()
    ratio = schedule.alpha(t) / schedule.sigma(t)
    torch.testing.assert_close(schedule.log_snr(t), 2 * ratio.log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(schedule.edm_sigma(t), 1 / ratio)


@each_schedule
def test_data_is_clean_at_zero(schedule):
    zero = torch.zeros(3)
    assert schedule.alpha(zero).tolist() == [1, 1, 1]
    assert schedule.sigma(zero).tolist() == [0, 0, 0]


@each_schedule
def test_float32_times_are_computed_to_float32_accuracy(schedule):
    exact, rounded = times(), times().float()
    for name in ("alpha", "sigma"):
        got = getattr(schedule, name)(rounded)
        assert got.dtype == torch.float32
        expected = getattr(schedule, name)(rounded.double())
        torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=2e-7)
    assert schedule.log_snr(exact).dtype == torch.float64


@pytest.mark.parametrize("schedule", VARIANCE_PRESERVING, ids=str)
def test_variance_is_preserved(schedule):
    t = times()
    total = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
    torch.testing.assert_close(total, torch.ones_like(t), rtol=1e-12, atol=0)


def test_variance_preserving_schedules_are_found():
    assert len(VARIANCE_PRESERVING) == 11


@pytest.mark.parametrize(
    "schedule", [LinearPath(), Cosine(), ZeroTerminalSNR(VPLinear()), COGVIDEOX], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_end_is_pure_noise_exactly(schedule, dtype):
    one = torch.ones(1, dtype=dtype)
    assert schedule.alpha(one).item() == 0
    assert schedule.sigma(one).item() == pytest.approx(1, abs=1e-7)
    assert schedule.log_snr(one).item() == -math.inf
    assert schedule.t_from_log_snr(-one / 0).item() == 1


@each_schedule
def test_noise_is_added_per_sample(schedule):
    x0, eps = torch.randn(2, 2, 3, 5, 4, 6)
    t = torch.tensor([0.2, 0.9])
    xt = schedule.add_noise(x0, eps, t)
    for k in range(2):
        alpha, sigma = schedule.alpha(t[k]), schedule.sigma(t[k])
        torch.testing.assert_close(xt[k], alpha * x0[k] + sigma * eps[k])


def test_noise_is_added_in_float32_to_half_precision_latents():
    x0, eps = torch.randn(2, 2, 3, 5, 4, 6).bfloat16()
    t = torch.tensor([0.2, 0.9])
    xt = LinearPath().add_noise(x0, eps, t)
    assert xt.dtype == torch.bfloat16
    exact = LinearPath().add_noise(x0.float(), eps.float(), t)
    assert torch.equal(xt, exact.bfloat16())


def test_the_prior_has_the_variance_of_noisy_unit_data():
    assert LinearPath().prior_std() == 1
    assert VPLinear().prior_std(0.7) == pytest.approx(1)
    assert EDM(700.0).prior_std() == pytest.approx(math.sqrt(700**2 + 1))
    assert EDM(80.0).prior_std(0.5) == pytest.approx(math.sqrt(40**2 + 1))


def test_scaled_linear_is_the_limit_of_its_table():
    t = torch.linspace(0.1, 1, 91, dtype=torch.float64)
    table = DDPMTable("scaled_linear", 0.85e-5, 12e-5, num_steps=100_000)
    torch.testing.assert_close(table.alpha(t), ScaledLinear().alpha(t), rtol=1e-3, atol=1e-5)


def test_vp_linear_is_the_limit_of_its_table():
    t = torch.linspace(0.1, 1, 91, dtype=torch.float64)
    table = DDPMTable("linear", 1e-6, 20e-5, num_steps=100_000)
    torch.testing.assert_close(table.alpha(t), VPLinear().alpha(t), rtol=2e-3, atol=1e-5)


@each_schedule
def test_schedules_are_written_down_and_built_again(schedule):
    assert build(describe(schedule)) == schedule


def test_times_that_are_not_one_per_sample_are_refused():
    with pytest.raises(ValueError, match=r"got times of shape \(1,\), expected \(2,\)"):
        check_times(torch.zeros(1), torch.zeros(2, 3, 5, 4, 6))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EDM(0.0), "sigma_max=0.0"),
        (lambda: VPLinear(3.0, 2.0), "beta_min=3.0"),
        (lambda: ScaledLinear(0.0, 2.0), "beta_min=0.0"),
    ],
)
def test_impossible_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
