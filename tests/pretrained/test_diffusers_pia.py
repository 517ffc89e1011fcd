"""PIA: an adapter with a first convolution of its own, on any image model."""

import pytest
import torch
from diffusers import MotionAdapter
from diffusers.pipelines.deprecated.pia import PIAPipeline
from torchvision.transforms.functional import to_pil_image

import vdm
from tests.pretrained.test_diffusers_pipeline import agree
from tests.pretrained.test_original_motion import make_adapter, make_image, original
from tests.pretrained.tiny_models import MOTION, animatediff, image, pia, small
from vdm.pretrained.diffusers_folder import load_unet
from vdm.pretrained.diffusers_unet import entries
from vdm.pretrained.diffusers_unet_config import unet_from_config
from vdm.pretrained.keymap import Entry, ForeignWeights, to_foreign

ADAPTER_COUNT = 453_235_520


@pytest.fixture
def theirs():
    model = pia()
    model.set_progress_bar_config(disable=True)
    return model


@pytest.fixture
def moved(theirs, tmp_path):
    image().save_pretrained(tmp_path / "image")
    theirs.motion_adapter.save_pretrained(tmp_path / "motion")
    return vdm.load(tmp_path / "image", motion=tmp_path / "motion")


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_any_image_model_takes_it_and_pictures_move_as_there(theirs, moved):
    assert moved.parts.system == "PIA"
    pictures = torch.rand(2, 3, 24, 40)
    seeds = [3, 8]
    common = {"guidance_scale": 3.0, "negative_prompt": ["rain"] * 2, "num_frames": 3}
    made = theirs(
        [to_pil_image(picture) for picture in pictures],
        ["a cat", "dogs run"],
        height=24,
        width=40,
        motion_scale=8,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="pt",
        **common,
    ).frames.transpose(1, 2)
    told = {"height": 24, "width": 40, "steps": 2, "seed": seeds, "progress": False, **common}
    pictures = (pictures * 255).floor() / 255
    ours = moved(["a cat", "dogs run"], image=pictures, motion_bucket=8, **told).frames
    agree(ours, made)  # from the seed on
    other = moved(["a cat", "dogs run"], image=pictures, **told).frames
    assert not torch.allclose(ours, other, atol=1e-3)
    alone = {**told, "seed": 8, "negative_prompt": "rain"}
    one = moved("dogs run", image=pictures[1], motion_bucket=8, **alone).frames
    torch.testing.assert_close(ours[1:], one, atol=1e-4, rtol=0)
    for asked, message in (
        ({"image": None}, "got no image, model 'image' needs one to move from"),
        ({"motion_bucket": 0.5}, r"got motion_bucket=0\.5, expected a whole number"),
        ({"video": torch.rand(3, 2, 24, 40)}, "moves a picture: expected image alone"),
    ):
        with pytest.raises(ValueError, match=message):
            moved("a cat", **{**alone, "image": pictures[0], **asked})


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_it_is_written_back_as_there(theirs, moved, tmp_path):
    vdm.pretrained.export(moved, tmp_path / "ours")
    again = PIAPipeline.from_pretrained(tmp_path / "ours")
    for part in ("unet", "motion_adapter"):
        found, expected = (getattr(one, part).state_dict() for one in (again, theirs))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            # Of its first convolution, the part for noisy latents is the image model's.
            given = slice(4, None) if key == "conv_in.weight" else slice(None)
            is_taken = key == "conv_in.bias" and part == "motion_adapter"
            assert is_taken or torch.equal(
                value[:, given] if value.ndim > 1 else value,
                found[key][:, given] if value.ndim > 1 else found[key],
            )
    back = vdm.load(tmp_path / "ours")
    state = back.network.state_dict()
    assert all(torch.equal(x, state[key]) for key, x in moved.network.state_dict().items())


def test_the_full_adapter_has_the_published_number_of_parameters():
    more = {"use_motion_mid_block": True, "conv_in_channels": 9}
    with torch.device("meta"):
        adapter = MotionAdapter(**more)
        motion = {**adapter.config, "_class_name": "MotionAdapter"}
        kind = {"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768}
        ours, family = unet_from_config(kind, motion=motion)
        found = to_foreign(ours.state_dict(), entries(ours, family))
    own = {key: value for key, value in found.items() if "motion_modules" in key}
    own |= {key: value for key, value in found.items() if key.startswith("conv_in.")}
    assert sum(value.numel() for value in own.values()) == ADAPTER_COUNT
    expected = {k: v.shape for k, v in adapter.state_dict().items() if not k.endswith(".pe")}
    assert {key: value.shape for key, value in own.items()} == expected


def test_the_authors_file_gives_the_same_network_as_a_folder(tmp_path):
    make_image(tmp_path / "image")
    heads = {"motion_num_attention_heads": 8, "motion_norm_num_groups": 32}
    adapter = small(MotionAdapter, **MOTION | heads, conv_in_channels=9)
    adapter.save_pretrained(tmp_path / "motion")
    torch.save(original(adapter), tmp_path / "pia.ckpt")
    one = load_unet(tmp_path / "image", motion=tmp_path / "pia.ckpt").state_dict()
    other = load_unet(tmp_path / "image", motion=tmp_path / "motion").state_dict()
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    plain = load_unet(tmp_path / "image", motion=_plain(tmp_path)).state_dict()
    assert torch.equal(plain["embed.weight"], one["embed.weight"][:, :4])
    assert torch.equal(one["embed.weight"][:, 8], adapter.conv_in.weight[:, 4])
    assert torch.equal(one["embed.weight"][:, 4:8], adapter.conv_in.weight[:, 5:])


def _plain(folder):
    make_adapter(32, True).save_pretrained(folder / "plain")
    return folder / "plain"


def test_a_network_that_reads_no_picture_is_refused(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "model")
    animatediff().unet.save_pretrained(tmp_path / "model" / "unet")
    with pytest.raises(ValueError, match="got in_channels=4, expected 9 for PIAPipeline"):
        vdm.load(tmp_path / "model")


def test_columns_are_put_in_order_and_back():
    place = Entry("conv", ("conv",), columns=(0, 2, 1))
    theirs = {"conv": torch.randn(2, 3, 1, 1)}
    ours = dict(ForeignWeights(theirs, [place]))
    assert torch.equal(ours["conv"], theirs["conv"][:, [0, 2, 1]])
    assert torch.equal(to_foreign(ours, [place])["conv"], theirs["conv"])
    with pytest.raises(ValueError, match=r"f: conv has shape \(2, 4\), expected 3 in the second"):
        dict(ForeignWeights({"conv": torch.ones(2, 4)}, [place], where="f"))
