import pytest
import torch

from vdm.diffusion.frame_times import CleanPast
from vdm.diffusion.losses import DenoisingLoss
from vdm.diffusion.preconditioning import EDMPreconditioning, NoPreconditioning
from vdm.diffusion.schedules import EDM, LinearPath, VPLinear
from vdm.diffusion.targets import X0, Eps, V, Velocity
from vdm.diffusion.times import EDMLogNormal, LogitNormal
from vdm.diffusion.weighting import SNR, EDMWeighting, MinSNR
from vdm.types import Conditioning

SHAPE = (2, 3, 5, 4, 6)
T = torch.tensor([0.2, 0.7])


def batch():
    return torch.randn(2, *SHAPE)


def zero_network(x, c_noise, cond):
    return torch.zeros_like(x)


def test_flow_matching_is_the_squared_error_of_the_velocity():
    x0, eps = batch()
    loss = DenoisingLoss(LinearPath(), Velocity())
    got = loss(lambda x, c_noise, cond: torch.cos(x), x0, Conditioning(), eps, T)
    xt = LinearPath().add_noise(x0, eps, T)
    torch.testing.assert_close(got, (torch.cos(xt) - (eps - x0)).square().flatten(1).mean(1))


@pytest.mark.parametrize("target", [X0(), Eps(), V(), Velocity()], ids=str)
def test_a_perfect_network_has_no_loss(target):
    x0, eps = batch()
    schedule = VPLinear()

    def network(x, c_noise, cond):
        return target(schedule, x0, eps, c_noise / 1000)

    got = DenoisingLoss(schedule, target)(network, x0, Conditioning(), eps, T)
    torch.testing.assert_close(got, torch.zeros(2), rtol=0, atol=1e-8)


def test_edm_loss_is_unit_weight_on_the_raw_output():
    x0, eps = batch()
    loss = DenoisingLoss(EDM(), X0(), EDMPreconditioning(0.5), EDMLogNormal(), EDMWeighting(0.5))
    got = loss(zero_network, x0, Conditioning(), eps, T)
    scales, schedule = loss.preconditioning, loss.schedule
    xt = schedule.add_noise(x0, eps, T)
    c_skip, c_out = (f(schedule, T).reshape(2, 1, 1, 1, 1) for f in (scales.c_skip, scales.c_out))
    expected = ((x0 - c_skip * xt) / c_out).square().flatten(1).mean(1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("weighting", [SNR(), MinSNR()], ids=str)
def test_equal_estimates_have_equal_loss_whatever_the_target(weighting):
    x0, eps = (value.double() for value in batch())
    t, schedule = T.double(), VPLinear()
    losses = []
    for target in (X0(), Eps(), V(), Velocity()):

        def network(x, c_noise, cond, target=target):
            return target.from_x0(schedule, x, torch.tanh(x), c_noise / 1000)

        loss = DenoisingLoss(schedule, target, weighting=weighting)
        losses.append(loss(network, x0, Conditioning(), eps, t))
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0])


def test_given_frames_do_not_count():
    x0, eps = batch()
    given_mask = torch.zeros(2, 1, 5, 4, 6)
    given_mask[0, :, :2] = 1
    given_mask[1, :, 4] = 1
    loss = DenoisingLoss(LinearPath(), Velocity())
    got = loss(zero_network, x0, Conditioning(given_mask=given_mask), eps, T)
    square = (eps - x0) ** 2
    expected = torch.stack([square[0, :, 2:].mean(), square[1, :, :4].mean()])
    torch.testing.assert_close(got, expected)


def test_padding_and_given_frames_are_both_left_out():
    x0, eps = batch()
    given_mask = torch.zeros(2, 1, 5, 4, 6)
    given_mask[:, :, 0] = 1
    mask = torch.ones(2, 1, 5, 1, 1)
    mask[:, :, 3:] = 0
    loss = DenoisingLoss(LinearPath(), Velocity())
    got = loss(zero_network, x0, Conditioning(given_mask=given_mask), eps, T, mask)
    torch.testing.assert_close(got, (eps - x0)[:, :, 1:3].square().flatten(1).mean(1))


def test_the_loss_of_a_sample_does_not_depend_on_the_batch():
    x0, eps = batch()
    loss = DenoisingLoss(VPLinear(), V(), weighting=MinSNR())
    together = loss(zero_network, x0, Conditioning(), eps, T)
    alone = loss(zero_network, x0[1:], Conditioning(), eps[1:], T[1:])
    assert torch.equal(together[1:], alone)


def test_times_come_from_given_uniforms():
    loss = DenoisingLoss(LinearPath(), Velocity(), times=LogitNormal())
    torch.testing.assert_close(loss.sample_times(torch.tensor([0.5, 0.5])), torch.full((2,), 0.5))


def test_gradients_reach_the_network():
    network = torch.nn.Conv3d(3, 3, 1)
    x0, eps = batch()
    loss = DenoisingLoss(EDM(), X0(), EDMPreconditioning(), weighting=EDMWeighting())
    loss(lambda x, c_noise, cond: network(x), x0, Conditioning(), eps, T).mean().backward()
    assert network.weight.grad.abs().sum() > 0


def test_half_precision_latents_have_their_loss_in_float32():
    x0, eps = (value.bfloat16() for value in batch())
    got = DenoisingLoss(LinearPath(), Velocity())(zero_network, x0, Conditioning(), eps, T)
    assert got.dtype == torch.float32


