"""How close transformers are to their references, part by part and as a whole."""

from functools import partial

import torch
from diffusers import LTXImageToVideoPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from torchvision.transforms.functional import to_pil_image

from tests.pretrained.parity_common import B, image_vae_pairs, load_saved, quietly
from tests.pretrained.tiny_dit import (
    COGVIDEOX_SIZE,
    LATTE_SIZE,
    LTX_CLIP,
    call_cogvideox,
    call_ltx,
    cogvideox_pipeline,
    latte_pipeline,
    ltx_condition_pipeline,
    ltx_pipeline,
)
from vdm.types import Conditioning

STEPS = 3  # the first, one with a past, the last
FEW = 2  # of samplers without a past
PROMPTS, NEGATIVE = ["a cat runs", "the dogs"], "rain"
REFERENCE = "diffusers"
COGVIDEOX = {
    "CogVideoX-2B": "2b",
    "CogVideoX-5B": "5b",
    "CogVideoX-5B-I2V": "5b-i2v",
    "CogVideoX1.5-5B": "1.5",
    "CogVideoX1.5-5B-I2V": "1.5-i2v",
}
LATTE, LTX, LATE_LTX = "Latte-1", "LTX-Video", "LTX-Video-0.9.5"
SYSTEMS = {system: partial(cogvideox_pipeline, kind) for system, kind in COGVIDEOX.items()}
SYSTEMS |= {LATTE: latte_pipeline, LTX: ltx_pipeline, LATE_LTX: ltx_condition_pipeline}


def pairs(system):
    """What both make, part by part.

    Args:
        system: One of ``SYSTEMS``.
    """
    theirs = SYSTEMS[system]()
    ours = load_saved(theirs)
    theirs.set_progress_bar_config(disable=True)
    if system == LATTE:
        return {
            "network": [_latte_network(ours, theirs, size) for size in ((8, 8), (6, 10))],
            "autoencoder": image_vae_pairs(ours, theirs, 5),
            "frames": [_latte_frames(ours, theirs)],
        }
    if system == LTX:
        told = ltx_pipeline(is_told=True)
        told.set_progress_bar_config(disable=True)
        both = [(ours, theirs), (load_saved(told), told)]
        return {
            "network": [_ltx_network(ours, theirs, fps) for fps in (25.0, 8.0)],
            "autoencoder": [pair for models in both for pair in _ltx_autoencoder(*models)],
            "frames": [*(_ltx_frames(*models) for models in both), _ltx_frames(*both[0], True)],
        }
    if system == LATE_LTX:
        return {
            "network": [_ltx_network(ours, theirs, fps, is_late=True) for fps in (25.0, 8.0)],
            "autoencoder": _ltx_autoencoder(ours, theirs),
            "frames": [_ltx_frames(ours, theirs), _ltx_frames(ours, theirs, ends=True)],
        }
    kind = COGVIDEOX[system]
    return {
        "network": [_network(kind, ours, theirs, num_frames) for num_frames in (3, 4)],
        "autoencoder": [_encoder(ours, theirs), _decoder(ours, theirs)],
        "frames": [_frames(kind, ours, theirs)],
    }


def _latte_network(ours, theirs, size):
    x, text, steps = torch.randn(B, 4, 5, *size), torch.randn(B, 7, 14), torch.tensor([981.0, 41.0])
    expected = theirs.transformer(x, steps, text).sample[:, :4]
    return ours.network(x, steps, Conditioning(text=text)), expected


