"""Rules that give every frame of a training clip its noise time."""

import pytest
import torch

from vdm.diffusion.frame_times import (
    NUM_EXTRA,
    CleanPast,
    IndependentTimes,
    MixedTimes,
    SharedTime,
)
from vdm.diffusion.schedules import LinearPath
from vdm.diffusion.times import LogitNormal, Uniform

B, T = 4000, 5
ALL = [SharedTime(), IndependentTimes(), CleanPast(), MixedTimes([SharedTime()], [1])]


def sample(rule, times=None, seed=0, b=B):
    u = torch.rand(b, T + NUM_EXTRA, generator=torch.Generator().manual_seed(seed))
    return rule.sample(u, times or Uniform(), LinearPath())


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_every_frame_has_a_time_which_depends_on_its_own_sample_alone(rule):
    u = torch.rand(6, T + NUM_EXTRA)
    t = rule.sample(u, LogitNormal(), LinearPath())
    assert t.shape == (6, T)
    assert ((t >= 0) & (t < 1)).all()
    assert torch.equal(rule.sample(u[2:3], LogitNormal(), LinearPath()), t[2:3])


def test_a_shared_time_is_that_of_plain_training():
    u = torch.rand(6, T + NUM_EXTRA)
    t = SharedTime().sample(u, LogitNormal(), LinearPath())
    assert torch.equal(t, LogitNormal().sample(u[:, 0], LinearPath())[:, None].expand(-1, T))


def test_independent_times_do_not_know_of_each_other():
    t = sample(IndependentTimes())
    correlation = torch.corrcoef(t.T) - torch.eye(T)
    assert correlation.abs().max() < 0.06
    assert (t.mean(0) - 0.5).abs().max() < 0.02


def test_independent_times_may_have_a_distribution_of_their_own():
    own = sample(IndependentTimes(Uniform(0.0, 0.1)), LogitNormal(2.0))
    assert own.max() <= 0.1
    assert sample(IndependentTimes(), LogitNormal(2.0)).mean() > 0.8


def test_the_past_is_clean_and_the_rest_shares_a_time():
    t = sample(CleanPast())
    count = (t == 0).sum(1)
    assert count.unique().tolist() == [0, 1, 2, 3, 4]
    assert (count.bincount() / B - 0.2).abs().max() < 0.03
    for row, number in zip(t[:50], count[:50], strict=True):
        assert not row[:number].any()
        assert row[number:].unique().numel() == 1


@pytest.mark.parametrize(
    ("rule", "counts"),
    [(CleanPast(2, 3), [2, 3]), (CleanPast(9), [4]), (CleanPast(0, 0), [0])],
    ids=str,
)
def test_the_length_of_the_past_has_limits_and_leaves_a_frame(rule, counts):
    assert (sample(rule) == 0).sum(1).unique().tolist() == counts


def test_a_mixture_follows_its_weights_and_its_rules_stay_whole():
    rules = [CleanPast(1, 4), IndependentTimes(), SharedTime()]
    t = sample(MixedTimes(rules, [1, 2, 0]))
    count = (t == 0).sum(1)
    assert ((count > 0).float().mean() - 1 / 3).abs() < 0.03
    # What is left of the number that chose the rule is uniform: every length is as likely.
    assert (count.bincount()[1:] / (count > 0).sum() - 0.25).abs().max() < 0.05
    assert (t[:, 0] == t[:, 1]).float().mean() < 0.34  # nothing shares one time but the clean past


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: CleanPast(-1), "got least=-1, expected at least 0"),
        (lambda: CleanPast(3, 2), "got most=2, expected at least 3"),
        (lambda: MixedTimes([SharedTime()], [1, 2]), "got 2 weights, expected 1"),
        (lambda: MixedTimes([], []), "got 0 weights, expected 1"),
        (lambda: MixedTimes([SharedTime()], [0]), "expected positive ones"),
    ],
)
def test_misuse_is_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()
