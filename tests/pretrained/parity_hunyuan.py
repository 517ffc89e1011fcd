"""How close HunyuanVideo's models are to their reference, part by part and as a whole."""

import torch
from torchvision.transforms.functional import to_pil_image

from tests.pretrained.parity_common import B, load_saved, quietly
from tests.pretrained.tiny_dit import call_hunyuan, hunyuan_pipeline, see_little, told_hunyuan

STEPS = 2
PROMPTS, SEEDS = ["a cat runs", "the dogs"], [11, 5]
SYSTEMS = {
    "HunyuanVideo": "t2v",
    "HunyuanVideo-I2V": "i2v-replace",
    "HunyuanVideo-I2V-33ch": "i2v-concat",
}
REFERENCE = "diffusers"
SIZE = {"height": 32, "width": 48}


def pairs(system):
    """What both make, part by part."""
    kind = SYSTEMS[system]
    theirs = hunyuan_pipeline(kind)
    ours = load_saved(theirs)
    theirs.set_progress_bar_config(disable=True)
    if kind == "t2v":
        frames = [_frames(ours, theirs, num_frames) for num_frames in (5, 21)]
    else:
        frames = [_moved(ours, theirs, 4 if kind == "i2v-concat" else 0)]
    return {
        "network": [_network(kind, ours, theirs, num_frames) for num_frames in (1, 4)],
        "autoencoder": [_encoder(ours, theirs), _decoder(ours, theirs)],
        "frames": frames,
    }


def _network(kind, ours, theirs, num_frames):
    x, steps = torch.randn(B, 4, num_frames, 6, 10), torch.tensor([999.0, 137.0])
    cond = told_hunyuan(kind, x.shape)
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


def _moved(ours, theirs, surplus):
    """Of whole clips that move from pictures; there are more frames of some, which are left out."""
    draws = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    pictures = [to_pil_image(picture) for picture in torch.rand(B, 3, 30, 50)]
    made = theirs(
        pictures,
        PROMPTS,
        num_inference_steps=STEPS,
        num_frames=9 + surplus,
        guidance_scale=3.0,
        generator=draws,
        output_type="pt",
        prompt_template=see_little(),
        **SIZE,
    )
    scale = 1.0 if surplus else 3.0  # which one kind is not told
    asked = {"image": pictures, "num_frames": 9, "guidance_scale": scale, **SIZE}
    clip = quietly(ours, PROMPTS, steps=STEPS, seed=SEEDS, **asked)
    return clip.frames, made.frames.transpose(1, 2)
