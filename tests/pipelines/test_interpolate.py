"""Keyframes stay, what is between them is made, and rules without a network do what they say."""

import math

import numpy as np
import pytest
import torch
from textured_clips import smooth_noise
from tiny_model import make_parts
from torch import nn

from vdm.conditioning.given import Nearest, NoiseAugmentation, Showing
from vdm.models.dit import VideoDiT
from vdm.pipelines import Generator
from vdm.pipelines.interpolate import interpolate, interpolate_clip, place_keyframes
from vdm.pipelines.interpolate_scores import covered_frames, interpolation_scores
from vdm.pretrained.parts import Defaults, Envelope
from vdm.utils.time_grid import TimeGrid
from vdm.utils.video_io import write_video

RED = "a red circle moves left"
DEFAULTS = Defaults(9, 8.0, 16, 16, steps=2, sampler="euler")  # five latent frames of 4x4
WIDE = Envelope((1, 64), (0.1, 64.0), (8, 64), (8, 64))
QUIET = {"seed": 3, "progress": False}


@pytest.fixture(scope="module")
def filler():
    return Generator(make_parts(defaults=DEFAULTS, envelope=WIDE))


def keyframes(count, batch=1, seed=0):
    return torch.randn(batch, 3, count, 4, 4, generator=torch.Generator().manual_seed(seed))


class Oracle(nn.Module):
    """Knows the clip: predicts the velocity that leads straight to it."""

    in_channels, patch_size, reads = 3, (1, 1, 1), frozenset({"given", "given_mask"})

    def __init__(self, x0):
        super().__init__()
        self.x0, self.weight = x0, nn.Parameter(torch.zeros(1))

    def forward(self, x, c_noise, cond):
        return (x - self.x0) / (c_noise / 1000).reshape(-1, 1, 1, 1, 1)


def oracle(x0, **changes):
    text = {"text_encoder": None}
    return Generator(
        make_parts(network=Oracle(x0), defaults=DEFAULTS, envelope=WIDE, **text, **changes)
    )


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "ancestral"])
@pytest.mark.parametrize(
    ("stride", "num_frames", "count"), [(2, 9, 3), (3, 9, 2), (4, 8, 2), (2, 7, 2), (5, 9, 1)]
)
def test_keyframes_come_back_bit_for_bit(filler, sampler, stride, num_frames, count):
    given = keyframes(count)
    latents = interpolate(
        filler, given, stride, RED, num_frames=num_frames, sampler=sampler, **QUIET
    )
    assert latents.shape[2] == TimeGrid(num_frames, stride=2).num_latent_frames
    assert torch.equal(latents[:, :, ::stride], given)
    between = latents[:, :, 1]
    assert not torch.equal(between, torch.zeros_like(between))


def test_a_perfect_interpolator_recovers_the_clip():
    clip = keyframes(5)
    for factors in ((2,), None):
        latents = interpolate(oracle(clip), clip[:, :, ::2], 2, factors=factors, **QUIET)
        torch.testing.assert_close(latents, clip, atol=1e-5, rtol=0)


def test_a_stride_may_be_halved_again_and_again(filler, monkeypatch):
    asked = []
    call = Generator.__call__

    def spy(self, *args, **kwargs):
        mask = kwargs["cond"]["given_mask"][0, 0, :, 0, 0]
        asked.append((kwargs["num_frames"], kwargs["fps"], mask.tolist()))
        return call(self, *args, **kwargs)

    monkeypatch.setattr(Generator, "__call__", spy)
    given = keyframes(2)
    latents = interpolate(filler, given, 4, RED, factors=(2, 2), **QUIET)
    assert latents.shape[2] == 5
    assert torch.equal(latents[:, :, ::4], given)
    assert asked == [(5, 4.0, [1, 0, 1]), (9, 8.0, [1, 0, 1, 0, 1])]
    at_once = interpolate(filler, given, 4, RED, **QUIET)
    assert not torch.equal(at_once, latents)


def test_where_nothing_is_left_to_make_nothing_is_made(filler):
    given = keyframes(5)
    assert torch.equal(interpolate(filler, given, 1, RED, **QUIET), given)
    alone = keyframes(1)
    assert torch.equal(interpolate(filler, alone, 2, RED, num_frames=1, **QUIET), alone)


def test_a_sample_of_a_batch_equals_the_same_sample_alone(filler):
    given = keyframes(3, batch=3)
    together = interpolate(filler, given, 2, [RED] * 3, **QUIET)
    for k in range(3):
        alone = interpolate(filler, given[k : k + 1], 2, RED, **{**QUIET, "seed": 3 + k})
        torch.testing.assert_close(together[k : k + 1], alone, atol=1e-5, rtol=0)


def seeing_network(scalars):
    net = VideoDiT(3, dim=24, depth=1, num_heads=2, scalars=scalars)
    return net, lambda seen: net.register_forward_pre_hook(lambda _, args: seen.append(args[2]))


def test_the_network_sees_keyframes_as_it_was_trained_to():
    net, watch = seeing_network(["noise_aug", "fps"])
    showing = Showing(Nearest(), NoiseAugmentation(0.5, 0.2))
    parts = make_parts(
        network=net, text_encoder=None, given=showing, defaults=DEFAULTS, envelope=WIDE
    )
    seen = []
    handle = watch(seen)
    given = keyframes(3)
    latents = interpolate(Generator(parts), given, 2, **QUIET)
    interpolate(Generator(parts), given, 2, noise_aug=0.0, **QUIET)
    handle.remove()
    noisy, clean = seen[0], seen[-1]
    assert noisy.fps.tolist() == [8.0]
    assert noisy.noise_aug.tolist() == pytest.approx([0.2])
    assert torch.equal(clean.given, given[:, :, [0, 0, 1, 1, 2]])
    noise = (noisy.given - clean.given)[:, :, [0, 2, 4]]
    assert 0.15 < noise.std() < 0.25
    assert torch.equal(latents[:, :, ::2], given)  # the noise is in what is seen, not in the clip


