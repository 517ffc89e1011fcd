import math

import pytest
import torch

from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.schedules import EDM, Cosine, LinearPath
from vdm.diffusion.times import DiscreteUniform, EDMLogNormal, LogitNormal, Uniform

DISTRIBUTIONS = [
    Uniform(),
    Uniform(0.1, 0.6),
    DiscreteUniform(7),
    LogitNormal(),
    LogitNormal(-0.5, 2.0),
    EDMLogNormal(),
    EDMLogNormal(0.7, 1.6),
]
each_distribution = pytest.mark.parametrize("times", DISTRIBUTIONS, ids=str)


def quantiles(n=4001):
    """The middles of ``n`` equal shares of [0, 1]."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


@each_distribution
@pytest.mark.parametrize("schedule", [LinearPath(), Cosine(), EDM(), DDPMTable()], ids=str)
def test_times_grow_with_the_quantile_and_stay_inside(times, schedule):
    t = times.sample(quantiles(), schedule)
    assert bool((t.diff() >= 0).all())
    assert t.min().item() >= 0
    assert t.max().item() <= 1


@each_distribution
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_the_uniforms_give_finite_noise_levels(times, dtype):
    t = times.sample(torch.tensor([0.0, 1.0], dtype=dtype), LinearPath())
    assert t.dtype == dtype
    assert t.isfinite().all()
    assert t.min().item() > 0


def test_uniform_is_uniform():
    t = Uniform(0.2, 0.7).sample(quantiles(), LinearPath())
    assert t.mean().item() == pytest.approx(0.45)
    assert t.std().item() == pytest.approx(0.5 / math.sqrt(12), rel=1e-3)


def test_discrete_uniform_visits_every_entry_equally():
    t = DiscreteUniform(5).sample(quantiles(1000), DDPMTable(num_steps=5))
    values, counts = t.unique(return_counts=True)
    assert values.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert counts.tolist() == [200] * 5


def test_logits_of_logit_normal_times_are_normal():
    t = LogitNormal(-0.5, 2.0).sample(quantiles(), LinearPath())
    assert t.logit().mean().item() == pytest.approx(-0.5, abs=1e-3)
    assert t.logit().std().item() == pytest.approx(2.0, rel=2e-3)


@pytest.mark.parametrize("schedule", [LinearPath(), Cosine(), EDM(1e9)], ids=str)
def test_log_noise_levels_of_edm_times_are_normal_on_every_schedule(schedule):
    t = EDMLogNormal(-1.2, 1.2).sample(quantiles(), schedule)
    log_sigma = schedule.edm_sigma(t).log()
    assert log_sigma.mean().item() == pytest.approx(-1.2, abs=1e-3)
    assert log_sigma.std().item() == pytest.approx(1.2, rel=2e-3)


def test_edm_times_are_cut_off_where_the_schedule_ends():
    schedule = EDM(math.exp(-1.2))  # half of the distribution
    t = EDMLogNormal().sample(quantiles(), schedule)
    whole = EDMLogNormal().sample(quantiles() / 2, EDM(1e9)) * 1e9
    torch.testing.assert_close(schedule.edm_sigma(t), whole)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Uniform(0.5, 0.5),
        lambda: Uniform(0.0, 1.5),
        lambda: DiscreteUniform(0),
        lambda: LogitNormal(std=0.0),
        lambda: EDMLogNormal(std=-1.0),
    ],
)
def test_impossible_distributions_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()
