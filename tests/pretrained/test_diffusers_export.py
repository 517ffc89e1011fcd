"""Whole models written here are what diffusers loads, bit for bit."""

import warnings

import diffusers
import pytest
import torch

import vdm
from tests.pretrained.tiny_models import (
    CONTROL,
    VISION,
    animatediff,
    animatediff_xl,
    image,
    image_xl,
    modelscope,
    small,
    sparsectrl,
    svd,
)
from vdm.cli import main
from vdm.conditioning.clip_image import ClipImageEncoder
from vdm.conditioning.clip_text import ClipTextEncoder
from vdm.pretrained import export, read
from vdm.pretrained.parts import Parts


def same_weights(one, other):
    """Of two pipelines, module by module."""
    modules = [name for name, part in one.components.items() if isinstance(part, torch.nn.Module)]
    assert len(modules) >= 3
    for name in modules:
        first, second = (p.components[name].state_dict() for p in (one, other))
        assert first.keys() == second.keys(), name
        assert all(torch.equal(value, second[key]) for key, value in first.items()), name


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Each model there, made and written once, and where it lies."""
    made = {}

    def save(make):
        if make not in made:
            theirs, folder = make(), tmp_path_factory.mktemp("model") / "theirs"
            theirs.save_pretrained(folder)
            made[make] = (theirs, folder)
        return made[make]

    return save


@pytest.mark.parametrize(
    "make", [modelscope, animatediff, image, sparsectrl, animatediff_xl, image_xl]
)
def test_there_and_back(make, saved, tmp_path):
    theirs, folder = saved(make)
    export(vdm.load(folder), tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = type(theirs).from_pretrained(tmp_path / "ours")
    same_weights(theirs, again)
    assert again.unet.config.sample_size == theirs.unet.config.sample_size
    for scheduler in (theirs.scheduler, again.scheduler):
        scheduler.set_timesteps(9)
    assert torch.equal(theirs.scheduler.timesteps, again.scheduler.timesteps)
    prompt = again.tokenizer("a cat").input_ids
    assert prompt == theirs.tokenizer("a cat").input_ids


def test_pictures_there_and_back(saved, tmp_path):
    theirs, folder = saved(svd)
    export(vdm.load(folder), tmp_path / "ours")
    again = diffusers.StableVideoDiffusionPipeline.from_pretrained(tmp_path / "ours")
    same_weights(theirs, again)
    assert again.feature_extractor.do_rescale is False
    assert again.scheduler.config.sigma_max == 700.0
    assert again.unet.config.num_frames == 4


def test_how_much_a_picture_steers_is_left_to_the_call(saved, tmp_path):
    _, folder = saved(animatediff)
    small(diffusers.SparseControlNetModel, **CONTROL).save_pretrained(tmp_path / "control")
    ours = vdm.load(folder, control={tmp_path / "control": 0.5})
    with pytest.warns(UserWarning, match=r"scale 0\.5, .* controlnet_conditioning_scale=0\.5"):
        export(ours, tmp_path / "ours")
    again = diffusers.AnimateDiffSparseControlNetPipeline.from_pretrained(tmp_path / "ours")
    same = diffusers.SparseControlNetModel.from_pretrained(tmp_path / "control").state_dict()
    assert all(torch.equal(value, same[k]) for k, value in again.controlnet.state_dict().items())


def test_an_encoder_made_here_says_what_it_is(saved, tmp_path):
    parts = read(saved(svd)[1])
    config = {key: VISION[key] for key in VISION}  # without the notes of a file
    made = ClipImageEncoder(config)
    made.load_state_dict(parts.image_encoder.state_dict())
    parts.image_encoder = made
    export(parts, tmp_path / "ours")
    assert read(tmp_path / "ours").image_encoder is not None


def test_the_command_line_changes_the_layout(saved, tmp_path):
    folder = saved(modelscope)[1]
    theirs, ours, back = map(str, (folder, tmp_path / "ours", tmp_path / "back"))
    assert main(["convert", theirs, ours]) == 0  # to our own layout
    there = ["--layout", "diffusers", "--dtype", "float16"]
    assert main(["convert", ours, back, *there]) == 0
    one, other = read(folder), read(back)
    assert one.describe()["parts"] == other.describe()["parts"]
    for name, module in one.modules.items():
        state = other.modules[name].state_dict()
        assert all(torch.equal(v.half(), state[k].half()) for k, v in module.state_dict().items())


def test_a_model_without_a_pipeline_there_is_refused(saved, tmp_path):
    parts = Parts("odd", autoencoder=torch.nn.Identity())
    with pytest.raises(ValueError, match="diffusers has no class for Identity"):
        export(parts, tmp_path)
    parts = read(saved(modelscope)[1])
    parts.text_encoder = None
    with pytest.raises(ValueError, match="expected CLIP's text transformer"):
        export(parts, tmp_path / "ours")


def test_padding_that_no_tokenizer_has_is_refused(saved, tmp_path):
    parts = read(saved(modelscope)[1])
    parts.text_encoder = ClipTextEncoder(**parts.text_encoder._init_args | {"pad_id": 0})
    with pytest.raises(ValueError, match="got pad_id=0, which no tokenizer there has"):
        export(parts, tmp_path / "ours")
