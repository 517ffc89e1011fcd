"""How close the U-Nets of diffusers' video pipelines are to diffusers, alone and as models."""

import diffusers
import torch
from einops import rearrange, repeat
from torchvision.transforms.functional import to_pil_image

from tests.pretrained import tiny_models
from tests.pretrained.parity_common import B, image_vae_pairs, load_saved, quietly
from vdm.types import Conditioning

T, STEPS = 3, 2
SIZE = (7, 10)  # of latents; those of frames are even
PROMPTS, NEGATIVE = ["a cat", "dogs run"], "rain"
REFERENCE = "diffusers"
SYSTEMS = {
    "Stable Video Diffusion": tiny_models.svd,
    "ModelScope text-to-video": tiny_models.modelscope,
    "AnimateDiff": tiny_models.animatediff,
    "AnimateLCM": tiny_models.animatelcm,
    "AnimateDiff with SparseCtrl": tiny_models.sparsectrl,
    "AnimateDiff SDXL": tiny_models.animatediff_xl,
    "PIA": tiny_models.pia,
}
"""What makes a small reference."""


def pairs(system):
    """What both make, part by part.

    Args:
        system: One of ``SYSTEMS``.
    """
    theirs = SYSTEMS[system]()
    ours = load_saved(theirs)
    found = {
        "network": [_network(system, ours, theirs, SIZE)],
        "autoencoder": image_vae_pairs(ours, theirs, T),
        "frames": [_frames(system, ours, theirs)],
    }
    if system in ("AnimateDiff", "AnimateLCM"):
        found["frames"].append(_changed_frames(ours, theirs))
    return found


def _network(system, ours, theirs, size):
    x, text = torch.randn(B, 4, T, *size), torch.randn(B, 5, 16)
    if system == "Stable Video Diffusion":
        given, image = torch.randn(B, 4, T, *size), text[:, :1]
        level, ids = torch.tensor([1.63, -0.4]), torch.tensor([[6.0, 127.0, 0.02], [11, 60, 0.1]])
        both = rearrange(torch.cat((x, given), dim=1), "b c t h w -> b t c h w")
        expected = theirs.unet(both, level, image, ids).sample.transpose(1, 2)
        numbers = dict(zip(("fps", "motion_bucket", "noise_aug"), ids.unbind(1), strict=True))
        return ours.network(x, level, Conditioning(image=image, given=given, **numbers)), expected
    steps = torch.tensor([981.0, 41.0])
    each = repeat(text, "b n d -> (b t) n d", t=T) if system.startswith("Animate") else text
    if system == "AnimateDiff SDXL":
        text, pooled = torch.randn(B, 5, 36), torch.randn(B, 12)
        side = torch.tensor([[24.0, 40.0], [32.0, 16.0]])
        told = torch.cat((side, torch.zeros(B, 2), side), dim=1)
        added = {"text_embeds": pooled, "time_ids": told}
        each = repeat(text, "b n d -> (b t) n d", t=T)
        expected = theirs.unet(x, steps, each, added_cond_kwargs=added).sample
        cond = Conditioning(text=text, pooled_text=pooled, size=side)
        return ours.network(x, steps, cond), expected
    if system == "AnimateDiff with SparseCtrl":
        mask = torch.zeros(B, 1, T, *size)
        mask[:, :, 1] = 1.0
        given = mask * torch.randn(B, 4, T, *size)
        down, middle = theirs.controlnet(
            x, steps, each, given, conditioning_mask=mask, return_dict=False
        )
        added = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        cond = Conditioning(text=text, given=given, given_mask=mask)
        return ours.network(x, steps, cond), theirs.unet(x, steps, each, **added).sample
    if system == "PIA":
        each = repeat(text, "b n d -> (b t) n d", t=T)
        given, mask = torch.randn(B, 4, T, *size), torch.rand(B, 1, T, *size)
        expected = theirs.unet(torch.cat((x, mask, given), dim=1), steps, each).sample
        cond = Conditioning(text=text, given=given, given_mask=mask)
        return ours.network(x, steps, cond), expected
    expected = theirs.unet(x, steps, each).sample
    return ours.network(x, steps, Conditioning(text=text)), expected


def _frames(system, ours, theirs):
    """Of whole clips, guidance on, from the same noise."""
    theirs.set_progress_bar_config(disable=True)
    height, width = (16, 24) if system == "Stable Video Diffusion" else (24, 40)
    common = {"num_frames": T, "height": height, "width": width}
    side = ours.autoencoder.strides[1]
    noise = torch.randn(B, 4, T, height // side, width // side)
    # From noise of scale 700 two steps keep what rounding adds to it; the third wipes it out.
    steps = STEPS + (system == "Stable Video Diffusion")
    told = {**common, "noise": noise, "steps": steps}
    asked = {**common, "num_inference_steps": steps, "output_type": "pt"}
    if system == "Stable Video Diffusion":
        pictures = [to_pil_image(picture) for picture in torch.rand(B, 3, 30, 50)]
        asked |= {"fps": 7, "motion_bucket_id": 100, "noise_aug_strength": 0.0}
        told |= {"fps": 7, "motion_bucket": 100, "noise_aug": 0.0}
        made = theirs(pictures, **asked, latents=noise.transpose(1, 2))
        clip = quietly(ours, image=pictures, guidance_scale=(1.0, 3.0), **told)
    else:
        negative = {"negative_prompt": [NEGATIVE] * B, "guidance_scale": 3.0}
        seeds = [11, 5]  # of noise that samplers add
        if system == "AnimateDiff with SparseCtrl":
            keys = torch.rand(3, 2, height, width)
            pictures = [to_pil_image(key) for key in keys.transpose(0, 1)]
            asked |= {"conditioning_frames": pictures, "controlnet_frame_indices": [0, 2]}
            told |= {"video": (keys * 255).floor() / 255, "mask": [1, 0, 1]}
        if system == "PIA":
            pictures = [to_pil_image(picture) for picture in torch.rand(B, 3, height, width)]
            asked |= {"image": pictures, "motion_scale": 4}
            told |= {"image": pictures, "motion_bucket": 4}
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        made = theirs(prompt=PROMPTS, **negative, **asked, latents=noise, generator=draws)
        clip = quietly(ours, PROMPTS, **negative, **told, seed=seeds)
    return clip.frames, made.frames.transpose(1, 2)


def _changed_frames(ours, theirs):
    """Of clips that are made from others, what is drawn included; the first step is left out."""
    names = ("vae", "text_encoder", "tokenizer", "unet", "motion_adapter", "scheduler")
    parts = {name: getattr(theirs, name) for name in names}
    change = diffusers.AnimateDiffVideoToVideoPipeline(**parts)
    change.set_progress_bar_config(disable=True)
    video, seeds = torch.rand(B, 3, T, 24, 40), [11, 5]
    common = {"negative_prompt": [NEGATIVE] * B, "guidance_scale": 3.0, "strength": 0.7}
    made = change(
        [[to_pil_image(frame) for frame in clip.transpose(0, 1)] for clip in video],
        PROMPTS,
        **common,
        height=24,
        width=40,
        num_inference_steps=STEPS + 1,
        output_type="pt",
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )
    video = (video * 255).floor() / 255  # as pictures hold them
    told = {"height": 24, "width": 40, "steps": STEPS + 1, "seed": seeds}
    clip = quietly(ours, PROMPTS, video=video, **common, **told)
    return clip.frames, made.frames.transpose(1, 2)
