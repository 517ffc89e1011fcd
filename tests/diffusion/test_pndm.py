"""The sampler of Stable Diffusion 1: its order, its evaluations, and each step as in diffusers."""

import pytest
import torch
from double_diffusers import double_scheduler
from gaussian_data import GaussianData

from vdm.diffusion import samplers, time_grids
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.schedules import Cosine, LinearPath
from vdm.diffusion.targets import Eps

DATA, TABLE = GaussianData(mean=0.3, std=0.5), DDPMTable()
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("schedule", [LinearPath(), Cosine()], ids=str)
def test_error_falls_with_the_square_of_the_step(schedule):
    errors = []
    for n in (80, 160):
        times = time_grids.uniform(n, 0.95, 0.05)
        x = torch.linspace(-2, 2, 5, dtype=torch.float64)[None]
        expected = DATA.flow(schedule, x, 0.95, 0.05)
        got = samplers.pndm(DATA.denoiser(schedule), schedule, x, times)
        errors.append(float((got - expected).abs().max()))
    assert errors[1] < 0.01
    assert errors[0] / errors[1] > 0.9 * 4


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 25])
def test_every_step_is_that_of_the_published_sampler(monkeypatch, steps, is_clean):
    def denoise(xt, t):
        return torch.tanh(1.3 * xt + t[:, None]) - 0.2

    theirs = double_scheduler(
        monkeypatch,
        "pndm.PNDMScheduler",
        skip_prk_steps=True,
        set_alpha_to_one=is_clean,
        steps_offset=1,
        **BETAS,
    )
    theirs.set_timesteps(steps)
    x = torch.randn(2, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected, y, seen, told = [], x, [], []
    for k in theirs.timesteps:
        t = torch.full((2,), (float(k) + 1) / 1000, dtype=torch.float64)
        eps = Eps().from_x0(TABLE, y, denoise(y, t), t)
        y = theirs.step(eps, k, y).prev_sample
        expected.append(y)

    def spy(xt, t):
        seen.append(float(t[0]))
        return denoise(xt, t)

    def callback(step, count, sample):
        told.append(sample)
        assert (step, count) == (len(told) - 1, steps)

    grid = time_grids.leading(steps, ends_clean=is_clean)
    samplers.pndm(spy, TABLE, x, grid, callback=callback)
    torch.testing.assert_close(
        torch.tensor(seen) * 1000 - 1, theirs.timesteps.double().to(torch.float32)
    )
    if steps > 1:
        del expected[0]  # what the first try gave
    for ours, other in zip(told, expected, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-10)
