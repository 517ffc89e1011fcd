"""U-Nets under their authors' names: a second map, from diffusers' names, says the same."""

import re

import pytest
import torch
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel

from tests.models.unet3d_oracles import our_state, reference
from tests.pretrained.test_diffusers_unet import COMMON, TINY
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d_blocks import Heads
from vdm.pretrained.diffusers_unet_config import unet_from_config
from vdm.pretrained.keymap import ForeignWeights, to_foreign
from vdm.pretrained.loading import fill
from vdm.pretrained.original_unet import (
    MODELSCOPE_ORIGINAL,
    SVD_ORIGINAL,
    VIDEOCRAFTER_ORIGINAL,
    original_entries,
)

DEPTH, LEVELS = 1, 2
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "transformer_in.": "input_blocks.0.1.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
INSIDE = {
    "spatial_res_block.": "",
    "temporal_res_block.": "time_stack.",
    "temporal_transformer_blocks.": "time_stack.",
    "time_pos_embed.linear_1.": "time_pos_embed.0.",
    "time_pos_embed.linear_2.": "time_pos_embed.2.",
}


def authors_name(key):
    """From the name that diffusers has."""
    for theirs, authors in ENDS.items():
        if key.startswith(theirs):
            return key.replace(theirs, authors)
    place, number, rest = re.fullmatch(
        r"(down_blocks|up_blocks|mid_block)(?:\.(\d+))?\.([a-z_]+\..*)", key
    ).groups()
    kind, index, rest = rest.split(".", 2)
    index = int(index)
    if kind == "downsamplers":
        return f"input_blocks.{(int(number) + 1) * (DEPTH + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        last = (int(number) + 1) * (DEPTH + 1) - 1
        return f"output_blocks.{last}.UP.conv.{rest.removeprefix('conv.')}"
    if place == "mid_block":
        block = "middle_block"
        first = "LAST" if index else "0"
    else:
        list_name = "input_blocks" if place == "down_blocks" else "output_blocks"
        shift = 1 if place == "down_blocks" else 0
        block = f"{list_name}.{shift + int(number) * (DEPTH + 1) + index}"
        first = "0"
    for theirs, authors in INSIDE.items():
        rest = rest.replace(theirs, authors)
    if kind == "resnets":
        parts = rest.split(".")
        parts[-2] = RESNET.get(parts[-2], parts[-2])
        return f"{block}.{first}.{'.'.join(parts)}"
    if kind == "temp_convs":
        return f"{block}.{first}.temopral_conv.{rest}"
    return f"{block}.{1 if kind == 'attentions' else 2}.{rest}"


def original(theirs, numbers):
    """A state under the authors' names; some places differ between families."""
    state = {}
    for key, value in theirs.state_dict().items():
        name = authors_name(key)
        name = name.replace("UP", numbers["up"]).replace("LAST", numbers["last"])
        # Theirs are one-dimensional convolutions of frames.
        is_kernel = numbers["kernels"] and re.search(r"\.[12]\.proj_(in|out)\.weight$", name)
        is_kernel = is_kernel and ("input_blocks.0.1." in name or ".2.proj" in name)
        assert name not in state
        state[name] = value[..., None] if is_kernel else value
    return state


@pytest.mark.parametrize(
    ("cls", "family", "numbers"),
    [
        (
            UNetSpatioTemporalConditionModel,
            SVD_ORIGINAL,
            {"up": "1", "last": "2", "kernels": False},
        ),
        (UNet3DConditionModel, MODELSCOPE_ORIGINAL, {"up": "1", "last": "3", "kernels": True}),
    ],
    ids=["svd", "modelscope"],
)
def test_both_maps_agree(cls, family, numbers):
    theirs = reference(cls, **COMMON, **TINY[cls])
    ours, _ = unet_from_config({**theirs.config, "_class_name": cls.__name__})
    state = original(theirs, numbers)
    places = original_entries(ours, family, state)
    fill(ours, ForeignWeights(state, places), "test")
    expected = our_state(theirs.state_dict(), ours.state_dict())
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
    back = to_foreign(ours.state_dict(), places)
    assert back.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in back.items())


def test_videocrafter_is_modelscope_with_other_names_at_the_start():
    size = presets.Size(Heads(dim=8), widths=(32, 64), depth=1, attention=(1, 0, 1), context_dim=16)
    one, other = presets.videocrafter2(size), presets.modelscope(size)
    names = {e.theirs for e in original_entries(one, VIDEOCRAFTER_ORIGINAL, {})}
    same = {e.theirs for e in original_entries(other, MODELSCOPE_ORIGINAL, {})}
    assert {name for name in names if name.startswith("fps_embedding.")} == {
        f"fps_embedding.{part}.{kind}" for part in (0, 2) for kind in ("weight", "bias")
    }
    renamed = {name.replace("input_blocks.0.1.", "init_attn.0.") for name in same}
    assert names - renamed == {name for name in names if name.startswith("fps_embedding.")}


@pytest.mark.parametrize(
    ("make", "family", "count"),
    [
        (presets.stable_video_diffusion, SVD_ORIGINAL, 1428),
        (presets.modelscope, MODELSCOPE_ORIGINAL, 1480),
        (presets.videocrafter2, VIDEOCRAFTER_ORIGINAL, 1484),
    ],
)
def test_full_sizes_have_as_many_keys_as_published(make, family, count):
    with torch.device("meta"):
        places = original_entries(make(), family, {})
    assert len({place.theirs for place in places}) == len(places) == count
