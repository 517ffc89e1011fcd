import pytest
import torch

from vdm.diffusion.denoiser import Denoiser, boundary_scales, consistency_boundary
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.preconditioning import (
    DiscreteTimesteps,
    EDMPreconditioning,
    NoPreconditioning,
    SVDPreconditioning,
)
from vdm.diffusion.schedules import EDM, LinearPath, VPLinear
from vdm.diffusion.targets import X0, Eps, V, Velocity
from vdm.types import Conditioning
from vdm.utils.tensors import expand_as

SHAPE = (2, 3, 5, 4, 6)
T = torch.tensor([0.2, 0.7])


class Recorder:
    """A network that remembers what it was given."""

    def __call__(self, x, c_noise, cond):
        self.x, self.c_noise, self.cond = x, c_noise, cond
        return torch.sin(x)


@pytest.mark.parametrize("target", [X0(), Eps(), V(), Velocity()], ids=str)
def test_the_estimate_is_what_the_prediction_stands_for(target):
    schedule, network, xt = VPLinear(), Recorder(), torch.randn(SHAPE)
    denoiser = Denoiser(network, schedule, target)
    cond = Conditioning(label=torch.tensor([1, 2]))
    pred = denoiser.predict(xt, T, cond)
    assert torch.equal(pred, torch.sin(xt))
    assert torch.equal(denoiser(xt, T, cond), target.to_x0(schedule, xt, pred, T))
    assert network.cond is cond
    torch.testing.assert_close(network.c_noise, 1000 * T)


def test_bound_conditioning_is_what_the_network_is_told():
    network, xt = Recorder(), torch.randn(SHAPE)
    denoiser = Denoiser(network, LinearPath(), Velocity(), NoPreconditioning(1.0))
    cond = Conditioning(label=torch.tensor([1, 2]))
    assert torch.equal(denoiser.bind(cond)(xt, T), denoiser(xt, T, cond))
    assert network.cond is cond


@pytest.mark.parametrize("scales", [EDMPreconditioning(0.5), SVDPreconditioning()], ids=str)
def test_scales_stand_around_the_network(scales):
    schedule, network, xt = EDM(), Recorder(), 10 * torch.randn(SHAPE)
    got = Denoiser(network, schedule, X0(), scales)(xt, T, Conditioning())
    c_in, c_skip, c_out = (
        expand_as(f(schedule, T), xt) for f in (scales.c_in, scales.c_skip, scales.c_out)
    )
    torch.testing.assert_close(network.x, c_in * xt)
    torch.testing.assert_close(got, c_skip * xt + c_out * torch.sin(c_in * xt))


def test_networks_run_in_the_precision_of_their_input():
    network = Recorder()
    denoiser = Denoiser(network, VPLinear(), Eps(), DiscreteTimesteps())
    x0 = denoiser(torch.randn(SHAPE).bfloat16(), T, Conditioning())
    assert network.x.dtype == torch.bfloat16
    assert network.c_noise.dtype == torch.float32
    assert x0.dtype == torch.float32


def test_scales_that_are_not_made_for_the_target_are_refused():
    with pytest.raises(ValueError, match="EDMPreconditioning makes predictions of X0"):
        Denoiser(Recorder(), EDM(), V(), EDMPreconditioning())


def test_boundary_scales_are_the_published_ones():
    t = torch.tensor([1 / 1000, 1.0], dtype=torch.float64)
    c_skip, c_out = boundary_scales(t)
    assert c_skip.tolist() == pytest.approx([1, 2.505e-9], rel=1e-3)
    assert c_out.tolist() == pytest.approx([0, 1])


def test_a_consistency_function_leaves_the_first_entry_as_it_is():
    denoise = Denoiser(Recorder(), DDPMTable(), Eps(), DiscreteTimesteps()).bind(Conditioning())
    xt, first = torch.randn(SHAPE), torch.full((2,), 1 / 1000)
    torch.testing.assert_close(consistency_boundary(denoise)(xt, first), xt)
    last = torch.ones(2)
    torch.testing.assert_close(
        consistency_boundary(denoise)(xt, last), denoise(xt, last), rtol=1e-4, atol=1e-5
    )
