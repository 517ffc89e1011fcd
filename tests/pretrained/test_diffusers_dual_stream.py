"""diffusers' HunyuanVideo transformers run in ours: same numbers, same keys, back bit for bit."""

import json

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

from tests.models.unet3d_oracles import relative_error
from tests.pretrained.test_diffusers_dit import config_of
from tests.pretrained.tiny_dit import (
    HUNYUAN,
    HUNYUAN_KINDS,
    call_hunyuan,
    make_hunyuan,
    told_hunyuan,
)
from vdm.pretrained import export, load_network
from vdm.pretrained.diffusers_dit import dit_entries
from vdm.pretrained.diffusers_dit_config import dit_from_config
from vdm.pretrained.keymap import Entry, ForeignWeights, to_foreign

B, C = 2, 4
STEPS = torch.tensor([999.0, 137.0])
FULL = {
    "t2v": ({}, 12_821_012_544, 1264),
    "i2v-concat": (HUNYUAN_KINDS["i2v-concat"] | {"in_channels": 33}, 12_810_991_680, 1260),
}


@pytest.mark.parametrize(
    ("kind", "patch_size_t"), [("t2v", 2), ("i2v-concat", 1), ("i2v-replace", 1)]
)
@torch.no_grad()
def test_hunyuan_computes_the_same(tmp_path, kind, patch_size_t):
    theirs = make_hunyuan(kind, patch_size_t=patch_size_t)
    theirs.save_pretrained(tmp_path)
    ours = load_network(tmp_path)
    torch.manual_seed(1)
    shape = (B, C, 3 * patch_size_t, 6, 10)
    x, cond = torch.randn(shape), told_hunyuan(kind, shape)
    expected = call_hunyuan(theirs, x, STEPS, cond)
    assert relative_error(ours(x, STEPS, cond), expected) < 2e-6


@pytest.mark.parametrize("kind", HUNYUAN_KINDS)
def test_hunyuan_comes_back_bit_for_bit(tmp_path, kind):
    theirs = make_hunyuan(kind)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    export(load_network(tmp_path / "theirs"), tmp_path / "back")
    back, report = HunyuanVideoTransformer3DModel.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(report.values())
    expected = theirs.state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in back.state_dict().items())
    settings = json.loads((tmp_path / "back" / "config.json").read_text())
    known = HUNYUAN | HUNYUAN_KINDS[kind] | {"rope_axes_dim": [2, 4, 4]}
    assert {key: settings[key] for key in known} == known


@pytest.mark.parametrize("kind", FULL)
def test_full_sizes_have_the_published_keys_and_shapes(kind):
    more, count, keys = FULL[kind]
    with torch.device("meta"):
        theirs = HunyuanVideoTransformer3DModel(**more)
        ours = dit_from_config(config_of(theirs))
        found = to_foreign(ours.state_dict(), dit_entries(ours))
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in found.items()} == expected
    assert len(found) == keys
    assert sum(p.numel() for p in ours.parameters()) == count


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_theta": 10000.0}, "x.json: got rope_theta=10000.0, expected 256.0"),
        ({"image_condition_type": "x"}, "x.json: got image_condition_type='x', expected one of"),
        ({"in_channels": 9}, "x.json: got in_channels=9, expected 4"),
        ({"rope_axes_dim": (2, 4, 6)}, r"got axes=\(2, 4, 6\) for head_dim=10, expected that sum"),
    ],
)
def test_settings_that_ours_cannot_have_are_refused(change, message):
    config = HUNYUAN | {"_class_name": "HunyuanVideoTransformer3DModel"} | change
    with pytest.raises(ValueError, match=message):
        dit_from_config(config, "x.json")


def test_rows_may_change_places_and_be_of_several_tensors():
    swap = [Entry("out", ("ours",), is_swapped=True)]
    rows = torch.arange(6)
    found = dict(ForeignWeights({"out": rows}, swap))
    assert found["ours"].tolist() == [3, 4, 5, 0, 1, 2]
    assert torch.equal(to_foreign(found, swap)["out"], rows)
    several = [Entry("out", ("a", "b"), sizes=(2, 4))]
    found = dict(ForeignWeights({"out": rows}, several))
    assert [found["a"].tolist(), found["b"].tolist()] == [[0, 1], [2, 3, 4, 5]]
    assert torch.equal(to_foreign(found, several)["out"], rows)
    with pytest.raises(ValueError, match="out has 5 rows, expected 6"):
        dict(ForeignWeights({"out": rows[:5]}, several, where="f.bin"))
