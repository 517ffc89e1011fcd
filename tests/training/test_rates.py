"""The learning rate is a function of the step alone."""

import pytest

from vdm.training.rates import ConstantRate, CosineRate, TrapezoidRate


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantRate(warmup_steps=4),
        CosineRate(warmup_steps=4, last=0.1),
        TrapezoidRate(warmup_steps=4, decay=0.5),
    ],
)
def test_the_rate_rises_to_its_peak_in_the_warmup(schedule):
    factors = [schedule.factor(step, 100) for step in range(5)]
    assert factors == sorted(factors)
    assert factors[0] == pytest.approx(1 / 5)
    assert factors[-1] == 1.0


def test_a_cosine_ends_at_its_last_share():
    cosine = CosineRate(warmup_steps=10, last=0.1)
    assert cosine.factor(55, 100) == pytest.approx(0.55)
    assert cosine.factor(100, 100) == pytest.approx(0.1)
    assert cosine.factor(500, 100) == pytest.approx(0.1)


def test_a_trapezoid_is_flat_and_then_falls_to_zero():
    trapezoid = TrapezoidRate(decay=0.25)
    assert {trapezoid.factor(step, 100) for step in range(76)} == {1.0}
    assert trapezoid.factor(90, 100) == pytest.approx(0.4)
    assert trapezoid.factor(100, 100) == 0.0
    assert TrapezoidRate(decay=0.0).factor(100, 100) == 1.0


@pytest.mark.parametrize("schedule", [CosineRate(), TrapezoidRate()])
def test_a_schedule_that_ends_refuses_an_endless_run(schedule):
    with pytest.raises(ValueError, match=r"got trainer\.max_steps=-1, expected at least 1"):
        schedule.check(-1)
    ConstantRate().check(-1)


def test_a_share_outside_the_run_is_refused():
    with pytest.raises(ValueError, match=r"got decay=1\.5"):
        TrapezoidRate(decay=1.5)
