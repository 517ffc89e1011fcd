"""Motion modules out of their authors' files, whose names are written here the other way round."""

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel
from safetensors.torch import save_file

import vdm
from tests.pretrained.test_diffusers_unet import COMMON, TINY
from tests.pretrained.tiny_models import MOTION, image, small
from vdm.pretrained.diffusers_folder import load_unet
from vdm.pretrained.original_motion import read_motion

# From the names in diffusers to those of the authors, one by one.
ORIGINAL = {
    ".norm.": ".temporal_transformer.norm.",
    ".proj_in.": ".temporal_transformer.proj_in.",
    ".proj_out.": ".temporal_transformer.proj_out.",
    ".transformer_blocks.": ".temporal_transformer.transformer_blocks.",
    ".attn1.": ".attention_blocks.0.",
    ".attn2.": ".attention_blocks.1.",
    ".norm1.": ".norms.0.",
    ".norm2.": ".norms.1.",
    ".norm3.": ".ff_norm.",
}


def original(adapter):
    state = {}
    for key, value in adapter.state_dict().items():
        if key.endswith("pos_embed.pe"):
            for number in (0, 1):
                name = key.replace("pos_embed.pe", f"attention_blocks.{number}.pos_encoder.pe")
                name = name.replace(
                    ".transformer_blocks", ".temporal_transformer.transformer_blocks"
                )
                state[name] = value.clone()
            continue
        for theirs, authors in ORIGINAL.items():
            key = key.replace(theirs, authors)
        state[key] = value.contiguous()
    return state


def make_adapter(length, has_middle):
    heads = {"motion_num_attention_heads": 8, "motion_norm_num_groups": 32}
    more = {"motion_max_seq_length": length, "use_motion_mid_block": has_middle}
    return small(MotionAdapter, **MOTION | heads | more)


def make_image(folder):
    """With as many groups as motion modules have."""
    unet = small(UNet2DConditionModel, **COMMON, **TINY[UNet2DConditionModel])
    unet.register_to_config(norm_num_groups=32)
    unet.save_pretrained(folder)


@pytest.mark.parametrize(("length", "has_middle"), [(24, False), (32, True), (32, False)])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_file_gives_the_same_network_as_a_folder(length, has_middle, suffix, tmp_path):
    adapter = make_adapter(length, has_middle)
    make_image(tmp_path / "image")
    adapter.save_pretrained(tmp_path / "motion")
    state, path = original(adapter), tmp_path / f"mm{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        save_file(state, path)
    ours = load_unet(tmp_path / "image", motion=path)
    expected = load_unet(tmp_path / "image", motion=tmp_path / "motion").state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())


def test_settings_are_read_off_the_weights():
    config, _ = read_motion(original(make_adapter(24, False)), "mm.ckpt")
    assert config["block_out_channels"] == [32, 64]
    assert config["motion_max_seq_length"] == 24
    assert config["use_motion_mid_block"] is False
    assert config["motion_layers_per_block"] == 1


def test_what_holds_no_motion_is_refused(tmp_path):
    image().save_pretrained(tmp_path / "image")
    torch.save({"weight": torch.ones(2)}, tmp_path / "mm.ckpt")
    with pytest.raises(ValueError, match=r"mm\.ckpt: holds no motion modules"):
        vdm.load(tmp_path / "image", motion=tmp_path / "mm.ckpt")
    torch.save({"run": print}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=r"bad\.ckpt: refused: it pickles objects"):
        vdm.load(tmp_path / "image", motion=tmp_path / "bad.ckpt")
    with pytest.raises(FileNotFoundError, match="no file"):
        vdm.load(tmp_path / "image", motion=tmp_path / "missing.ckpt")
