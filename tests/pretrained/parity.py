"""How close models are to their references, part by part and as a whole."""

import tempfile
import warnings
from pathlib import Path

import diffusers
import torch
from einops import rearrange, repeat
from torchvision.transforms.functional import to_pil_image

import vdm
from tests.models.unet3d_oracles import relative_error
from tests.pretrained import parity_lavie, tiny_models
from tests.pretrained import parity_dit, tiny_models
from vdm.types import Conditioning

B, T, STEPS = 2, 3, 5
SIZES = ((8, 12), (7, 10))  # of latents; the second is odd
PROMPTS, NEGATIVE = ["a cat", "dogs run"], "rain"
TO_FRAMES = "b c t h w -> (b t) c h w"

SYSTEMS = {
    "Stable Video Diffusion": tiny_models.svd,
    "ModelScope text-to-video": tiny_models.modelscope,
    "AnimateDiff": tiny_models.animatediff,
    "AnimateLCM": tiny_models.animatelcm,
} | dict.fromkeys(parity_lavie.FILES)
"""What makes a small reference; None where it is another module's matter."""
REFERENCES = dict.fromkeys(parity_lavie.FILES, parity_lavie.REFERENCE)
"""Where it is not diffusers alone."""
    **parity_dit.SYSTEMS,
}


@torch.no_grad()
def measure(system):
    """Largest absolute and relative L2 difference of every part, and of the frames.

    Args:
        system: One of ``SYSTEMS``.
    """
    if system in parity_lavie.FILES:
        ours, theirs, found = parity_lavie.pairs(system)
        found["autoencoder"] = [_encoder(ours, theirs), _decoder(ours, theirs)]
        return {part: _worst(found[part]) for part in ("network", "autoencoder", "frames")}
    theirs = SYSTEMS[system]()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / "model")
        ours = vdm.load(Path(folder) / "model")
    torch.manual_seed(1)
    if system in parity_dit.SYSTEMS:
        found = parity_dit.measure_parts(system, ours, theirs)
        return {part: _worst(pairs) for part, pairs in found.items()}
    found = {
        "network": [_network(system, ours, theirs, size) for size in SIZES],
        "autoencoder": [_encoder(ours, theirs), _decoder(ours, theirs)],
        "frames": [_frames(system, ours, theirs)],
    }
    if system.startswith("Animate"):
        found["frames"].append(_changed_frames(ours, theirs))
    return {part: _worst(pairs) for part, pairs in found.items()}


def _worst(pairs):
    differences = [float((one - other).abs().max()) for one, other in pairs]
    errors = [relative_error(one, other) for one, other in pairs]
    return {"max_abs": max(differences), "max_rel": max(errors)}


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
    expected = theirs.unet(x, steps, each).sample
    return ours.network(x, steps, Conditioning(text=text)), expected


def _encoder(ours, theirs):
    side = ours.autoencoder.strides[1]
    video = 2 * torch.rand(B, 3, T, 5 * side, 6 * side) - 1
    expected = theirs.vae.encode(rearrange(video, TO_FRAMES)).latent_dist.mean
    return rearrange(ours.autoencoder.encode_moments(video)[0], TO_FRAMES), expected


def _decoder(ours, theirs):
    raw = torch.randn(B, 4, T, 5, 6)
    more = {"num_frames": T} if ours.autoencoder.is_temporal else {}
    expected = theirs.vae.decode(rearrange(raw, TO_FRAMES), **more).sample
    return rearrange(ours.autoencoder.decode_raw(raw), TO_FRAMES), expected


def _frames(system, ours, theirs):
    """Of whole clips, guidance on, from the same noise."""
    theirs.set_progress_bar_config(disable=True)
    height, width = 24, 40
    common = {"num_frames": T, "height": height, "width": width}
    side = ours.autoencoder.strides[1]
    noise = torch.randn(B, 4, T, height // side, width // side)
    told = {**common, "noise": noise, "steps": STEPS, "progress": False}
    asked = {**common, "num_inference_steps": STEPS, "output_type": "pt"}
    if system == "Stable Video Diffusion":
        pictures = [to_pil_image(picture) for picture in torch.rand(B, 3, 30, 50)]
        asked |= {"fps": 7, "motion_bucket_id": 100, "noise_aug_strength": 0.0}
        told |= {"fps": 7, "motion_bucket": 100, "noise_aug": 0.0}
        made = theirs(pictures, **asked, latents=noise.transpose(1, 2))
        clip = _quietly(ours, image=pictures, guidance_scale=(1.0, 3.0), **told)
    else:
        negative = {"negative_prompt": [NEGATIVE] * B, "guidance_scale": 3.0}
        seeds = [11, 5]  # of noise that samplers add
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        made = theirs(PROMPTS, **negative, **asked, latents=noise, generator=draws)
        clip = _quietly(ours, PROMPTS, **negative, **told, seed=seeds)
    return clip.frames, made.frames.transpose(1, 2)


def _changed_frames(ours, theirs):
    """Of clips that are made from others, what is drawn included."""
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
        num_inference_steps=STEPS,
        output_type="pt",
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )
    video = (video * 255).floor() / 255  # as pictures hold them
    told = {"height": 24, "width": 40, "steps": STEPS, "seed": seeds, "progress": False}
    clip = _quietly(ours, PROMPTS, video=video, **common, **told)
    return clip.frames, made.frames.transpose(1, 2)


def _quietly(generate, *arguments, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was not trained on such small clips
        return generate(*arguments, **settings)
