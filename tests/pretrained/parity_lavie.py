"""How close LaVie's models are to its authors' code, written down plainly on diffusers' parts."""

import tempfile
import warnings
from functools import cache
from pathlib import Path

import torch

import vdm
from tests.pretrained.lavie_release import Release
from tests.pretrained.parity_common import image_vae_pairs
from vdm.types import Conditioning
from vdm.utils.rng import SampleNoise, derive_seed

SYSTEMS = {
    "LaVie": "lavie_base.pt",
    "LaVie interpolation": "lavie_interpolation.pt",
    "LaVie super-resolution": "lavie_vsr.pt",
}
REFERENCE = "LaVie's code, rewritten on diffusers"
B, T, STEPS = 2, 5, 2
SIZE = (7, 10)
PROMPTS, NEGATIVES, SEEDS = ["a cat", "dogs run"], ["rain", "rain"], [11, 5]


def pairs(system):
    """What both make, part by part.

    Args:
        system: One of ``SYSTEMS``.
    """
    release = _release()
    with tempfile.TemporaryDirectory() as folder:
        release.save_pretrained(Path(folder))
        ours = vdm.load(Path(folder) / SYSTEMS[system])
    theirs = release.upscaler if system == "LaVie super-resolution" else release.image_model
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was not trained on such small clips
        frames = FRAMES[system](ours, release)
    return {
        "network": [_network(system, ours, release, SIZE)],
        "autoencoder": image_vae_pairs(ours, theirs),
        "frames": [frames],
    }


@cache
def _release():
    return Release()


def _network(system, ours, release, size):
    x, steps = torch.randn(B, 4, T, *size), torch.tensor([981.0, 41.0])
    text = torch.randn(B, 6, 16)
    if system == "LaVie":
        return ours.network(x, steps, Conditioning(text=text)), release.base.on_clip(x, steps, text)
    if system == "LaVie interpolation":
        given = torch.randn(B, 4, T, *size)
        both = torch.cat((x, given), dim=1)
        expected = release.interpolation.on_clip(both, steps, text)
        return ours.network(x, steps, Conditioning(text=text, given=given)), expected
    low, level = torch.randn(B, 3, T, *size), torch.tensor([50, 3])
    expected = release.vsr.on_clip(x, low, steps, text, level)
    cond = Conditioning(text=text, given=low, noise_aug=level.float())
    return ours.network(x, steps, cond), expected


def _base_frames(ours, release):
    noise = torch.randn(B, 4, T, 5, 6)
    latents = release.text_to_latents(PROMPTS, NEGATIVES, noise, STEPS, 7.0, SEEDS)
    clip = ours(
        PROMPTS, negative_prompt=NEGATIVES, num_frames=T, height=20, width=24, steps=STEPS,
        noise=noise, seed=SEEDS, progress=False,
    )  # fmt: skip
    return clip.frames, release.decode(latents, release.image_model)


def _frames_between(ours, release):
    keyframes, noise = torch.randn(B, 4, 3, 5, 6), torch.randn(B, 4, 9, 5, 6)
    latents = release.interpolate(PROMPTS, keyframes, noise, STEPS, 4.0)
    clip = ours(
        PROMPTS, cond=told_of(keyframes), num_frames=9, height=20, width=24, steps=STEPS,
        noise=noise, progress=False,
    )  # fmt: skip
    return clip.frames, release.decode(latents, release.image_model)


def _larger_frames(ours, release):
    """Of a clip in two pieces."""
    video, noise = torch.rand(B, 3, 11, 5, 6), torch.randn(B, 4, 11, 5, 6)
    pieces = []
    for start, stop in ((0, 8), (8, 11)):
        draws = SampleNoise([derive_seed(seed, "noise_aug", start) for seed in SEEDS])
        piece, x = 2 * video[:, :, start:stop] - 1, noise[:, :, start:stop]
        eps = draws.draw(piece.shape[1:])
        pieces.append(release.enlarge(PROMPTS, piece, eps, x, STEPS, 5.0))
    clip = ours(PROMPTS, video=video, steps=STEPS, noise=noise, seed=SEEDS, progress=False)
    return clip.frames, release.decode(torch.cat(pieces, dim=2), release.upscaler)


FRAMES = dict(zip(SYSTEMS, (_base_frames, _frames_between, _larger_frames), strict=True))


def told_of(keyframes, stride=4):
    """Keyframes as a user hands them in: at their places, and where these are."""
    b, c, count, h, w = keyframes.shape
    given = torch.zeros(b, c, (count - 1) * stride + 1, h, w)
    mask = torch.zeros(b, 1, *given.shape[2:])
    given[:, :, ::stride], mask[:, :, ::stride] = keyframes, 1
    return {"given": given, "given_mask": mask}
