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
# How far mean and standard deviation (relative) may be off after 40 steps on any schedule: what was
# measured and a tenth more. The first follow the flow, whose end depends a little on the start.
FLOW = {
    "euler": (6e-4, 0.075),
    "ddim": (6e-4, 0.075),
    "heun": (3e-5, 0.0099),
    "dpmpp_2m": (6e-5, 0.0105),
    "unipc bh1": (3e-5, 0.0066),
    "unipc bh2": (2e-5, 0.0037),
}
DATA = {
    "ddim eta 0.5": (5.2e-3, 0.09),
    "ancestral": (4e-4, 0.145),
    "dpmpp_2m_sde": (4e-4, 0.028),
    "lcm": (1e-12, 1e-12),
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
    denoise, t = exact(data, schedule), float(times[0])
    start = torch.tensor([0.0, schedule.prior_std(t)], dtype=torch.float64)
    flow_mean, above = data.flow(schedule, start, t, 0.0).tolist()
    assert flow_mean == pytest.approx(data.mean, abs=data.mean / largest + 2e-3)
    assert FLOW.keys() | DATA.keys() == SAMPLERS.keys()
    for name, sampler in SAMPLERS.items():
        mean, std = sample_mean_and_std(sampler, denoise[name], schedule, times)
        goal = (flow_mean, above - flow_mean) if name in FLOW else (data.mean, data.std)
        mean_off, std_off = (FLOW | DATA)[name]
        assert mean == pytest.approx(goal[0], abs=mean_off), name
        assert std == pytest.approx(goal[1], rel=std_off), name


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
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 4e-6), (torch.bfloat16, 0.03)])
def test_lower_precision_samples_nearly_the_same(target, dtype, off):
    data, schedule, x = GaussianData(), LinearPath(), torch.randn(2, 3, 5, 4, 6).to(dtype)
    times = time_grids.uniform(20, t_max=0.95)  # noise cannot be read where there is nothing else
    denoisers = exact(data, schedule)
    for name, sampler in SAMPLERS.items():
        denoise = through_network(denoisers[name], schedule, target)
        expected = sampler(denoise, schedule, x.double(), times, noise=SampleNoise([0, 1]))
        got = sampler(denoise, schedule, x, times, noise=SampleNoise([0, 1]))
        assert got.dtype == dtype
        assert float((got.double() - expected).abs().max()) < off, name
