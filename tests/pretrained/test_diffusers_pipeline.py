"""Whole models in diffusers' layout make the frames that diffusers makes of them."""

import json

import diffusers
import pytest
import torch
from torchvision.transforms.functional import to_pil_image

import vdm
from tests.pretrained import tiny_models
from tests.pretrained.tiny_models import SD, animatediff, modelscope

NUM_FRAMES, SIZE = 3, (24, 40)
PROMPTS, NEGATIVE = ["a cat", "dogs run"], "rain"
ASK = {"num_frames": NUM_FRAMES, "steps": 2, "guidance_scale": 3.0, "progress": False}


def their_frames(pipeline, noise):
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        num_frames=NUM_FRAMES,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=2,
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
def test_frames_agree(make, noise, tmp_path):
    theirs = make()
    theirs.save_pretrained(tmp_path / "model")
    agree(our_frames(vdm.load(tmp_path / "model"), noise), their_frames(theirs, noise))


@pytest.fixture
def svd():
    return tiny_models.svd()


@pytest.fixture
def pictures():
    noise = torch.rand(2, 3, 30, 50, generator=torch.Generator().manual_seed(1))
    return [to_pil_image(picture) for picture in noise]


@pytest.mark.filterwarnings("ignore:.*was not trained on")
@pytest.mark.parametrize("guidance_scale", [(1.0, 3.0), 1.0])
def test_pictures_move(svd, pictures, guidance_scale, tmp_path):
    svd.save_pretrained(tmp_path / "svd")
    generate = vdm.load(tmp_path / "svd")
    height, width = 16, 24
    noise = torch.randn(2, 4, NUM_FRAMES, height // 2, width // 2)
    low, high = guidance_scale if isinstance(guidance_scale, tuple) else (1.0, 1.0)
    svd.set_progress_bar_config(disable=True)
    theirs = svd(
        pictures,
        height,
        width,
        num_frames=NUM_FRAMES,
        num_inference_steps=3,
        min_guidance_scale=low,
        max_guidance_scale=high,
        fps=7,
        motion_bucket_id=100,
        noise_aug_strength=0.0,
        latents=noise.transpose(1, 2),
        output_type="pt",
    ).frames.transpose(1, 2)
    ours = generate(
        image=pictures,
        height=height,
        width=width,
        noise=noise,
        fps=7,
        motion_bucket=100,
        noise_aug=0.0,
        num_frames=NUM_FRAMES,
        steps=3,
        guidance_scale=guidance_scale,
        progress=False,
    ).frames
    agree(ours, theirs)


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_what_is_said_of_a_picture_makes_a_difference(svd, pictures, tmp_path):
    svd.save_pretrained(tmp_path / "svd")
    generate = vdm.load(tmp_path / "svd")
    defaults = generate.parts.defaults
    assert (defaults.num_frames, defaults.guidance_scale, defaults.fps) == (4, (1.0, 3.0), 7.0)
    ask = {"height": 12, "width": 20, "num_frames": 3, "steps": 1, "seed": 0, "progress": False}
    ask["output"] = "latents"
    rounding = 1e-3  # the one step is from noise of scale 700

    def made(**changes):
        return generate(**{"image": pictures[0], **ask, **changes})

    usual = made()
    assert torch.equal(usual, made(motion_bucket=127.0, noise_aug=0.02))
    for change in ({"motion_bucket": 1.0}, {"noise_aug": 0.0}, {"fps": 30}, {"seed": 1}):
        assert not torch.allclose(usual, made(**change), rtol=0, atol=10 * rounding), change
    both = generate(image=pictures, **ask)
    alone = made(image=pictures[1], seed=1)
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=rounding)
    for refused, message in (
        ({"image": None}, "got no image, model 'svd' needs one"),
        ({"video": torch.zeros(3, 3, 12, 20)}, "model 'svd' moves a picture: expected image alone"),
    ):
        with pytest.raises(ValueError, match=message):
            made(**refused)


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_any_image_model_moves(noise, tmp_path):
    image = tiny_models.image(diffusers.PNDMScheduler(**SD))
    image.save_pretrained(tmp_path / "image")
    theirs = animatediff()  # the same weights, drawn from the same seed
    theirs.motion_adapter.save_pretrained(tmp_path / "motion")
    ours = vdm.load(tmp_path / "image", motion=tmp_path / "motion")
    agree(our_frames(ours, noise), their_frames(theirs, noise))
    assert ours.parts.defaults.num_frames == 16


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_an_image_model_makes_its_pictures_with_its_own_sampler(tmp_path):
    theirs = tiny_models.image(
        diffusers.PNDMScheduler(**SD, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    )
    theirs.save_pretrained(tmp_path / "image")
    ours = vdm.load(tmp_path / "image")
    assert (ours.parts.defaults.num_frames, ours.parts.defaults.sampler) == (1, "pndm")
    noise = torch.randn(2, 4, 1, SIZE[0] // 4, SIZE[1] // 4)
    theirs.set_progress_bar_config(disable=True)
    common = {"height": SIZE[0], "width": SIZE[1], "guidance_scale": 3.0}
    made = theirs(
        PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        num_inference_steps=6,
        latents=noise[:, :, 0],
        output_type="pt",
        **common,
    ).images
    told = {"negative_prompt": NEGATIVE, "steps": 6, "noise": noise, "progress": False}
    agree(ours(PROMPTS, **told, **common).frames[:, :, 0], made)


def test_defaults_are_those_that_were_published(tmp_path, capsys):
    modelscope().save_pretrained(tmp_path / "model")
    generate = vdm.load(tmp_path / "model")
    assert "ModelScope text-to-video: frames as from diffusers" in capsys.readouterr().err
    defaults = generate.parts.defaults
    assert (defaults.steps, defaults.guidance_scale, defaults.sampler) == (50, 9.0, "ddim")
    assert (defaults.height, defaults.width) == (64, 64)  # 16 latents of 4 pixels
    assert generate.parts.name == "model"
    assert generate.dtype == torch.float32


def test_half_precision_files_are_computed_in_full(tmp_path):
    modelscope().to(torch.float16).save_pretrained(tmp_path / "model", variant="fp16")
    assert vdm.load(tmp_path / "model").dtype == torch.float32
    assert vdm.load(tmp_path / "model", dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "FluxPipeline"}, "got class FluxPipeline, expected one of StableVideoD"),
        ({"oars": ["a", "b"]}, "got a part oars, expected scheduler"),
        ({"vae": [None, None]}, "has no vae"),
    ],
)
def test_models_of_unknown_kinds_are_refused(change, message, tmp_path):
    modelscope().save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        vdm.load(tmp_path / "model")


def test_an_unknown_profile_is_refused(tmp_path):
    modelscope().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="got profile='mine', expected one of diffusers, original"):
        vdm.load(tmp_path / "model", profile="mine")
