import pytest
import torch

from vdm.conditioning.frames import (
    FirstFrames,
    Keyframes,
    Mixture,
    NoFrames,
    PastFrames,
    RandomKeyframes,
    given_mask,
)
from vdm.utils.config import build, describe

B, C, T, H, W = 300, 3, 6, 2, 4
RULES = [
    NoFrames(),
    FirstFrames(),
    FirstFrames(2),
    PastFrames(1, 4),
    RandomKeyframes(2, 3),
    Keyframes(2),
    Mixture([NoFrames(), FirstFrames()], [0.3, 0.7]),
]


def chosen(rule, num_frames=T, batch=B, seed=0):
    u = torch.rand(batch, num_frames + 1, generator=torch.Generator().manual_seed(seed))
    return rule.choose(num_frames, u)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("num_frames", [1, 2, T])
def test_a_frame_is_always_left_to_make(rule, num_frames):
    frames = chosen(rule, num_frames)
    assert frames.shape == (B, num_frames)
    assert frames.sum(1).max() < num_frames


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_sample_does_not_depend_on_its_batch(rule):
    u = torch.rand(B, T + 1)
    assert torch.equal(rule.choose(T, u)[7:8], rule.choose(T, u[7:8]))


def test_each_rule_gives_the_frames_that_it_names():
    assert not chosen(NoFrames()).any()
    assert torch.equal(chosen(FirstFrames(2))[0], torch.arange(T) < 2)
    assert torch.equal(chosen(Keyframes(3))[0], torch.arange(T) % 3 == 0)


def test_the_past_has_every_length_equally_often():
    frames = chosen(PastFrames(2, 4), batch=3000)
    counts = torch.bincount(frames.sum(1), minlength=6)[2:5]
    assert counts.sum() == 3000
    assert counts.min() > 900
    assert torch.equal(frames, frames.cummin(1).values)


def test_the_past_may_reach_to_the_last_frame_but_one():
    assert set(chosen(PastFrames()).sum(1).tolist()) == set(range(1, T))


def test_random_keyframes_fall_everywhere():
    frames = chosen(RandomKeyframes(1, 2), batch=3000)
    assert set(frames.sum(1).tolist()) == {1, 2}
    share = frames.float().mean(0)
    assert (share - 1.5 / T).abs().max() < 0.04


def test_a_mixture_draws_each_rule_as_often_as_it_weighs():
    rule = Mixture([NoFrames(), FirstFrames(), PastFrames(2, 5)], [1, 2, 1])
    counts = torch.bincount(chosen(rule, batch=4000).sum(1), minlength=6) / 4000
    expected = torch.tensor([0.25, 0.5, 0.0625, 0.0625, 0.0625, 0.0625])
    assert (counts - expected).abs().max() < 0.03


def test_a_rule_without_weight_is_never_drawn():
    rule = Mixture([FirstFrames(3), NoFrames()], [0, 1])
    assert not chosen(rule).any()


def test_masks_cover_whole_frames():
    latents = torch.randn(B, C, T, H, W)
    mask = RandomKeyframes().sample(latents, torch.Generator().manual_seed(3))
    assert mask.shape == (B, 1, T, H, W)
    frames = mask[:, 0, :, 0, 0].bool()
    assert torch.equal(mask, given_mask(frames, latents))
    again = RandomKeyframes().sample(latents, torch.Generator().manual_seed(3))
    assert torch.equal(mask, again)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: FirstFrames(0), "got count=0"),
        (lambda: PastFrames(0), "got least=0"),
        (lambda: PastFrames(3, 2), "got most=2, expected at least 3"),
        (lambda: RandomKeyframes(0), "got least=0"),
        (lambda: RandomKeyframes(3, 2), "got most=2, expected at least 3"),
        (lambda: Keyframes(1), "got stride=1"),
        (lambda: Mixture([NoFrames()], [1, 2]), "got 2 weights, expected 1"),
        (lambda: Mixture([NoFrames()], [0]), "expected positive ones"),
    ],
)
def test_rules_that_cannot_hold_are_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rules_are_written_down_and_built_again(rule):
    assert torch.equal(chosen(build(describe(rule))), chosen(rule))
