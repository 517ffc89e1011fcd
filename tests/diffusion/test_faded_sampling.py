"""Sampling a model whose signal was faded in training, step by step as its authors write it."""

import pytest
import torch

from tests.diffusion.videocrafter_loop import authors_loop
from vdm.diffusion import samplers, time_grids
from vdm.diffusion.denoiser import Denoiser
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.preconditioning import DiscreteTimesteps
from vdm.diffusion.shifted_schedules import Faded
from vdm.diffusion.targets import Eps
from vdm.types import Conditioning
from vdm.utils.rng import SampleNoise


def predict(x, k):
    """A network that predicts noise, told the entry of the table."""
    return torch.sin(3 * x) + k / 1000 * torch.roll(x, 1, dims=2)


@pytest.mark.parametrize("end", [None, 0.3, 0.7])
@pytest.mark.parametrize("num_steps", [50, 8])
def test_it_is_the_authors_loop(num_steps, end):
    table = DDPMTable()
    schedule = table if end is None else Faded(table, end)
    times = time_grids.leading(num_steps, ends_clean=False)
    denoiser = Denoiser(
        lambda x, c_noise, cond: predict(x, float(c_noise[0])),
        schedule,
        Eps(),
        DiscreteTimesteps(),
    )
    x = torch.randn(2, 3, 5, 4, 6, dtype=torch.float64)
    expected = authors_loop(predict, x, SampleNoise([3, 7]), num_steps, end)
    denoise, noise = denoiser.bind(Conditioning()), SampleNoise([3, 7])
    got = samplers.ddim_ancestral(denoise, schedule, x, times, noise=noise)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_how_much_noise_is_replaced_may_come_from_another_schedule():
    table, faded = DDPMTable(), Faded(DDPMTable(), 0.3)
    times, x = time_grids.leading(5, ends_clean=False), torch.randn(2, 3, 5, dtype=torch.float64)

    def denoise(xt, t):
        return torch.sin(xt)

    def sample(schedule, **options):
        noise = SampleNoise([0, 1])
        return samplers.ddim(denoise, schedule, x, times, eta=1.0, noise=noise, **options)

    assert torch.equal(sample(table), sample(table, noise_schedule=table))
    assert not torch.allclose(sample(faded), sample(faded, noise_schedule=table))
    noise = SampleNoise([0, 1])
    ancestral = samplers.ancestral(denoise, table, x, times, noise=noise)
    torch.testing.assert_close(ancestral, sample(table))
