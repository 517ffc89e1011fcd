"""Weights of diffusers' U-Nets go to their places in ours and come back bit for bit."""

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel

from tests.models.unet3d_oracles import our_state, reference
from vdm.pretrained.diffusers_unet import entries, tables
from vdm.pretrained.diffusers_unet_config import unet_from_config
from vdm.pretrained.keymap import Entry, ForeignWeights, to_foreign
from vdm.pretrained.loading import fill

COMMON = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
}
TINY = {
    UNetSpatioTemporalConditionModel: {
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
        "num_attention_heads": (2, 4),
    },
    UNet3DConditionModel: {
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "attention_head_dim": 8,
    },
    UNet2DConditionModel: {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    UNetMotionModel: {
        "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
        "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
        "num_attention_heads": 4,
        "motion_num_attention_heads": 2,
        "norm_num_groups": 8,
    },
}


def config_of(model):
    return {**model.config, "_class_name": type(model).__name__}


@pytest.mark.parametrize("cls", TINY, ids=lambda cls: cls.__name__)
def test_every_weight_has_its_place_and_comes_back(cls):
    theirs = reference(cls, **COMMON, **TINY[cls]).state_dict()
    config = config_of(cls(**COMMON, **TINY[cls]))
    ours, family = unet_from_config(config)
    places = entries(ours, family)
    read = ForeignWeights(theirs, places, tables(theirs))
    fill(ours, read, "test")
    expected = our_state(theirs, ours.state_dict())  # a map that was written apart from this one
    assert expected.keys() == ours.state_dict().keys()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
    back = to_foreign(ours.state_dict(), places)
    assert back.keys() == theirs.keys() - set(tables(theirs))
    assert all(torch.equal(value, theirs[key]) for key, value in back.items())


@pytest.mark.parametrize(("length", "has_middle"), [(24, False), (32, True), (32, False)])
def test_an_image_model_takes_a_motion_adapter(length, has_middle):
    image = reference(UNet2DConditionModel, **COMMON, **TINY[UNet2DConditionModel])
    settings = {
        "block_out_channels": (32, 64),
        "motion_layers_per_block": 1,
        "motion_num_attention_heads": 2,
        "motion_norm_num_groups": 8,
        "motion_max_seq_length": length,
        "use_motion_mid_block": has_middle,
    }
    adapter = reference(MotionAdapter, **settings)
    config, motion = config_of(image), config_of(adapter)
    ours, family = unet_from_config(config, motion=motion)
    theirs = image.state_dict() | adapter.state_dict()
    fill(ours, ForeignWeights(theirs, entries(ours, family), tables(theirs)), "test")
    whole = UNetMotionModel.from_unet2d(image, adapter).state_dict()
    expected = our_state(whole, ours.state_dict())
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "UNet1DModel"}, "x.json: got class UNet1DModel, expected one of UNetS"),
        ({"act_fn": "gelu"}, "x.json: got act_fn='gelu', expected 'silu'"),
        ({"wings": 2}, "x.json: got wings=2, which nothing reads"),
        ({"up_block_types": ("UpBlock3D", "UpBlock3D")}, "expected the mirror image of"),
        ({"layers_per_block": (1, 2)}, r"got layers_per_block=\[1, 2\], expected equal numbers"),
    ],
)
def test_settings_that_ours_cannot_have_are_refused(change, message):
    config = COMMON | TINY[UNet3DConditionModel] | {"_class_name": "UNet3DConditionModel"}
    with pytest.raises(ValueError, match=message):
        unet_from_config(config | change, "x.json")


def test_heads_of_several_widths_are_refused():
    kind = UNetSpatioTemporalConditionModel
    config = COMMON | TINY[kind] | {"_class_name": kind.__name__, "num_attention_heads": (2, 2)}
    with pytest.raises(ValueError, match="expected heads of one width"):
        unet_from_config(config)


def test_a_motion_adapter_needs_an_image_model():
    config = COMMON | TINY[UNet3DConditionModel] | {"_class_name": "UNet3DConditionModel"}
    with pytest.raises(ValueError, match="got a motion adapter for UNet3DConditionModel"):
        unet_from_config(config, motion={})


PLACES = [Entry("map", ("value", "gate")), Entry("kernel", ("matrix",), 2)]


def test_parts_are_split_and_kernels_become_matrices():
    theirs = {"map": torch.arange(8.0).reshape(4, 2), "kernel": torch.randn(3, 5, 1, 1)}
    ours = dict(ForeignWeights(theirs, PLACES))
    assert torch.equal(ours["gate"], theirs["map"][2:])
    assert ours["matrix"].shape == (3, 5)
    back = to_foreign(ours, PLACES)
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"map": torch.ones(4, 2)}, "f.bin: misses kernel"),
        (
            {key: torch.ones(2) for key in ("map", "kernel", "sail")},
            "f.bin: holds sail, for which there is no place",
        ),
        ({"map": torch.ones(3, 2), "kernel": torch.ones(1, 1, 1, 1)}, "map has 3 rows, expected a"),
        (
            {"map": torch.ones(4, 2), "kernel": torch.ones(3, 5, 3, 3)},
            r"kernel has shape \(3, 5, 3, 3\), expected 2 axes of size 1 at the end",
        ),
    ],
)
def test_what_does_not_fit_is_named(theirs, message):
    with pytest.raises(ValueError, match=message):
        dict(ForeignWeights(theirs, PLACES, where="f.bin"))