def test_the_denoiser_of_a_loss_shares_its_parts():
    loss = DenoisingLoss(EDM(), X0(), EDMPreconditioning())
    denoiser = loss.denoiser(zero_network)
    assert (denoiser.schedule, denoiser.target, denoiser.preconditioning) == (
        loss.schedule,
        loss.target,
        loss.preconditioning,
    )


def test_scales_that_are_not_made_for_the_target_are_refused():
    DenoisingLoss(EDM(), Eps(), NoPreconditioning())
    with pytest.raises(ValueError, match="expected X0"):
        DenoisingLoss(EDM(), Eps(), EDMPreconditioning())


FRAMES = torch.tensor([[0.1, 0.9, 0.5, 0.3, 0.7], [0.6, 0.2, 0.8, 0.4, 0.99]])
LOSSES = [
    DenoisingLoss(LinearPath(), Velocity()),
    DenoisingLoss(VPLinear(), V(), weighting=MinSNR()),
    DenoisingLoss(EDM(), X0(), EDMPreconditioning(), weighting=EDMWeighting()),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss.schedule).__name__)
def test_every_frame_has_the_loss_of_a_clip_at_its_own_time(loss):
    x0, eps = batch()
    got = loss(pointwise, x0, Conditioning(), eps, FRAMES)
    alone = [
        loss(pointwise, x0[:, :, k : k + 1], Conditioning(), eps[:, :, k : k + 1], FRAMES[:, k])
        for k in range(5)
    ]
    torch.testing.assert_close(got, torch.stack(alone).mean(0))


def pointwise(x, c_noise, cond):
    """A network that knows no other frame; it is told a noise level per sample or per frame."""
    level = c_noise.reshape(len(x), 1, -1, 1, 1)
    return torch.sin(x) + torch.tanh(level / 1000)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss.schedule).__name__)
def test_equal_times_of_all_frames_are_the_time_of_the_clip(loss):
    x0, eps = batch()
    once = loss(pointwise, x0, Conditioning(), eps, T)
    each = loss(pointwise, x0, Conditioning(), eps, T[:, None].expand(-1, 5))
    torch.testing.assert_close(each, once)


def test_times_of_the_conditioning_take_precedence_and_reach_the_network_as_noise_levels():
    told = []

    def network(x, c_noise, cond):
        told.append((c_noise, cond.token_times))
        return torch.zeros_like(x)

    x0, eps = batch()
    loss = LOSSES[2]
    got = loss(network, x0, Conditioning(token_times=FRAMES), eps, T)
    assert torch.equal(got, loss(network, x0, Conditioning(), eps, FRAMES))
    for c_noise, token_times in told:
        assert torch.equal(c_noise, loss.preconditioning.c_noise(loss.schedule, FRAMES))
        assert token_times is None


@pytest.mark.parametrize("target", [X0(), Eps(), V(), Velocity()], ids=str)
@pytest.mark.parametrize("weighting", [SNR(), MinSNR(), EDMWeighting()], ids=str)
def test_clean_frames_do_not_count_however_large_their_weight(target, weighting):
    x0, eps = batch()
    weights = torch.nn.Parameter(torch.ones(3, 3))

    def network(x, c_noise, cond):
        return torch.einsum("bcthw,cd->bdthw", x, weights)

    # At time 0 of this schedule the velocity is infinite, and with it what is to be predicted.
    loss = DenoisingLoss(VPLinear(), target, weighting=weighting)
    t = torch.tensor([0.0, 0.0, 0.4, 0.4, 0.4]).expand(2, -1)
    got = loss(network, x0, Conditioning(), eps, t)
    rest = [value[:, :, 2:] for value in (x0, eps)]
    torch.testing.assert_close(got, loss(network, rest[0], Conditioning(), rest[1], t[:, 2:]))
    got.sum().backward()
    assert weights.grad.isfinite().all()
    assert loss(network, x0, Conditioning(), eps, torch.zeros(2, 5)).tolist() == [0, 0]


def test_given_frames_and_padding_do_not_count_with_times_per_frame():
    x0, eps = batch()
    given_mask = torch.zeros(2, 1, 5, 4, 6)
    given_mask[:, :, 1] = 1
    mask = torch.ones(2, 1, 5, 1, 1)
    mask[:, :, 4] = 0
    t = FRAMES.clone()
    t[:, 0] = 0
    got = LOSSES[0](zero_network, x0, Conditioning(given_mask=given_mask), eps, t, mask)
    torch.testing.assert_close(got, (eps - x0)[:, :, 2:4].square().flatten(1).mean(1))


def test_frame_times_come_from_given_uniforms():
    loss = DenoisingLoss(LinearPath(), Velocity(), times=LogitNormal(), frame_times=CleanPast(1, 1))
    t = loss.sample_frame_times(torch.full((2, 5), 0.5))
    torch.testing.assert_close(t, torch.tensor([0.0, 0.5, 0.5]).expand(2, -1))
    plain = DenoisingLoss(LinearPath(), Velocity())
    torch.testing.assert_close(
        plain.sample_frame_times(torch.full((2, 5), 0.25)), torch.full((2, 3), 0.25)
    )


def test_times_of_another_number_of_frames_are_refused():
    x0, eps = batch()
    with pytest.raises(ValueError, match=r"expected \(2,\): one per sample, or \(2, 5\)"):
        LOSSES[0](zero_network, x0, Conditioning(), eps, FRAMES[:, :4])
