"""How close HunyuanVideo is to its reference, part by part and as a whole."""

import torch

from tests.pretrained.parity_common import B, load_saved, quietly
from tests.pretrained.tiny_dit import call_hunyuan, hunyuan_pipeline, told_hunyuan

STEPS = 5
PROMPTS, SEEDS = ["a cat runs", "the dogs"], [11, 5]
SYSTEMS = ("HunyuanVideo",)
REFERENCE = "diffusers"
SIZE = {"height": 32, "width": 48}


def pairs(system):
    """What both make, part by part."""
    theirs = hunyuan_pipeline()
    ours = load_saved(theirs)
    theirs.set_progress_bar_config(disable=True)
    return {
        "network": [_network(ours, theirs, num_frames) for num_frames in (1, 4)],
        "autoencoder": [_encoder(ours, theirs), _decoder(ours, theirs)],
        "frames": [_frames(ours, theirs, num_frames) for num_frames in (5, 21)],
    }


def _network(ours, theirs, num_frames):
    x, steps = torch.randn(B, 4, num_frames, 6, 10), torch.tensor([999.0, 137.0])
    cond = told_hunyuan("t2v", x.shape)
    return ours.network(x, steps, cond), call_hunyuan(theirs.transformer, x, steps, cond)


def _encoder(ours, theirs):
    video = 2 * torch.rand(B, 3, 21, 32, 16) - 1
    expected = theirs.vae.encode(video).latent_dist.mean
    return ours.autoencoder.encode_moments(video)[0], expected


def _decoder(ours, theirs):
    latents = torch.randn(B, 4, 8, 4, 2)
    expected = theirs.vae.decode(latents / theirs.vae.config.scaling_factor).sample
    return ours.autoencoder.decode(latents), expected


def _frames(ours, theirs, num_frames):
    """Of whole clips, from the same seeds; those of 21 frames in windows."""
    common = SIZE | {"num_frames": num_frames, "guidance_scale": 3.0}
    draws = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    made = theirs(
        prompt=PROMPTS, num_inference_steps=STEPS, generator=draws, output_type="pt", **common
    )
    clip = quietly(ours, PROMPTS, steps=STEPS, seed=SEEDS, **common)
    return clip.frames, made.frames.transpose(1, 2)
