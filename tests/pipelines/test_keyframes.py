"""Given frames ahead of a clip: how they are told apart, and how long latents stay as they are."""

from types import SimpleNamespace

import pytest
import torch

from vdm.conditioning.given import GivenAhead
from vdm.pipelines.keyframes import Held, read_pieces
from vdm.utils.rng import SampleNoise
from vdm.utils.time_grid import TimeGrid

MODEL = SimpleNamespace(parts=SimpleNamespace(name="m", given=GivenAhead()))
GRID, SIZE = TimeGrid(17, stride=4), (3, 5)


def movie(count):
    return torch.rand(3, count, *SIZE, generator=torch.Generator().manual_seed(0))


def pieces(ends=(None, None), video=None, mask=None, **raw):
    return read_pieces(MODEL, ends, video, mask, GRID, SIZE, raw)


def marked(*places):
    mask = torch.zeros(17)
    for place, strength in places:
        mask[place] = strength
    return mask


@pytest.mark.parametrize("is_whole", [True, False])
def test_frames_side_by_side_that_are_given_alike_are_one_piece(is_whole):
    mask, clip = marked((0, 1), (slice(4, 9), 0.5), (9, 0.25)), movie(17)
    found = pieces(video=clip if is_whole else clip[:, mask > 0], mask=mask)
    assert [(piece.start, piece.strength) for piece in found] == [(0, 1), (4, 0.5), (9, 0.25)]
    for piece, frames in zip(found, (slice(1), slice(4, 9), slice(9, 10)), strict=True):
        assert torch.equal(piece.clip[0], 2 * clip[:, frames] - 1)


def test_pictures_stand_at_the_ends_and_clips_at_the_beginning():
    first, last = torch.rand(3, *SIZE), torch.rand(2, 3, *SIZE)
    assert pieces() == []
    assert [(piece.start, len(piece.clip)) for piece in pieces((first, last))] == [(0, 1), (16, 2)]
    assert [piece.start for piece in pieces((None, last))] == [16]
    assert [piece.clip.shape[2] for piece in pieces(video=movie(5))] == [5]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"given": torch.zeros(1)}, "got cond.given, model 'm' has a place for frames alone"),
        ({"ends": (None, 0), "video": movie(5)}, "got last_image and video, expected one of them"),
        ({"mask": marked((0, 1))}, "got mask without video"),
        ({"video": movie(18)}, "got 18 given frames, expected at most num_frames=17"),
        ({"video": movie(17)}, "got 17 of 17 frames given, expected some, and some left"),
        ({"video": movie(17), "mask": marked()}, "got 0 of 17 frames given, expected some"),
        ({"video": movie(4)}, "got 4 given frames side by side, .* multiple of 4; nearest: 5"),
        ({"video": movie(3), "mask": marked((2, 1))}, "got 3 given frames, expected 17 or the 1"),
        (
            {"video": movie(9), "mask": marked((slice(3, 12), 1))},
            "got 9 given frames from frame 3 on, .* begin at a multiple of 4; nearest: 4",
        ),
        ({"video": movie(5), "mask": torch.ones(17, 3, 5)}, r"expected \(17,\): .* whole frames"),
        ({"video": movie(1), "mask": marked((0, 1.5))}, r"values outside \[0, 1\]"),
    ],
)
def test_what_has_no_place_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        pieces(**asked)


def test_latents_wait_for_their_noise_and_what_is_given_wholly_is_shown_with_a_little():
    latents, strength = torch.randn(2, 3, 3, 1, 2), torch.tensor([1.0, 0.4, 0.0])
    held = Held(latents, strength, torch.zeros(1, 3), 0.5)
    shown = []

    def denoise(xt, t):
        shown.append((xt, t))
        return torch.zeros_like(xt)

    x = torch.randn_like(latents)
    for level in (0.8, 0.5):
        t = torch.full((2,), level)
        made = held.keep(denoise, SampleNoise([7, 8]))(x, t)
        seen, times = shown.pop()
        # Noise is drawn token by token, their channels together.
        eps = SampleNoise([7, 8]).draw((3 * 1 * 2, 3)).unflatten(1, (3, 1, 2)).movedim(-1, 1)
        expected = latents + 0.5 * level**2 * eps
        torch.testing.assert_close(seen[:, :, :1], expected[:, :, :1])
        assert torch.equal(seen[:, :, 1:], x[:, :, 1:])
        torch.testing.assert_close(times, torch.tensor([[0, min(level, 0.6), level]] * 2))
        assert torch.equal(made[:, :, :1], seen[:, :, :1])  # it ends as it was shown
        assert torch.equal(made[:, :, 1], x[:, :, 1]) is (level > 0.6)
        assert not made[:, :, 2].any()
