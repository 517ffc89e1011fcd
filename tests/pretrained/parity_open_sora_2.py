"""How close Open-Sora 2.0 is to FLUX's network in diffusers, and to its authors' sampling loop."""

import tempfile
from pathlib import Path

import torch

import vdm
from tests.pretrained.open_sora_2_release import FACTOR, C, ReleaseV2, small_vae
from tests.pretrained.parity_common import B, quietly
from vdm.types import Conditioning

REFERENCE = "Open-Sora's code, rewritten on diffusers"
SYSTEMS = ("Open-Sora 2.0",)
PROMPTS = ["a cat runs.", "the dogs."]
NUM_FRAMES, HEIGHT, WIDTH = 13, 32, 48


def pairs(system):
    """What both make, part by part."""
    release = ReleaseV2()
    with tempfile.TemporaryDirectory() as folder:
        release.save_pretrained(Path(folder) / "model")
        with small_vae():
            ours = vdm.load(Path(folder) / "model")
    torch.manual_seed(1)
    first, last = torch.rand(2, B, 3, HEIGHT, WIDTH)
    return {
        "network": [_network(ours, release)],
        "autoencoder": [_encoder(ours, release), _decoder(ours, release)],
        "frames": [
            _frames(ours, release, 3),
            _frames(ours, release, 2, image=first),
            _frames(ours, release, 2, image=first, last_image=last),
        ],
    }


def _network(ours, release):
    x, t = torch.randn(B, C, 3, 6, 10), torch.tensor([0.98, 0.137])
    mask = torch.zeros(B, 1, 3, 6, 10)
    mask[0, :, 0] = mask[1, :, 1:] = 1
    given = mask * torch.randn_like(x)
    text, pooled = torch.randn(B, 7, 14), torch.randn(B, 16)
    cond = Conditioning(text=text, pooled_text=pooled, given=given, given_mask=mask)
    return ours.network(x, 1000 * t, cond), release.predict(x, t, text, pooled, mask, given)


def _encoder(ours, release):
    video = 2 * torch.rand(B, 3, 21, 32, 16) - 1
    return ours.autoencoder.encode_moments(video)[0], release.vae.encode(video).latent_dist.mean


def _decoder(ours, release):
    """Of more latent frames than one window of HunyuanVideo has."""
    latents = torch.randn(B, C, 7, 4, 2)
    return ours.autoencoder.decode(latents), release.vae.decode(latents / FACTOR).sample


def _frames(ours, release, steps, **pictures):
    noise, told = torch.randn(B, C, 4, HEIGHT // 8, WIDTH // 8), ()
    if pictures:
        given, mask = torch.zeros_like(noise), torch.zeros_like(noise[:1, :1])
        for name, picture in pictures.items():
            place = {"image": 0, "last_image": -1}[name]
            given[:, :, place] = release.look(picture)[:, :, 0]
            mask[:, :, place] = 1
        told = (given, mask)
    words = [f"{prompt} 24 FPS. 4 motion score." for prompt in PROMPTS]
    latents = release.sample(words, noise, steps, *told)
    asked = {"num_frames": NUM_FRAMES, "height": HEIGHT, "width": WIDTH, "noise": noise}
    return quietly(ours, PROMPTS, steps=steps, **asked, **pictures).frames, release.decode(latents)
