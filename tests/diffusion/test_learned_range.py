"""The sampler whose network says how much noise a step draws."""

import pytest
import torch

from vdm.diffusion import samplers, time_grids
from vdm.diffusion.discrete_schedules import DDPMTable, betas_of
from vdm.diffusion.learned_range import RangedDenoiser, learned_range
from vdm.diffusion.preconditioning import DiscreteTimesteps
from vdm.diffusion.schedules import LinearPath
from vdm.diffusion.targets import Eps
from vdm.types import Conditioning
from vdm.utils.rng import SampleNoise

TABLE = DDPMTable("linear", 0.0001, 0.02)
X = torch.randn(2, 3, 5, 4, 6, generator=torch.Generator().manual_seed(0))


def said(value, x0=lambda xt: 0.3 * xt):
    return lambda xt, t: torch.cat((x0(xt), torch.full_like(xt, value)), dim=1)


@pytest.mark.parametrize("schedule", [TABLE, LinearPath()], ids=str)
def test_the_least_variance_is_that_of_the_posterior(schedule):
    times = time_grids.uniform(4, t_max=0.9)
    got = learned_range(said(-1.0), schedule, X, times, noise=SampleNoise([3, 4]))
    plain = samplers.ancestral(
        lambda xt, t: 0.3 * xt, schedule, X, times, noise=SampleNoise([3, 4])
    )
    torch.testing.assert_close(got, plain)


def test_the_most_is_beta():
    k = 700
    times = torch.tensor([k + 1, k], dtype=torch.float64) / 1000
    nothing = torch.zeros_like(X)
    step = learned_range(said(1.0, torch.zeros_like), TABLE, nothing, times, noise=torch.ones_like)
    expected = betas_of(TABLE)[k].sqrt().float()
    torch.testing.assert_close(step, expected.expand_as(X), rtol=1e-5, atol=0)


def test_what_is_said_counts_number_by_number():
    times = time_grids.uniform(2, t_max=0.9)
    one = learned_range(said(0.2), TABLE, X, times, noise=SampleNoise([3, 4]))
    change = torch.zeros_like(X)
    change[1, 2, 3, 1, 4] = 0.5

    def denoise(xt, t):
        x0, variance = said(0.2)(xt, t).chunk(2, dim=1)
        return torch.cat((x0, variance + change), dim=1)

    other = learned_range(denoise, TABLE, X, times, noise=SampleNoise([3, 4]))
    assert torch.equal(one != other, change != 0)


def test_the_network_is_asked_once_for_both():
    calls = []

    def network(x, c_noise, cond):
        calls.append(c_noise.tolist())
        return torch.cat((0.1 * x, torch.tanh(x)), dim=1)

    denoise = RangedDenoiser(network, TABLE, Eps(), DiscreteTimesteps()).bind(Conditioning())
    estimate = denoise(X, torch.full((2,), 0.5))
    alpha, sigma = (float(value(torch.tensor(0.5))) for value in (TABLE.alpha, TABLE.sigma))
    torch.testing.assert_close(estimate[:, :3], (X - sigma * 0.1 * X) / alpha)
    assert torch.equal(estimate[:, 3:], torch.tanh(X))
    assert calls == [[499.0, 499.0]]


def test_a_denoiser_that_says_nothing_is_refused():
    noise, times = SampleNoise([1, 2]), time_grids.uniform(1, 0.9)
    with pytest.raises(ValueError, match="got a denoiser of 3 channels for latents of 3, expected"):
        learned_range(lambda xt, t: xt, TABLE, X, times, noise=noise)
    with pytest.raises(ValueError, match="learned_range is stochastic: got noise=None"):
        learned_range(said(0.0), TABLE, X, times)
