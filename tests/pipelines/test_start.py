"""Clips that start from another one: how much of it is left, and what is refused."""

import pytest
import torch
from tiny_model import make_parts

from vdm.diffusion import samplers
from vdm.pipelines import Cascade, Generator
from vdm.pipelines.cascade import MakeKeyframes
from vdm.pipelines.start import first_step

RED = "a red circle moves left"
ASK = {"seed": 3, "output": "latents", "progress": False}


def movie(frames=5, seed=0, batch=()):
    return torch.rand(*batch, 3, frames, 16, 24, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("strength", "steps", "first"), [(1.0, 5, 0), (0.8, 5, 1), (0.58, 50, 22), (0.2, 5, 4)]
)
def test_the_share_of_steps_is_rounded_down(strength, steps, first):
    assert first_step(strength, steps) == first


def test_what_is_handed_to_the_sampler_is_the_clip_with_the_noise_of_its_first_step(
    generate, monkeypatch
):
    told = {}

    def only_look(denoise, schedule, x, times, *, noise=None, callback=None):
        told["times"] = times
        return x

    monkeypatch.setattr(samplers, "euler", only_look)
    x = generate(RED, video=movie(), strength=0.4, steps=10, **ASK)
    assert torch.allclose(told["times"], torch.linspace(0.4, 0, 5, dtype=torch.float64))
    draw = torch.Generator().manual_seed(ASK["seed"])
    latents = generate.autoencoder.encode(2 * movie()[None] - 1, sample=True, generator=draw)
    eps = torch.randn(3, 3, 4, 6, generator=draw).transpose(0, 1)
    assert torch.allclose(x, 0.6 * latents + 0.4 * eps, atol=1e-6)


def test_full_strength_starts_from_noise_alone_where_that_is_the_end_of_the_schedule(generate):
    noise = torch.randn(1, 3, 3, 4, 6)
    one = generate(RED, video=movie(), strength=1.0, noise=noise, **ASK)
    assert torch.allclose(one, generate(RED, noise=noise, **ASK), atol=1e-6)


def test_noise_and_seed_make_a_difference_and_samples_are_alone_what_they_are_together(generate):
    half = {"strength": 0.7, "steps": 3, **ASK}
    clips = movie(batch=(2,))
    both = generate([RED, RED], video=clips, **half)
    alone = generate(RED, video=clips[1], **half | {"seed": 4})
    assert torch.allclose(both[1:], alone, atol=1e-5)
    assert not torch.allclose(both[:1], alone, atol=1e-2)
    noise = torch.randn(1, 3, 3, 4, 6)
    told = generate(RED, video=clips[1], noise=noise, **half)
    assert not torch.allclose(told, alone, atol=1e-2)


def test_the_clip_says_how_long_it_is_and_what_stays(generate):
    mask = torch.tensor([1.0, 0, 0])
    latents = generate(RED, video=movie(3), mask=mask, strength=0.7, **ASK)
    assert latents.shape[2] == 2
    expected = generate.autoencoder.encode(2 * movie(3)[None, :, :1] - 1)
    assert torch.allclose(latents[:, :, :1], expected, atol=1e-5)
    picture = generate(RED, image=movie(1, 7)[:, 0], video=movie(3), strength=0.7, **ASK)
    expected = generate.autoencoder.encode(2 * movie(1, 7)[None] - 1)
    assert torch.allclose(picture[:, :, :1], expected, atol=1e-5)


def test_a_model_of_pixels_starts_from_pixels():
    parts = make_parts()
    pixels = Generator(make_parts(autoencoder=None, defaults=parts.defaults))
    ask = {"height": 8, "width": 12, "strength": 0.4, **ASK}
    clip = torch.rand(3, 5, 8, 12)
    made = pixels(RED, video=clip, **ask)
    assert made.shape == (1, 3, 5, 8, 12)
    assert not torch.allclose(made, pixels(RED, video=1 - clip, **ask), atol=1e-2)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"strength": 0.5}, "got strength without video, expected both"),
        ({"strength": 0.0, "video": movie()}, "got strength=0, expected more than 0 and at most 1"),
        ({"strength": 1.5, "video": movie()}, "got strength=1.5, expected more than 0"),
        (
            {"strength": 0.2, "steps": 3, "video": movie()},
            "got strength=0.2 of 3 steps, which leaves none, expected at least 0.333",
        ),
        (
            {"strength": 0.5, "video": movie(3), "num_frames": 5},
            "got a video of 3 frames to start from and num_frames=5, expected the same",
        ),
        ({"strength": 0.5, "video": movie(batch=(3,)), "seed": [1, 2]}, "got 2 for seed"),
    ],
)
def test_what_cannot_be_started_from_is_refused(generate, asked, message):
    with pytest.raises(ValueError, match=message):
        generate(RED, **ASK | asked)


def test_a_cascade_starts_from_noise(generate):
    cascade = Cascade([MakeKeyframes(generate)])
    with pytest.raises(ValueError, match="got strength for a cascade, expected None"):
        cascade(RED, video=movie(), strength=0.5)
