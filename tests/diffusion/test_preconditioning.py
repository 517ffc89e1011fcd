import math

import pytest
import torch
from all_schedules import SCHEDULES

from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.preconditioning import (
    DiscreteTimesteps,
    EDMPreconditioning,
    NoPreconditioning,
    SVDPreconditioning,
    WholeTimesteps,
)
from vdm.diffusion.schedules import EDM, LinearPath, VPLinear
from vdm.diffusion.shifted_schedules import Shifted
from vdm.diffusion.targets import X0, Eps, V

T = torch.tensor([0.01, 0.3, 0.9], dtype=torch.float64)


def test_edm_scales_are_those_of_table_1():
    schedule, scales = EDM(80.0), EDMPreconditioning(0.5)
    sigma = 80 * T
    total = sigma**2 + 0.25
    torch.testing.assert_close(scales.c_skip(schedule, T), 0.25 / total)
    torch.testing.assert_close(scales.c_out(schedule, T), sigma * 0.5 / total.sqrt())
    torch.testing.assert_close(scales.c_in(schedule, T), 1 / total.sqrt())
    torch.testing.assert_close(scales.c_noise(schedule, T), sigma.log() / 4)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_edm_gives_the_network_unit_variance_on_every_schedule(schedule):
    scales, std = EDMPreconditioning(0.5), 0.5
    alpha, sigma = schedule.alpha(T), schedule.sigma(T)
    c_in, c_skip, c_out = (f(schedule, T) for f in (scales.c_in, scales.c_skip, scales.c_out))
    torch.testing.assert_close(c_in**2 * (alpha**2 * std**2 + sigma**2), torch.ones_like(T))
    # (x0 - c_skip * xt) / c_out has unit variance
    residual = (1 - c_skip * alpha) ** 2 * std**2 + (c_skip * sigma) ** 2
    torch.testing.assert_close(residual / c_out**2, torch.ones_like(T))


def test_edm_with_unit_data_is_v_prediction_with_its_sign_changed():
    schedule, scales = VPLinear(), EDMPreconditioning(1.0)
    torch.testing.assert_close(scales.c_in(schedule, T), torch.ones_like(T))
    torch.testing.assert_close(scales.c_skip(schedule, T), schedule.alpha(T))
    torch.testing.assert_close(scales.c_out(schedule, T), schedule.sigma(T))


def test_svd_scales_are_the_published_ones():
    schedule, scales = EDM(700.0), SVDPreconditioning()
    sigma = 700 * T
    torch.testing.assert_close(scales.c_in(schedule, T), 1 / (sigma**2 + 1).sqrt())
    torch.testing.assert_close(scales.c_skip(schedule, T), 1 / (sigma**2 + 1))
    torch.testing.assert_close(scales.c_out(schedule, T), -sigma / (sigma**2 + 1).sqrt())
    one = torch.ones(1, dtype=torch.float64)
    assert scales.c_noise(schedule, one).item() == pytest.approx(1.6377701, abs=1e-7)


def test_svd_scales_are_v_prediction_where_variance_is_preserved():
    schedule, scales = VPLinear(), SVDPreconditioning()
    xt, raw = torch.randn(2, 3, 1, 1, 1, 1, dtype=torch.float64)
    expected = V().to_x0(schedule, xt, raw, T)
    c_skip, c_out = (f(schedule, T).reshape(xt.shape) for f in (scales.c_skip, scales.c_out))
    torch.testing.assert_close(c_skip * xt + c_out * raw, expected)


@pytest.mark.parametrize("scales", [EDMPreconditioning(), SVDPreconditioning()], ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scales_are_finite_at_both_ends(scales, schedule, dtype):
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    for scale in (scales.c_in, scales.c_skip, scales.c_out, scales.c_noise):
        assert scale(schedule, ends).isfinite().all()


def test_flow_networks_may_be_told_whole_numbers():
    told = WholeTimesteps().c_noise(LinearPath(), torch.tensor([0.999999, 0.99325, 0.0605]))
    assert told.tolist() == [999, 993, 60]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_of_tables_are_told_whole_timesteps_exactly(dtype):
    t = (torch.arange(1000) + 1).to(dtype) / 1000
    told = DiscreteTimesteps().c_noise(DDPMTable(), t)
    assert torch.equal(told, torch.arange(1000).to(dtype))


def test_times_between_entries_are_told_as_fractions():
    t = torch.tensor([0.5004, 0.0005])
    told = DiscreteTimesteps().c_noise(DDPMTable(), t)
    torch.testing.assert_close(told, torch.tensor([499.4, -0.5]), rtol=1e-5, atol=0)


def test_flow_networks_are_told_the_shifted_time():
    schedule, scales = Shifted(LinearPath(), 7.0), NoPreconditioning(1000.0)
    torch.testing.assert_close(scales.c_noise(schedule, T), 1000 * schedule.sigma(T))
    assert NoPreconditioning(1.0).c_noise(LinearPath(), T).tolist() == T.tolist()


def test_no_preconditioning_leaves_the_network_alone():
    scales = NoPreconditioning()
    for schedule in SCHEDULES:
        scale = [f(schedule, T).tolist() for f in (scales.c_in, scales.c_skip, scales.c_out)]
        assert scale == [[1] * 3, [0] * 3, [1] * 3]


@pytest.mark.parametrize("scales", [EDMPreconditioning(), SVDPreconditioning()], ids=str)
def test_output_scales_are_for_predictions_of_the_sample(scales):
    scales.check_target(X0())
    with pytest.raises(ValueError, match="got target Eps, expected X0"):
        scales.check_target(Eps())


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoPreconditioning(0.0),
        lambda: WholeTimesteps(0.0),
        lambda: DiscreteTimesteps(1),
        lambda: EDMPreconditioning(-math.inf),
    ],
)
def test_impossible_scales_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()
