"""What a network sees of given latents: the given ones, and in the gaps what the rule says."""

import pytest
import torch

from vdm.conditioning.frames import Keyframes, Mixture, NoFrames, Shown, given_mask
from vdm.conditioning.given import Hint, Masked, Nearest, NoiseAugmentation, Repeated, Showing
from vdm.utils.config import build, describe

B, C, T, H, W = 3, 2, 6, 4, 5
FILLS = [Masked(), Nearest(), Repeated(), Hint()]


def latents(seed=0):
    return torch.randn(B, C, T, H, W, generator=torch.Generator().manual_seed(seed))


def mask_of(*frames):
    chosen = torch.zeros(B, T, dtype=torch.bool)
    chosen[:, list(frames)] = True
    return given_mask(chosen, latents())


@pytest.mark.parametrize("fill", FILLS, ids=str)
def test_given_latents_are_shown_as_they_are(fill):
    shown = fill.fill(latents(), mask_of(0, 3))
    assert torch.equal(shown[:, :, [0, 3]], latents()[:, :, [0, 3]])


@pytest.mark.parametrize("fill", [Masked(), Nearest()], ids=str)
@pytest.mark.parametrize("frames", [(), (0,), (2, 5), (1, 4)])
def test_what_is_not_given_is_not_seen(fill, frames):
    mask = mask_of(*frames)
    other = torch.where(mask == 1, latents(), latents(1))
    assert torch.equal(fill.fill(latents(), mask), fill.fill(other, mask))


def test_gaps_are_zero_or_the_nearest_keyframe_or_the_hint():
    mask = mask_of(1, 4)
    x = latents()
    assert torch.equal(Masked().fill(x, mask), x * mask)
    assert torch.equal(Nearest().fill(x, mask), x[:, :, [1, 1, 1, 4, 4, 4]])
    assert torch.equal(Hint().fill(x, mask), x)
    assert not Nearest().fill(x, mask_of()).any()


def test_of_two_equally_near_keyframes_the_earlier_is_repeated():
    assert torch.equal(
        Nearest().fill(latents(), mask_of(0, 2)), latents()[:, :, [0, 0, 2, 2, 2, 2]]
    )


def test_nearest_goes_by_the_place_where_regions_are_given():
    mask = torch.zeros(B, 1, T, H, W)
    mask[:, :, 0, :2], mask[1:, :, 5, 2:] = 1, 1
    shown = Nearest().fill(latents(), mask)
    assert torch.equal(shown[:, :, 3, :2], latents()[:, :, 0, :2])
    assert torch.equal(shown[1:, :, 3, 2:], latents()[1:, :, 5, 2:])
    assert not shown[0, :, :, 2:].any()


def test_noise_has_the_level_that_is_told_and_spares_the_gaps():
    rule = Showing(Masked(), NoiseAugmentation(0.5, 0.1))
    level, eps = torch.tensor([0.0, 0.1, 0.5]), latents(9)
    mask = mask_of(0, 2)
    added = rule.show(latents(), mask, level, eps) - latents() * mask
    torch.testing.assert_close(added, level.reshape(-1, 1, 1, 1, 1) * eps * mask)
    assert torch.equal(Showing().show(latents(), mask, level, eps), latents() * mask)
    assert NoiseAugmentation(0.5, 0.1).level(torch.tensor([0.0, 0.5])).tolist() == [0.0, 0.25]


def test_repeated_keyframes_repeat_their_noise():
    rule = Showing(Nearest(), NoiseAugmentation())
    shown = rule.show(latents(), mask_of(0), torch.full((B,), 0.4), latents(9))
    assert torch.equal(shown, shown[:, :, :1].expand_as(shown))


def test_a_hint_is_shown_only_by_the_rule_for_hints():
    assert torch.equal(Showing(Hint()).source(latents(), latents(1)), latents(1))
    assert torch.equal(Showing().source(latents(), None), latents())
    with pytest.raises(ValueError, match=r"got no hint in the batch and fill Hint"):
        Showing(Hint()).source(latents(), None)
    with pytest.raises(ValueError, match=r"got a hint in the batch and fill Masked"):
        Showing().source(latents(), latents(1))


def test_a_shown_rule_gives_the_frames_of_the_rule():
    rule = Shown(Keyframes(3), Nearest(), NoiseAugmentation(0.3))
    u = torch.rand(B, T + 1)
    assert torch.equal(rule.choose(T, u), Keyframes(3).choose(T, u))
    assert rule.shown == Showing(Nearest(), NoiseAugmentation(0.3))
    assert Keyframes(3).shown == Showing()
    assert Showing().or_none() is None
    again = build(describe(rule))
    assert again == rule
    assert build(describe(rule.shown)) == rule.shown


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: NoiseAugmentation(0.0, 0.0), "expected 0 <= sampling <= most and more than 0"),
        (lambda: NoiseAugmentation(0.1, 0.2), "got most=0.1, sampling=0.2"),
        (lambda: Shown(Shown(NoFrames(), Hint())), "got Shown inside another rule"),
        (lambda: Mixture([Shown(NoFrames(), Nearest())], [1]), "got Shown inside another rule"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()