def test_further_given_latents_take_the_place_of_made_ones(filler):
    whole = keyframes(5, seed=7)
    where = torch.zeros(1, 1, 5, 4, 4)
    where[:, :, 3] = 1
    latents = interpolate(filler, keyframes(3), 2, RED, known=(whole, where), **QUIET)
    assert torch.equal(latents[:, :, 3], whole[:, :, 3])
    assert torch.equal(latents[:, :, ::2], keyframes(3))


@pytest.mark.parametrize("factor", [2, 3])
def test_a_clip_of_the_user_gets_frames_in_between(filler, factor, tmp_path):
    frames = torch.rand(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    clip = interpolate_clip(filler, frames, factor, RED, fps=4, **QUIET)
    assert clip.frames.shape == (1, 3, 1 + 3 * factor, 16, 16)
    assert clip.fps == 4 * factor
    torch.testing.assert_close(clip.frames[0, :, ::factor], frames, atol=1e-6, rtol=0)
    levels = (255 * frames).round().to(torch.uint8).movedim(0, -1)
    path = write_video(levels, tmp_path / "clip.npz", 4.0)
    again = interpolate_clip(filler, path, factor, RED, **QUIET)
    assert (again.frames - clip.frames).abs().mean() < 0.05
    assert again.fps == 4 * factor


def test_without_an_autoencoder_the_frames_themselves_are_the_keyframes():
    video = torch.rand(1, 3, 9, 16, 16, generator=torch.Generator().manual_seed(0))
    perfect = oracle(2 * video - 1, autoencoder=None)
    made = interpolate_clip(perfect, video[:, :, ::4], 4, **QUIET)
    torch.testing.assert_close(made.frames, video, atol=1e-5, rtol=0)


# Scores


def test_frames_count_where_no_given_latent_covers_them():
    assert np.flatnonzero(~covered_frames(TimeGrid(16, stride=4), 2)).tolist() == [
        *range(1, 5),
        *range(9, 13),
    ]
    assert np.flatnonzero(covered_frames(TimeGrid(7, stride=1), 3)).tolist() == [0, 3, 6]


class Clips:
    """Three clips of a source that is not the world."""

    def __len__(self):
        return 3

    def describe(self):
        return {"clips": "noise"}

    def clip(self, index):
        return np.stack([smooth_noise(9 * index + k, 16, 16) for k in range(9)]), RED


def test_scores_say_how_many_clips_and_how_sure(filler):
    asked = {"source": Clips(), "num_resamples": 50, "steps": 1}
    scores = interpolation_scores(filler, 2, n=3, batch_size=2, **asked)
    rules = {"hold", "linear", "flow_warp"}
    assert set(scores) == {"interpolated", "decoded", *rules, *(f"{r}, decoded" for r in rules)}
    for rows in scores.values():
        for metric in ("psnr", "ssim"):
            low, high = rows[metric].interval
            assert low <= rows[metric].value <= high
            assert rows[metric].n_gen == 3
            assert "clips:stride2" in rows[metric].protocol
    again = interpolation_scores(filler, 2, n=3, batch_size=3, **asked)
    alone = interpolation_scores(filler, 2, n=3, batch_size=3, beside_rules=False, **asked)
    assert alone == {name: again[name] for name in ("interpolated", "decoded")}
    assert again["interpolated"]["psnr"].value == pytest.approx(
        scores["interpolated"]["psnr"].value, abs=1e-3
    )
    assert again["linear"] == scores["linear"]
    assert scores["linear, decoded"]["psnr"] < scores["linear"]["psnr"]


def test_a_perfect_interpolator_reaches_the_ceiling():
    clip, _ = Clips().clip(0)
    video = torch.from_numpy(clip).movedim(-1, 0)[None] / 127.5 - 1
    perfect = oracle(None)
    perfect.network.x0 = perfect.autoencoder.encode(video)
    one = {"n": 1, "source": Clips(), "num_resamples": 5, "prompts": False}
    scores = interpolation_scores(perfect, 2, **one)
    gap = scores["interpolated"]["psnr"] - scores["decoded"]["psnr"]
    assert math.isclose(gap, 0, abs_tol=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: interpolate(g, keyframes(2), 2, RED), "got 2 keyframes, expected 3"),
        (lambda g: interpolate(g, keyframes(3), 2, factors=(3,)), "whose product is 2"),
        (lambda g: interpolate(g, keyframes(3), 2, [RED] * 2, seed=[1, 2, 3]), "expected 1 or 3"),
        (lambda g: place_keyframes(keyframes(1), 0, 5), "got stride=0"),
        (lambda g: interpolate_clip(g, torch.rand(3, 4, 16, 16), 1), "got factor=1 and 4 frames"),
        (lambda g: interpolate_clip(g, torch.rand(3, 1, 16, 16), 2), "got factor=2 and 1 frames"),
        (lambda g: interpolation_scores(g, 1, source=Clips(), n=1), "gives all 9 frames"),
        (lambda g: interpolation_scores(g, 2, source=Clips(), n=4), "got n=4"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(filler, call, message):
    with pytest.raises(ValueError, match=message):
        call(filler)
