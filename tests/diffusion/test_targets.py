import math

import pytest
import torch
from all_schedules import SCHEDULES

from vdm.diffusion.schedules import EDM, Cosine, LinearPath, VPLinear
from vdm.diffusion.targets import (
    X0,
    Eps,
    ReversedVelocity,
    V,
    Velocity,
    eps_from_v,
    eps_from_velocity,
    eps_from_x0,
    x0_from_eps,
    x0_from_v,
    x0_from_velocity,
)
from vdm.utils.tensors import expand_as

TARGETS = [X0(), Eps(), V(), Velocity()]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
each_target = pytest.mark.parametrize("target", TARGETS, ids=str)


def latents(b=3):
    return torch.randn(2, b, 2, 3, 4, 5, dtype=torch.float64)


@each_schedule
@each_target
def test_a_target_gives_back_both_sample_and_noise(schedule, target):
    x0, eps = latents()
    t = torch.tensor([0.002, 0.4, 0.97], dtype=torch.float64)
    xt = schedule.add_noise(x0, eps, t)
    pred = target(schedule, x0, eps, t)
    torch.testing.assert_close(target.to_x0(schedule, xt, pred, t), x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(target.to_eps(schedule, xt, pred, t), eps, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(target.from_x0(schedule, xt, x0, t), pred, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("source", TARGETS, ids=str)
@pytest.mark.parametrize("goal", TARGETS, ids=str)
def test_any_target_turns_into_any_other_and_back(source, goal):
    schedule, t = VPLinear(), torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    x0, eps = latents()
    xt, pred = schedule.add_noise(x0, eps, t), source(schedule, x0, eps, t)

    def convert(pred, one, other):
        return other(
            schedule, one.to_x0(schedule, xt, pred, t), one.to_eps(schedule, xt, pred, t), t
        )

    there = convert(pred, source, goal)
    torch.testing.assert_close(there, goal(schedule, x0, eps, t))
    torch.testing.assert_close(convert(there, goal, source), pred)


def test_the_named_conversions_are_inverse_to_the_definitions():
    schedule, t = Cosine(), torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    x0, eps = latents()
    xt = schedule.add_noise(x0, eps, t)
    v, velocity = V()(schedule, x0, eps, t), Velocity()(schedule, x0, eps, t)
    for got in (
        x0_from_eps(schedule, xt, eps, t),
        x0_from_v(schedule, xt, v, t),
        x0_from_velocity(schedule, xt, velocity, t),
    ):
        torch.testing.assert_close(got, x0)
    for got in (
        eps_from_x0(schedule, xt, x0, t),
        eps_from_v(schedule, xt, v, t),
        eps_from_velocity(schedule, xt, velocity, t),
    ):
        torch.testing.assert_close(got, eps)


def test_on_the_cosine_schedule_velocity_is_half_pi_times_v():
    x0, eps = latents()
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    velocity, v = (target(Cosine(), x0, eps, t) for target in (Velocity(), V()))
    torch.testing.assert_close(velocity, math.pi / 2 * v)


def test_on_the_linear_path_velocity_is_noise_minus_sample():
    x0, eps = latents()
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    torch.testing.assert_close(Velocity()(LinearPath(), x0, eps, t), eps - x0)


@each_schedule
def test_velocity_is_the_derivative_of_the_path(schedule):
    x0, eps = latents(2)
    t = torch.tensor([0.31, 0.77], dtype=torch.float64)
    _, slope = torch.func.jvp(
        lambda t: expand_as(schedule.alpha(t), x0) * x0 + expand_as(schedule.sigma(t), x0) * eps,
        (t,),
        (torch.ones_like(t),),
    )
    torch.testing.assert_close(Velocity()(schedule, x0, eps, t), slope)


@each_schedule
@each_target
def test_clean_samples_stay_what_they_are(schedule, target):
    x0, eps = latents()
    t = torch.zeros(3, dtype=torch.float64)
    pred = target(schedule, x0, eps, t)
    if not pred.isfinite().all():  # the velocity of the SDE schedules is infinite where they start
        pred = torch.zeros_like(pred)
    torch.testing.assert_close(target.to_x0(schedule, x0, pred, t), x0)
    assert target.to_eps(schedule, x0, pred, t).isfinite().all()


@pytest.mark.parametrize(
    "schedule", [s for s in SCHEDULES if s.alpha(torch.ones(1)).item() == 0], ids=str
)
@pytest.mark.parametrize("target", [X0(), V(), Velocity()], ids=str)
def test_pure_noise_is_exact_at_zero_terminal_snr(schedule, target):
    x0, eps = latents()
    t = torch.ones(3, dtype=torch.float64)
    xt, pred = schedule.add_noise(x0, eps, t), target(schedule, x0, eps, t)
    torch.testing.assert_close(target.to_x0(schedule, xt, pred, t), x0)
    torch.testing.assert_close(target.to_eps(schedule, xt, pred, t), eps)


def test_noise_predictions_say_nothing_about_the_sample_at_zero_terminal_snr():
    x0, eps = latents()
    t = torch.ones(3, dtype=torch.float64)
    xt = LinearPath().add_noise(x0, eps, t)
    got = Eps().to_x0(LinearPath(), xt, eps + 0.1, t)
    assert torch.equal(got, torch.zeros_like(x0))


@each_target
def test_half_precision_predictions_are_converted_in_float32(target):
    x0, eps = latents()
    t = torch.tensor([0.2, 0.5, 0.7])
    xt = LinearPath().add_noise(x0, eps, t).bfloat16()
    pred = target(LinearPath(), x0, eps, t).bfloat16()
    got = target.to_eps(LinearPath(), xt, pred, t)
    expected = target.to_eps(LinearPath(), xt.float(), pred.float(), t)
    torch.testing.assert_close(got.float(), expected.float(), rtol=1e-5, atol=1e-6)


@each_schedule
@each_target
def test_error_scales_are_how_far_off_sample_and_noise_are(schedule, target):
    x0, eps = latents(2)
    t = torch.tensor([0.31, 0.77], dtype=torch.float64)
    xt, pred = schedule.add_noise(x0, eps, t), target(schedule, x0, eps, t)
    x0_off = target.to_x0(schedule, xt, pred + 1, t) - x0
    eps_off = target.to_eps(schedule, xt, pred + 1, t) - eps
    for off, scale in zip((x0_off, eps_off), target.error_scales(schedule, t), strict=True):
        torch.testing.assert_close(off.abs(), expand_as(scale, off).expand_as(off))


def test_v_keeps_its_definition_where_variance_is_not_preserved():
    x0, eps = latents()
    t = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)
    sigma = expand_as(EDM().sigma(t), x0)
    torch.testing.assert_close(V()(EDM(), x0, eps, t), eps - sigma * x0)


def test_reversed_velocity_is_minus_the_velocity():
    x0, eps = latents()
    t = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)
    xt, pred = VPLinear().add_noise(x0, eps, t), ReversedVelocity()(VPLinear(), x0, eps, t)
    assert torch.equal(pred, -Velocity()(VPLinear(), x0, eps, t))
    torch.testing.assert_close(ReversedVelocity().to_x0(VPLinear(), xt, pred, t), x0)
    torch.testing.assert_close(ReversedVelocity().to_eps(VPLinear(), xt, pred, t), eps)
    torch.testing.assert_close(ReversedVelocity().from_x0(VPLinear(), xt, x0, t), pred)
    torch.testing.assert_close(ReversedVelocity()(LinearPath(), x0, eps, t), x0 - eps)
