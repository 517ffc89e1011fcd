"""Any schedule, any target, any sampler: the full product reaches the distribution of the data."""

import pytest
import torch
from all_schedules import SCHEDULES
from gaussian_data import GaussianData, as_network, sample_mean_and_std

from vdm.diffusion import samplers, time_grids
from vdm.diffusion.denoiser import Denoiser
from vdm.diffusion.schedules import LinearPath
from vdm.diffusion.targets import X0, Eps, V, Velocity
from vdm.types import Conditioning
from vdm.utils.rng import SampleNoise

SAMPLERS = {
    "euler": samplers.euler,
    "heun": samplers.heun,
    "ddim": samplers.ddim,
    "ddim eta 0.5": lambda *args, **options: samplers.ddim(*args, eta=0.5, **options),
    "ancestral": samplers.ancestral,
    "dpmpp_2m": samplers.dpmpp_2m,
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde,
    "unipc bh1": lambda *args, **options: samplers.unipc(*args, kind="bh1", **options),
    "unipc bh2": samplers.unipc,
    "lcm": samplers.lcm,
}
TARGETS = [X0(), Eps(), V(), Velocity()]
each_target = pytest.mark.parametrize("target", TARGETS, ids=str)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


def exact(data, schedule):
    """What each sampler needs to be right."""
    denoise, jump = data.denoiser(schedule), data.consistency(schedule)
    return {name: jump if name == "lcm" else denoise for name in SAMPLERS}


def through_network(denoise, schedule, target):
    """The same, from a network that predicts the target."""
    return Denoiser(as_network(denoise, schedule, target), schedule, target).bind(Conditioning())


@each_schedule
def test_every_sampler_reaches_the_distribution_of_the_data(schedule):
    data = GaussianData(mean=0.3, std=0.5)
    largest = float(schedule.edm_sigma(torch.ones((), dtype=torch.float64)))
    times = time_grids.karras(40, schedule, 0.005, min(80.0, largest))
    denoise = exact(data, schedule)
    for name, sampler in SAMPLERS.items():
        mean, std = sample_mean_and_std(sampler, denoise[name], schedule, times)
        # noise of finite scale does not know the mean of the data
        assert mean == pytest.approx(data.mean, abs=0.01 + data.mean / largest), name
        assert std == pytest.approx(data.std, rel=0.14), name


@each_schedule
@each_target
def test_every_target_serves_every_sampler_from_pure_noise_to_clean_data(schedule, target):
    data = GaussianData(mean=0.0, std=0.5)
    x = schedule.prior_std() * torch.randn(2, 5, dtype=torch.float64)
    denoisers = exact(data, schedule)
    for name, sampler in SAMPLERS.items():
        # where there is nothing but noise, a prediction of it cannot say where the sample lands
        times = time_grids.uniform(3, 0.95 if name == "lcm" and target == Eps() else 1.0)
        denoise = denoisers[name]
        expected = sampler(denoise, schedule, x, times, noise=SampleNoise([0, 1]))
        denoise = through_network(denoise, schedule, target)
        got = sampler(denoise, schedule, x, times, noise=SampleNoise([0, 1]))
        assert got.isfinite().all(), name
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7, msg=name)


@each_target
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_samples_nearly_as_well(target, dtype):
    data, schedule, x = GaussianData(), LinearPath(), torch.randn(2, 3, 5, 4, 6)
    times = time_grids.uniform(20, t_max=0.95)  # noise cannot be read where there is nothing else
    goal = data.flow(schedule, x.double(), 0.95, 0.0)
    for sampler in (samplers.euler, samplers.heun, samplers.dpmpp_2m, samplers.unipc):
        denoise = through_network(data.denoiser(schedule), schedule, target)
        got = sampler(denoise, schedule, x.to(dtype), times)
        assert got.dtype == dtype
        assert float((got.double() - goal).abs().max()) < 0.25, sampler.__name__
