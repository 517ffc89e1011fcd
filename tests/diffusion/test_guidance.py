import math

import pytest
import torch

from vdm.diffusion import samplers, time_grids
from vdm.diffusion.guidance import (
    ThreeWayScales,
    autoguidance,
    classifier_free,
    dynamic_cosine,
    frame_ramp,
    interval,
    rescaled,
    three_way,
    two_scales,
)
from vdm.diffusion.schedules import EDM, LinearPath, VPLinear
from vdm.diffusion.targets import X0, Eps, V, Velocity

XT = torch.randn(2, 3, 5, 4, 6, generator=torch.Generator().manual_seed(1))
T = torch.tensor([0.5, 0.5])


class Counted:
    """A denoiser that counts how often it is asked."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, xt, t):
        self.calls += 1
        return self.function(xt)


def pair():
    return Counted(torch.sin), Counted(torch.cos)


def guided_by(scale):
    return torch.cos(XT) + scale * (torch.sin(XT) - torch.cos(XT))


@pytest.mark.parametrize(
    "guide",
    [
        lambda cond, uncond: classifier_free(cond, uncond, 1.0),
        lambda cond, uncond: classifier_free(cond, uncond, 1),
        lambda cond, uncond: autoguidance(cond, uncond, 1.0),
        lambda cond, uncond: frame_ramp(cond, uncond, 1.0, 1.0),
        lambda cond, uncond: rescaled(cond, uncond, 1.0, 0.7),
        lambda cond, uncond: interval(classifier_free(cond, uncond, 5.0), cond, 0.6, 0.9),
    ],
)
def test_no_guidance_is_the_conditional_model_evaluated_once(guide):
    cond, uncond = pair()
    assert torch.equal(guide(cond, uncond)(XT, T), torch.sin(XT))
    assert (cond.calls, uncond.calls) == (1, 0)


@pytest.mark.parametrize(
    "guide",
    [
        lambda cond, uncond: classifier_free(cond, uncond, 3.0),
        lambda cond, uncond: frame_ramp(cond, uncond, 1.0, 3.0),
        lambda cond, uncond: rescaled(cond, uncond, 3.0, 0.7),
        lambda cond, uncond: dynamic_cosine(cond, uncond, 3.0, time_grids.uniform(10)),
        lambda cond, uncond: interval(classifier_free(cond, uncond, 3.0), cond, 0.1, 0.9),
    ],
)
def test_guidance_costs_one_evaluation_of_each(guide):
    cond, uncond = pair()
    guide(cond, uncond)(XT, T)
    assert (cond.calls, uncond.calls) == (1, 1)


@pytest.mark.parametrize("scale", [0.0, 0.4, 7.5])
def test_classifier_free_extrapolates(scale):
    got = classifier_free(*pair(), scale)(XT, T)
    torch.testing.assert_close(got, guided_by(scale))
    torch.testing.assert_close(autoguidance(*pair(), scale)(XT, T), got)


def test_a_scale_may_differ_between_samples():
    scale = torch.tensor([1.0, 4.0]).reshape(2, 1, 1, 1, 1)
    torch.testing.assert_close(classifier_free(*pair(), scale)(XT, T), guided_by(scale))


@pytest.mark.parametrize("target", [Eps(), V(), Velocity()], ids=str)
def test_guiding_the_sample_is_guiding_any_prediction(target):
    schedule, x0 = VPLinear(), classifier_free(*pair(), 4.0)(XT, T)
    cond, uncond = (target.from_x0(schedule, XT, f(XT), T) for f in (torch.sin, torch.cos))
    guided_prediction = uncond + 4.0 * (cond - uncond)
    torch.testing.assert_close(
        target.to_x0(schedule, XT, guided_prediction, T), x0, rtol=1e-4, atol=1e-5
    )


def test_a_ramp_goes_from_the_first_frame_to_the_last():
    got = frame_ramp(*pair(), 1.0, 3.0)(XT, T)
    for frame, scale in enumerate((1.0, 1.5, 2.0, 2.5, 3.0)):
        torch.testing.assert_close(got[:, :, frame], guided_by(scale)[:, :, frame])


def test_dynamic_cosine_by_timestep_is_the_published_code():
    n, scale = 50, 6.0
    guided = dynamic_cosine(*pair(), scale, time_grids.trailing(n))
    for k in (999, 539, 19):
        published = 1 + scale * (1 - math.cos(math.pi * ((n - k) / n) ** 5)) / 2
        got = guided(XT, torch.full((2,), (k + 1) / 1000))
        torch.testing.assert_close(got, guided_by(published), rtol=1e-4, atol=1e-5)


def test_dynamic_cosine_by_step_falls_from_one_more_than_the_scale_to_one():
    times = time_grids.trailing(5)
    guided = dynamic_cosine(*pair(), 6.0, times, index="step")
    scales = [1 + 3 * (1 - math.cos(math.pi * ((5 - k) / 5) ** 5)) for k in range(5)]
    assert scales[0] == 7
    assert scales == sorted(scales, reverse=True)
    for t, scale in zip(times[:-1], scales, strict=True):
        got = guided(XT, t.float().expand(2))
        torch.testing.assert_close(got, guided_by(scale), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", [EDM(1e5), LinearPath()], ids=str)
def test_dynamic_cosine_counts_the_steps_of_fine_grids(schedule, dtype):
    times = time_grids.karras(100, schedule, 0.002, 1e5)
    assert times.diff().abs().min() < 1e-6  # of EDM at the end, of the linear path at the start
    ends = torch.ones(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1)
    cond, uncond = (lambda xt, t, end=end: end for end in ends)
    guided = dynamic_cosine(cond, uncond, 6.0, times, index="step")
    scales = [
        float(guided(ends[0], torch.full((1,), float(t), dtype=dtype)).flatten()) for t in times
    ]
    expected = [1 + 3 * (1 - math.cos(math.pi * ((100 - k) / 100) ** 5)) for k in range(101)]
    assert scales == pytest.approx(expected, rel=1e-5)


RULES = {
    "classifier_free": lambda cond, uncond: classifier_free(cond, uncond, 4.0),
    "autoguidance": lambda cond, uncond: autoguidance(cond, uncond, 4.0),
    "frame_ramp": lambda cond, uncond: frame_ramp(cond, uncond, 1.0, 3.0),
    "dynamic_cosine": lambda cond, uncond: dynamic_cosine(
        cond, uncond, 3.0, time_grids.uniform(3), index="step"
    ),
    "dynamic_cosine by entry": lambda cond, uncond: dynamic_cosine(
        cond, uncond, 3.0, time_grids.uniform(3)
    ),
    "interval": lambda cond, uncond: interval(rescaled(cond, uncond, 4.0, 0.7), cond, 0.2, 1.0),
    "rescaled": lambda cond, uncond: rescaled(cond, uncond, 4.0, 1.0),
}


@pytest.mark.parametrize("target", [X0(), Eps(), V(), Velocity()], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_starts_in_pure_noise_from_every_target(rule, target):
    path = LinearPath()

    def denoiser(function):
        return lambda xt, t: target.to_x0(path, xt, function(xt), t)

    guided = RULES[rule](denoiser(torch.sin), denoiser(torch.cos))
    assert guided(XT, torch.ones(2)).isfinite().all()
    assert samplers.euler(guided, path, XT, time_grids.uniform(3)).isfinite().all()


def test_an_interval_guides_inside_only():
    cond, uncond = pair()
    guided = interval(classifier_free(cond, uncond, 5.0), cond, 0.2, 0.6)
    torch.testing.assert_close(guided(XT, torch.full((2,), 0.6)), guided_by(5.0))
    for t in (0.2, 0.7):
        assert torch.equal(guided(XT, torch.full((2,), t)), torch.sin(XT))
    mixed = guided(XT, torch.tensor([0.5, 0.9]))
    torch.testing.assert_close(mixed[0], guided_by(5.0)[0])
    assert torch.equal(mixed[1], torch.sin(XT[1]))


def test_rescaling_restores_the_spread_of_the_conditional_estimate():
    full = rescaled(*pair(), 6.0, 1.0)(XT, T)
    torch.testing.assert_close(full.flatten(1).std(1), torch.sin(XT).flatten(1).std(1))
    part, plain = rescaled(*pair(), 6.0, 0.7)(XT, T), guided_by(6.0)
    torch.testing.assert_close(part, 0.7 * full + 0.3 * plain)
    assert torch.equal(rescaled(*pair(), 6.0, 0.0)(XT, T), classifier_free(*pair(), 6.0)(XT, T))


def test_a_scale_holds_on_its_side_of_a_boundary():
    guide = two_scales(*pair(), 4.0, 2.0, lambda t: t >= 0.5)
    for time, scale in ((0.9, 4.0), (0.5, 4.0), (0.4, 2.0)):
        t = torch.full((len(XT),), time)
        torch.testing.assert_close(guide(XT, t), classifier_free(*pair(), scale)(XT, t))
    t = torch.linspace(0.2, 0.8, len(XT))  # samples may be on both
    rows = [classifier_free(*pair(), 4.0 if time >= 0.5 else 2.0)(XT, t) for time in t.tolist()]
    expected = torch.stack([row[k] for k, row in enumerate(rows)])
    torch.testing.assert_close(guide(XT, t), expected)


def test_guidance_rules_nest():
    cond, uncond = pair()
    inner = rescaled(cond, uncond, 6.0, 0.7)
    outer = interval(inner, cond, 0.0, 1.0)
    assert torch.equal(outer(XT, T), inner(XT, T))


def test_denoisers_may_answer_in_half_precision():
    def half(function):
        return lambda xt, t: function(xt).bfloat16()

    for guide in (
        classifier_free(half(torch.sin), half(torch.cos), 3.0),
        frame_ramp(half(torch.sin), half(torch.cos), 1.0, 3.0),
        rescaled(half(torch.sin), half(torch.cos), 3.0, 0.5),
        two_scales(half(torch.sin), half(torch.cos), 3.0, 2.0, lambda t: t > 0.5),
        dynamic_cosine(half(torch.sin), half(torch.cos), 3.0, time_grids.uniform(4)),
    ):
        got = guide(XT.bfloat16(), T)
        assert got.dtype == torch.float32
        assert got.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: interval(*pair(), 0.5, 0.5), "low=0.5"),
        (lambda: rescaled(*pair(), 3.0, 1.5), "rescale=1.5"),
    ],
)
def test_impossible_rules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def constant(value):
    return lambda xt, t: torch.full_like(xt, value)


def test_three_ways_go_as_far_as_their_scales_say():
    scales = ThreeWayScales(text=7.5, image=3.0, steady_steps=2)
    times = time_grids.uniform(4)
    guided = three_way(constant(10.0), constant(4.0), constant(1.0), scales, times)
    xt = torch.zeros(2, 1, 3, 1, 1)
    found = [float(guided(xt, t.float().expand(2)).mean()) for t in times[:-1]]
    assert found == [55.0, 55.0, 55.0, 10.0]  # 1 + 3 * 3 + 7.5 * 6, and 1 + 3 + 6


def test_three_ways_may_lead_to_given_frames_from_the_first_frame_on():
    scales = ThreeWayScales(text=1.0, image=3.0, steady_steps=None, ramps_frames=True)
    times = time_grids.uniform(4)
    guided = three_way(constant(2.0), constant(2.0), constant(1.0), scales, times)
    xt = torch.zeros(2, 1, 3, 1, 1)
    half_way = guided(xt, times[2].float().expand(2))  # the last frame's scale has fallen to 2
    assert half_way[1].flatten().tolist() == [2.0, 2.5, 3.0]


def test_guiding_three_ways_by_one_is_the_conditional_model():
    times, scales = time_grids.uniform(3), ThreeWayScales(1.0, 1.0)
    x0 = torch.randn(3, 2, 1, 3, 1, 1)
    ways = [lambda xt, t, value=value: value for value in x0]
    guided = three_way(*ways, scales, times)(x0[0], torch.ones(2))
    torch.testing.assert_close(guided, x0[0])
