"""Whole models in diffusers' layout make the frames that diffusers makes of them."""

import json

import diffusers
import pytest
import torch

import vdm
from tests.models.unet3d_oracles import reference
from tests.pretrained.test_diffusers_unet import COMMON, TINY
from tests.pretrained.test_diffusers_vae import IMAGE as VAE
from tests.pretrained.tiny_clip import make_text_encoder, make_tokenizer

NUM_FRAMES, SIZE = 3, (24, 40)
PROMPTS, NEGATIVE = ["a cat", "dogs run"], "rain"
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
MODELSCOPE = SD | {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
ANIMATEDIFF = MODELSCOPE | {"beta_schedule": "linear", "timestep_spacing": "linspace"}
ANIMATEDIFF |= {"set_alpha_to_one": True}
MOTION = {
    "block_out_channels": (32, 64),
    "motion_layers_per_block": 1,
    "motion_num_attention_heads": 2,
    "motion_norm_num_groups": 8,
}
ASK = {"num_frames": NUM_FRAMES, "steps": 4, "guidance_scale": 3.0, "progress": False}


def small(cls, **config):
    """A reference of which outputs stay small, as those of trained networks do."""
    return reference(cls, 0.7, **config)


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "words").mkdir()
    tokenizer = make_tokenizer(tmp_path / "words")
    vae = small(diffusers.AutoencoderKL, **VAE | {"latent_channels": 4, "scaling_factor": 0.18215})
    return {"vae": vae, "text_encoder": make_text_encoder(tokenizer), "tokenizer": tokenizer}


def modelscope(shared):
    unet = small(diffusers.UNet3DConditionModel, **COMMON, **TINY[diffusers.UNet3DConditionModel])
    scheduler = diffusers.DDIMScheduler(**MODELSCOPE)
    return diffusers.TextToVideoSDPipeline(**shared, unet=unet, scheduler=scheduler)


def image_model():
    kind = diffusers.UNet2DConditionModel
    return small(kind, **COMMON, **TINY[kind])


def animatediff(shared, unet=None):
    return diffusers.AnimateDiffPipeline(
        **shared,
        unet=unet or image_model(),
        motion_adapter=small(diffusers.MotionAdapter, **MOTION),
        scheduler=diffusers.DDIMScheduler(**ANIMATEDIFF),
    )


def their_frames(pipeline, noise):
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        num_frames=NUM_FRAMES,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=noise,
        output_type="pt",
    ).frames
    return made.transpose(1, 2)


def our_frames(generate, noise):
    return generate(
        PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        height=SIZE[0],
        width=SIZE[1],
        noise=noise,
        **ASK,
    ).frames


@pytest.fixture
def noise():
    return torch.randn(2, 4, NUM_FRAMES, SIZE[0] // 4, SIZE[1] // 4)


def agree(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05
    error = float((ours - theirs).abs().max())
    print(f"largest difference of frames {error:.1e}")
    assert error <= 1e-4


@pytest.mark.filterwarnings("ignore:.*was not trained on")
@pytest.mark.parametrize("make", [modelscope, animatediff])
def test_frames_agree(make, shared, noise, tmp_path):
    theirs = make(shared)
    theirs.save_pretrained(tmp_path / "model")
    agree(our_frames(vdm.load(tmp_path / "model"), noise), their_frames(theirs, noise))


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_any_image_model_moves(shared, noise, tmp_path):
    unet = image_model()
    image = diffusers.StableDiffusionPipeline(
        **shared,
        unet=unet,
        scheduler=diffusers.PNDMScheduler(**SD),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    image.save_pretrained(tmp_path / "image")
    theirs = animatediff(shared, unet)
    theirs.motion_adapter.save_pretrained(tmp_path / "motion")
    ours = vdm.load(tmp_path / "image", motion=tmp_path / "motion")
    agree(our_frames(ours, noise), their_frames(theirs, noise))
    assert ours.parts.defaults.num_frames == 16
    with pytest.raises(ValueError, match="got class PNDMScheduler, expected one of DDIMScheduler"):
        vdm.load(tmp_path / "image")


def test_defaults_are_those_that_were_published(shared, tmp_path):
    modelscope(shared).save_pretrained(tmp_path / "model")
    generate = vdm.load(tmp_path / "model")
    defaults = generate.parts.defaults
    assert (defaults.steps, defaults.guidance_scale, defaults.sampler) == (50, 9.0, "ddim")
    assert (defaults.height, defaults.width) == (64, 64)  # 16 latents of 4 pixels
    assert generate.parts.name == "model"
    assert generate.dtype == torch.float32


def test_half_precision_files_are_computed_in_full(shared, tmp_path):
    modelscope(shared).to(torch.float16).save_pretrained(tmp_path / "model", variant="fp16")
    assert vdm.load(tmp_path / "model").dtype == torch.float32
    assert vdm.load(tmp_path / "model", dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "FluxPipeline"}, "got class FluxPipeline, expected one of TextToVideoSD"),
        ({"oars": ["a", "b"]}, "got a part oars, expected feature_extractor"),
        ({"vae": [None, None]}, "has no vae"),
    ],
)
def test_models_of_unknown_kinds_are_refused(shared, change, message, tmp_path):
    modelscope(shared).save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        vdm.load(tmp_path / "model")


def test_an_unknown_profile_is_refused(shared, tmp_path):
    modelscope(shared).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="got profile='mine', expected one of diffusers, original"):
        vdm.load(tmp_path / "model", profile="mine")
