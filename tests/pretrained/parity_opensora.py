"""How close Open-Sora's models are to its authors' code, written down plainly."""

import tempfile
from pathlib import Path

import torch

import vdm
from tests.pretrained.opensora_release import FILE, NETWORK, ReleaseOne, ReleaseTwo
from tests.pretrained.parity_common import B, image_vae_pairs, quietly
from vdm.types import Conditioning

REFERENCE = "Open-Sora's code, rewritten beside diffusers"
PROMPTS, SEEDS, STEPS = ["a cat Runs", "the dogs"], [11, 5], 2
ONE, TWO = "Open-Sora 1.0", "Open-Sora 1.2"
SYSTEMS = (ONE, TWO)


def pairs(system):
    """What both make, part by part.

    Args:
        system: One of ``SYSTEMS``.
    """
    release, name = (ReleaseOne(), FILE) if system == ONE else (ReleaseTwo(), NETWORK)
    with tempfile.TemporaryDirectory() as folder:
        release.save_pretrained(Path(folder))
        ours = vdm.load(Path(folder) / name)
    torch.manual_seed(1)
    if system == ONE:
        ways = ((None, STEPS + 1), (["rain"] * B, STEPS))
        frames = [_frames_of_one(ours, release, *way) for way in ways]
        return {
            "network": [_one(ours, release)],
            "autoencoder": image_vae_pairs(ours, release),
            "frames": frames,
        }
    return {
        "network": [
            _two(ours, release, (6, 8)),
            _two(ours, release, (5, 9)),
            _clean(ours, release),
        ],
        "autoencoder": [_encoder(ours, release), _decoder(ours, release)],
        "frames": [
            _frames_of_two(ours, release),
            _frames_of_two(ours, release, image=torch.rand(B, 3, 10, 12)),
            _frames_of_two(ours, release, 34, video=torch.rand(B, 3, 17, 10, 12)),
        ],
    }


def _words(count):
    """States, and a mask of another number of words for each sample."""
    valid = torch.arange(count) < torch.tensor([[7], [31]])
    return torch.randn(B, count, 14), valid.float()


def _one(ours, release):
    """The prediction, and what is said of the variance."""
    x, steps, (text, mask) = torch.randn(B, 4, 5, 8, 8), torch.tensor([981.0, 41.0]), _words(120)
    cond = Conditioning(text=text, text_mask=mask)
    return ours.network.with_variance(x, steps, cond), release.network(x, steps, text, mask)


def _frames_of_one(ours, release, negatives, steps):
    noise = torch.randn(B, 4, 5, 8, 8)
    latents = release.sample(PROMPTS, negatives, noise, steps, 7.0, SEEDS)
    asked = {"steps": steps, "noise": noise, "seed": SEEDS, "negative_prompt": negatives}
    return quietly(ours, PROMPTS, **asked).frames, release.decode(latents)


def _two(ours, release, size, is_noisy=None):
    """Of latents that fill their patches, or do not."""
    x, steps = torch.randn(B, 4, 5, *size), torch.tensor([981.0, 41.5])
    (text, mask), rates = _words(300), torch.tensor([24.0, 8.0])
    pixels = torch.tensor([[240.0, 426.0]]).expand(B, -1)
    cond = Conditioning(text=text, text_mask=mask, fps=rates, size=pixels)
    levels = steps if is_noisy is None else steps[:, None] * is_noisy
    theirs = release.network(x, steps, text, mask, rates, (240, 426), is_noisy)
    return ours.network.with_variance(x, levels, cond), theirs


def _clean(ours, release):
    """Some frames without noise, other ones of each sample; nobody reads what is said of them."""
    is_noisy = torch.tensor([[False, True, True, True, False], [True, True, False, True, True]])
    one, other = _two(ours, release, (5, 8), is_noisy=is_noisy)
    where = is_noisy[:, None, :, None, None]
    return one * where, other * where


def _encoder(ours, release):
    video = 2 * torch.rand(B, 3, 23, 8, 12) - 1
    return ours.autoencoder.encode_moments(video)[0], release.vae.encode_mean(video)


def _decoder(ours, release):
    """Of a whole piece and a part of one."""
    latents = torch.randn(B, 4, 7, 4, 6)
    return ours.autoencoder.decode(latents, num_frames=22), release.vae.decode(latents, 22)


def _frames_of_two(ours, release, num_frames=17, **given):
    """Of words, of a picture, or of a clip to go on with."""
    noise = torch.randn(B, 4, num_frames // 17 * 5, 5, 6)
    words = [f"{prompt} aesthetic score: 6.5." for prompt in PROMPTS]
    known = [release.given(one if one.ndim == 5 else one[:, :, None]) for one in given.values()]
    asked = (STEPS, 7.0, 24, (10, 12), num_frames, *known)
    latents = release.sample(words, None, noise, *asked)
    asked = {"steps": STEPS, "noise": noise, "num_frames": num_frames, "height": 10, "width": 12}
    frames = quietly(ours, PROMPTS, **asked, **given).frames
    return frames, (release.vae.decode(latents, num_frames) / 2 + 0.5).clamp(0, 1)