def _latte_frames(ours, theirs):
    """Of whole clips, one prompt after the other there."""
    height, width = LATTE_SIZE
    common = {"height": height, "width": width, "guidance_scale": 3.0}
    seeds = [11, 5]
    made = [
        theirs(
            prompt,
            negative_prompt=NEGATIVE,
            video_length=5,
            num_inference_steps=FEW,
            generator=torch.Generator().manual_seed(seed),
            clean_caption=False,
            output_type="pt",
            **common,
        ).frames
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    clip = _quietly(ours, FEW, num_frames=5, seed=seeds, **common)
    return clip.frames, torch.cat(made).transpose(1, 2)


def _ltx_network(ours, theirs, fps, is_late=False):
    """Of texts of several lengths, and a first frame without noise."""
    x, text, mask = torch.randn(B, 6, 3, 4, 5), torch.randn(B, 7, 14), torch.ones(B, 7)
    mask[1, 4:] = 0
    levels, rates = torch.tensor([[0.0, 981.0, 981.0], [0.0, 41.0, 41.0]]), torch.full((B,), fps)
    expected = call_ltx(theirs.transformer, x, levels, text, mask, rates, is_late)
    return ours.network(x, levels, Conditioning(text=text, text_mask=mask, fps=rates)), expected


def _ltx_autoencoder(ours, theirs):
    """Moments of a clip, and frames of latents."""
    video = 2 * torch.rand(B, 3, 17, 64, 96) - 1
    posterior, found = theirs.vae.encode(video).latent_dist, ours.autoencoder.encode_moments(video)
    raw, time = torch.randn(B, 6, 3, 2, 3), torch.full((B,), 0.05)
    told = (time,) if theirs.vae.config.timestep_conditioning else ()
    decoded = ours.autoencoder.decode(ours.autoencoder.scale.normalize(raw))
    return [
        (found[0], posterior.mean),
        (found[1], posterior.logvar),
        (decoded, theirs.vae.decode(raw, *told).sample),
    ]


def _ltx_frames(ours, theirs, moves=False, ends=False):
    """Of whole clips, guidance on, from the same seeds; of words and one or two pictures too."""
    common, told, given = {"guidance_scale": 3.0, **LTX_CLIP}, {}, {}
    if moves:
        common["image"] = [to_pil_image(picture) for picture in torch.rand(B, 3, 30, 50)]
        theirs = LTXImageToVideoPipeline(**theirs.components)
        theirs.set_progress_bar_config(disable=True)
    if ends:
        first, last = ([to_pil_image(one) for one in torch.rand(B, 3, 30, 50)] for _ in range(2))
        given, behind = {"image": first, "last_image": last}, LTX_CLIP["num_frames"] - 1
        told["conditions"] = [LTXVideoCondition(first), LTXVideoCondition(last, frame_index=behind)]
    if theirs.vae.config.timestep_conditioning:
        told |= {"decode_timestep": 0.05, "decode_noise_scale": 0.025}
    seeds = [11, 5]
    made = theirs(
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * B,
        num_inference_steps=FEW,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="pt",
        **common,
        **told,
    )
    clip = _quietly(ours, FEW, seed=seeds, **common, **given)
    return clip.frames, made.frames.transpose(1, 2)


def _quietly(generate, steps=STEPS, **asked):
    return quietly(generate, PROMPTS, negative_prompt=[NEGATIVE] * B, steps=steps, **asked)


def _network(kind, ours, theirs, num_frames):
    height, width = (side // 8 for side in COGVIDEOX_SIZE)  # learned positions are of one size
    shape = (B, 4, num_frames * ours.network.patch_size[0], height, width)
    x, text, steps = torch.randn(shape), torch.randn(B, 226, 14), torch.tensor([999.0, 137.0])
    given = torch.randn(shape) if kind.endswith("i2v") else None
    expected = call_cogvideox(theirs.transformer, x, steps, text, given)
    return ours.network(x, steps, Conditioning(text=text, given=given)), expected


def _encoder(ours, theirs):
    video = 2 * torch.rand(B, 3, 13, 40, 24) - 1
    expected = theirs.vae.encode(video).latent_dist.mean
    return ours.autoencoder.encode_moments(video)[0], expected


def _decoder(ours, theirs):
    latents = torch.randn(B, 4, 4, 5, 3)
    expected = theirs.vae.decode(latents / theirs.vae.config.scaling_factor).sample
    return ours.autoencoder.decode(latents), expected


def _frames(kind, ours, theirs):
    """Of whole clips, guidance on, from the same seeds."""
    height, width = COGVIDEOX_SIZE
    pictures = [to_pil_image(picture) for picture in torch.rand(B, 3, 30, 50)]
    common = {"height": height, "width": width, "num_frames": 9, "guidance_scale": 3.0}
    common |= {"image": pictures} if kind.endswith("i2v") else {}
    seeds = [11, 5]
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    made = theirs(
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * B,
        num_inference_steps=STEPS,
        generator=draws,
        output_type="pt",
        **common,
    )
    clip = _quietly(ours, seed=seeds, **common)
    return clip.frames, made.frames.transpose(1, 2)
