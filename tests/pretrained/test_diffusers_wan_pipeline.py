"""Wan's whole models in diffusers' layout; certificates say that they make the same frames."""

import json

import pytest
import torch

import vdm
from tests.pretrained.tiny_wan import (
    PIPELINES,
    our_frames,
    pictures_for,
    size_of,
    their_frames,
)
from vdm.conditioning.given import InPlace
from vdm.conditioning.picture import FramesOnGrey
from vdm.pretrained import export

T2V, I2V, FLF2V = "Wan2.1-T2V", "Wan2.1-I2V-14B", "Wan2.1-FLF2V-14B"
T2V_A14B, I2V_A14B, TI2V_5B = "Wan2.2-T2V-A14B", "Wan2.2-I2V-A14B", "Wan2.2-TI2V-5B"
LARGE = (720, 1280)
pytestmark = pytest.mark.filterwarnings("ignore:.*was not trained on")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Each model there and here, made once, and where it lies."""
    made = {}

    def load(system):
        if system not in made:
            theirs, folder = PIPELINES[system](), tmp_path_factory.mktemp("wan") / "model"
            theirs.save_pretrained(folder)
            made[system] = (theirs, vdm.load(folder), folder)
        return made[system]

    return load


def agree(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05
    assert float((ours - theirs).abs().max()) <= 1e-4


def test_the_small_model_of_2_2_makes_clips_of_words_alone(loaded):
    theirs, ours, _ = loaded(TI2V_5B)
    asked = {"num_frames": 5, "guidance_scale": 3.0}
    expected = their_frames(theirs, size_of(TI2V_5B), num_inference_steps=2, **asked)
    agree(our_frames(ours, size_of(TI2V_5B), steps=2, **asked), expected)


def test_two_networks_share_one_scale_if_no_other_is_said(loaded):
    theirs, ours, _ = loaded(T2V_A14B)
    asked = {"num_frames": 1, "guidance_scale": 4.0}
    expected = their_frames(theirs, size_of(T2V_A14B), num_inference_steps=3, **asked)
    agree(our_frames(ours, size_of(T2V_A14B), steps=3, **asked), expected)
    other = our_frames(ours, size_of(T2V_A14B), steps=3, **asked, guidance_scale_2=1.0)
    assert (other - expected).abs().max() > 1e-3


def test_a_first_and_a_last_picture_may_come_as_frames_of_a_clip(loaded):
    _, ours, _ = loaded(I2V_A14B)
    size = size_of(I2V_A14B)
    first, last = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    asked = {"num_frames": 6, "steps": 2}
    made = our_frames(ours, size, image=first, last_image=last, **asked)
    both, mask = torch.stack((first, last), dim=1), torch.tensor([1, 0, 0, 0, 0, 1])
    assert torch.equal(our_frames(ours, size, video=both, mask=mask, **asked), made)
    assert not torch.equal(our_frames(ours, size, image=first, **asked), made)


@pytest.mark.parametrize("system", [TI2V_5B, FLF2V, I2V_A14B])
def test_it_is_written_back_and_loads_there(loaded, system, tmp_path):
    theirs, ours, _ = loaded(system)
    export(ours, tmp_path / "back")
    back = type(theirs).from_pretrained(tmp_path / "back")
    asked = {"num_frames": 1, "num_inference_steps": 2, "guidance_scale": 3.0}
    asked |= {"num_frames": 5} if system == FLF2V else {}
    asked |= pictures_for(system)
    size = size_of(system)
    assert torch.equal(their_frames(back, size, **asked), their_frames(theirs, size, **asked))
    again = vdm.load(tmp_path / "back")
    assert again.parts.describe()["defaults"] == ours.parts.describe()["defaults"]
    assert again.parts.config_hash() == ours.parts.config_hash()


@pytest.mark.parametrize("system", [T2V_A14B, I2V])
def test_it_comes_back_from_our_own_layout(loaded, system, tmp_path):
    _, ours, _ = loaded(system)
    export(ours, tmp_path / "own", layout="vdm")
    again = vdm.load(tmp_path / "own")
    size, asked = size_of(system), {"num_frames": 1, "steps": 2, **pictures_for(system)}
    assert torch.equal(our_frames(again, size, **asked), our_frames(ours, size, **asked))


@pytest.mark.parametrize(
    ("system", "shape", "sampling", "given"),
    [
        (T2V, (81, 16.0, 480, 832), (50, 5.0, None), None),
        (I2V, (81, 16.0, 480, 832), (40, 5.0, None), FramesOnGrey(1)),
        (FLF2V, (81, 16.0, *LARGE), (50, 5.0, None), FramesOnGrey(2)),
        (T2V_A14B, (81, 16.0, *LARGE), (40, 4.0, 3.0), None),
        (I2V_A14B, (81, 16.0, *LARGE), (40, 3.5, 3.5), FramesOnGrey(0)),
        (TI2V_5B, (121, 24.0, 704, 1280), (50, 5.0, None), InPlace()),
    ],
)
def test_what_is_published_is_made_by_default(loaded, system, shape, sampling, given):
    parts = loaded(system)[1].parts
    found = parts.defaults
    assert (parts.system, parts.given) == (system, given)
    assert (found.num_frames, found.fps, found.height, found.width) == shape
    assert (found.steps, found.guidance_scale, found.guidance_scale_2) == sampling


def test_what_a_model_lacks_is_refused(loaded):
    words, pictures, ends = (loaded(system)[1] for system in (T2V, I2V, FLF2V))
    first = pictures_for(I2V)["image"]
    with pytest.raises(ValueError, match="got guidance_scale_2=2, expected None: model 'model' ha"):
        words("a cat", guidance_scale_2=2.0)
    with pytest.raises(ValueError, match="got last_image, model 'model' reads no single frame"):
        words("a cat", last_image=first)
    with pytest.raises(ValueError, match=r"got guidance_scale_2=2 and the ramp \(1.0, 3.0\)"):
        loaded(T2V_A14B)[1]("a cat", guidance_scale=(1.0, 3.0), guidance_scale_2=2.0)
    small = {"num_frames": 5, "height": 32, "width": 48}
    with pytest.raises(ValueError, match="got no image, model 'model' needs one to move from"):
        pictures("a cat", **small)
    with pytest.raises(ValueError, match="got 1 given frames, model 'model' is told 2: the first "):
        ends("a cat", image=first, **small)
    with pytest.raises(ValueError, match="got last_image without image, expected both"):
        ends("a cat", last_image=first, **small)


@pytest.mark.parametrize(
    ("system", "changes", "said"),
    [
        (T2V, {"vae": [None, None]}, "has no vae"),
        (T2V, {"controlnet": ["diffusers", "X"]}, "got a part controlnet, expected scheduler, te"),
        (T2V, {"image_encoder": ["transformers", "X"]}, "has no image_processor"),
        (T2V, {"boundary_ratio": 0.9}, "got boundary_ratio=0.9, expected None without transforme"),
        (T2V, {"flow": 3}, "got flow, which nothing reads"),
        (T2V, {"_class_name": "WanImageToVideoPipeline"}, "got class WanImageToVideoPipeline, ex"),
        (I2V, {"expand_timesteps": True}, "got expand_timesteps=True, expected False: the netwo"),
        (
            I2V,
            {"image_encoder": [None, None], "image_processor": [None, None]},
            "expected an image_encoder, as the network reads its states or not",
        ),
    ],
)
def test_a_folder_that_does_not_fit_together_is_refused(loaded, system, changes, said):
    path = loaded(system)[2] / "model_index.json"
    text = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(text) | changes))
        with pytest.raises(ValueError, match=said):
            vdm.load(path.parent)
    finally:
        path.write_text(text)


def test_pictures_that_are_prepared_in_another_way_are_refused(loaded):
    path = loaded(I2V)[2] / "image_processor" / "preprocessor_config.json"
    text = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(text) | {"do_center_crop": False}))
        with pytest.raises(ValueError, match="got do_center_crop=False, expected True"):
            vdm.load(path.parents[1])
    finally:
        path.write_text(text)
