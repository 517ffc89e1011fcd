"""diffusers' transformers run in ours: same numbers, same keys, and back bit for bit."""

import itertools
import json

import pytest
import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    LatteTransformer3DModel,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
)

from tests.models.unet3d_oracles import relative_error
from tests.pretrained.tiny_dit import (
    COGVIDEOX_KINDS,
    LATTE,
    LTX,
    WAN,
    call_cogvideox,
    call_ltx,
    make_cogvideox,
    make_latte,
    make_ltx,
    make_wan,
)
from vdm.layers.position_rules import CountedRotary
from vdm.models.joint_dit import JointDiT
from vdm.pretrained import export, load_network
from vdm.pretrained.diffusers_dit import dit_entries
from vdm.pretrained.diffusers_dit_config import FIRST_ALONE, config_from_dit, dit_from_config
from vdm.pretrained.keymap import Entry, ForeignWeights, to_foreign
from vdm.pretrained.original_wan import original_wan_entries
from vdm.types import Conditioning

B, C = 2, 4
STEPS = torch.tensor([999.0, 137.0])
SIZES = {"trained": (8, 12), "wide": (6, 14), "high": (10, 4)}
"""Of latents; frames of learned positions have one size."""

FULL = {
    "2b": ({}, 1_693_783_872, 736),
    "5b": ({"num_attention_heads": 48, "num_layers": 42}, 5_570_283_072, 1024),
    "5b-i2v": (
        {"num_attention_heads": 48, "num_layers": 42, "in_channels": 32},
        5_570_479_680,
        1025,
    ),
    "1.5": ({"num_attention_heads": 48, "num_layers": 42}, 5_570_676_352, 1024),
    "1.5-i2v": (
        {"num_attention_heads": 48, "num_layers": 42, "in_channels": 32},
        5_571_594_880,
        1028,
    ),
}
SWITCHES = {
    "2b": {},
    "5b": {"use_rotary_positional_embeddings": True},
    "5b-i2v": {
        "use_rotary_positional_embeddings": True,
        "use_learned_positional_embeddings": True,
    },
    "1.5": {
        "use_rotary_positional_embeddings": True,
        "patch_size_t": 2,
        "patch_bias": False,
        "sample_frames": 81,
        "sample_height": 300,
        "sample_width": 300,
    },
}
SWITCHES["1.5-i2v"] = SWITCHES["1.5"] | {"ofs_embed_dim": 512}


def config_of(model):
    return {**model.config, "_class_name": type(model).__name__}


@pytest.mark.parametrize("kind", COGVIDEOX_KINDS)
@torch.no_grad()
def test_cogvideox_computes_the_same(tmp_path, kind):
    theirs = make_cogvideox(kind)
    theirs.save_pretrained(tmp_path)
    ours = load_network(tmp_path)
    torch.manual_seed(1)
    # A table of positions is of one size.
    sizes = ["trained"] if kind == "5b-i2v" else SIZES
    for size, num_frames in itertools.product(sizes, (3, 4)):
        shape = (B, C, num_frames * ours.patch_size[0], *SIZES[size])
        x, text = torch.randn(shape), torch.randn(B, 5, 14)
        given = torch.randn(shape) if kind.endswith("i2v") else None
        expected = call_cogvideox(theirs, x, STEPS, text, given)
        out = ours(x, STEPS, Conditioning(text=text, given=given))
        assert relative_error(out, expected) < 2e-6, (size, num_frames)


@pytest.mark.parametrize("kind", COGVIDEOX_KINDS)
def test_cogvideox_comes_back_bit_for_bit(tmp_path, kind):
    theirs = make_cogvideox(kind)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    export(load_network(tmp_path / "theirs"), tmp_path / "back")
    back, report = CogVideoXTransformer3DModel.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(report.values())
    expected = theirs.state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in back.state_dict().items())
    settings = json.loads((tmp_path / "back" / "config.json").read_text())
    known = set(COGVIDEOX_KINDS[kind]) - {"sample_height", "sample_width", "sample_frames"}
    known -= {"max_text_seq_length"}  # which only a table of positions makes part of the network
    assert {key: settings[key] for key in known} == {
        key: COGVIDEOX_KINDS[kind][key] for key in known
    }


@pytest.mark.parametrize("kind", FULL)
def test_full_sizes_have_the_published_keys_and_shapes(kind):
    more, count, keys = FULL[kind]
    with torch.device("meta"):
        theirs = CogVideoXTransformer3DModel(**more, **SWITCHES[kind])
        ours = dit_from_config(config_of(theirs))
        found = to_foreign(ours.state_dict(), dit_entries(ours))
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in found.items()} == expected
    assert len(found) == keys
    table = 0 if ours.learned is None else ours.learned.table.numel()
    assert sum(p.numel() for p in ours.parameters()) - table == count
    again = config_from_dit(ours)
    assert all(theirs.config[key] == value for key, value in again.items() if key[0] != "_")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "UNet1DModel"}, "x.json: got class UNet1DModel, expected one of Cog"),
        ({"activation_fn": "gelu"}, "x.json: got activation_fn='gelu', expected 'gelu-approx"),
        ({"wings": 2}, "x.json: got wings=2, which nothing reads"),
        ({"in_channels": 9}, "x.json: got in_channels=9, expected 8"),
        ({"in_channels": 8}, "x.json: got a 2B model that reads pictures, expected rotations"),
        ({"ofs_embed_dim": 20}, "x.json: got ofs_embed_dim=20, expected None"),
        ({"patch_size_t": 2}, "got use_rotary_positional_embeddings=False, expected True"),
    ],
)
def test_settings_that_ours_cannot_have_are_refused(change, message):
    config = config_of(make_cogvideox("2b"))
    with pytest.raises(ValueError, match=message):
        dit_from_config(config | change, "x.json")


def test_a_network_of_no_published_kind_is_not_written():
    ours = JointDiT(4, 48, 1, 3, positions=CountedRotary())  # but its patches are not 1.5's
    with pytest.raises(ValueError, match="diffusers has no class for this JointDiT"):
        config_from_dit(ours)


LATTE_FULL = LATTE | {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "sample_size": 64,
    "caption_channels": 4096,
    "video_length": 16,
}


@torch.no_grad()
def test_latte_computes_the_same(tmp_path):
    theirs = make_latte()
    theirs.save_pretrained(tmp_path)
    ours = load_network(tmp_path)
    torch.manual_seed(1)
    mask = torch.ones(B, 7)
    mask[1, 4:] = 0
    for num_frames, size in ((5, (6, 10)), (1, (8, 8))):
        x, text = torch.randn(B, C, num_frames, *size), torch.randn(B, 7, 14)
        expected = theirs(x, STEPS, text).sample[:, :C]  # without the variance
        out = ours(x, STEPS, Conditioning(text=text))
        assert relative_error(out, expected) < 2e-6
        alone = theirs(x[1:], STEPS[1:], text[1:, :4]).sample[:, :C]
        out = ours(x, STEPS, Conditioning(text=text, text_mask=mask))
        assert relative_error(out[:1], expected[:1]) < 2e-6
        assert relative_error(out[1:], alone) < 2e-6


def test_latte_comes_back_bit_for_bit(tmp_path):
    theirs = make_latte()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="30KB")
    export(load_network(tmp_path / "theirs"), tmp_path / "back")
    back, report = LatteTransformer3DModel.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(report.values())
    expected = theirs.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in back.state_dict().items())
    settings = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {key: settings[key] for key in LATTE if key != "video_length"} == {
        key: value for key, value in LATTE.items() if key != "video_length"
    }


def test_the_full_latte_has_the_published_keys_and_shapes():
    with torch.device("meta"):
        theirs = LatteTransformer3DModel(**LATTE_FULL)
        ours = dit_from_config(config_of(theirs))
        found = to_foreign(ours.state_dict(), dit_entries(ours))
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in found.items()} == expected
    assert len(found) == 967
    assert sum(p.numel() for p in ours.parameters()) == 1_057_246_880


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_type": "layer_norm"}, "x.json: got norm_type='layer_norm', expected 'ada_norm"),
        ({"out_channels": 4}, "x.json: got out_channels=4, expected 8"),
        ({"cross_attention_dim": 8}, "x.json: got cross_attention_dim=8, expected 24"),
    ],
)
def test_settings_of_latte_that_ours_cannot_have_are_refused(change, message):
    config = LATTE | {"_class_name": "LatteTransformer3DModel"} | change
    with pytest.raises(ValueError, match=message):
        dit_from_config(config, "x.json")


def test_rows_of_other_sizes_than_said_are_refused():
    place = [Entry("out", ("ours",), groups=(2, 3))]
    with pytest.raises(ValueError, match="out has 5 rows, expected 6"):
        dict(ForeignWeights({"out": torch.ones(5)}, place, where="f.bin"))
    rows = torch.arange(6)
    ours = dict(ForeignWeights({"out": rows}, place))
    assert ours["ours"].tolist() == [0, 3, 1, 4, 2, 5]
    assert torch.equal(to_foreign(ours, place)["out"], rows)


WAN_PICTURE = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
WAN_FULL = {
    "1.3B": (
        {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
        1_418_996_800,
        825,
    ),
    "14B": ({}, 14_288_491_584, 1095),
    "TI2V-5B": (
        {
            "num_attention_heads": 24,
            "num_layers": 30,
            "ffn_dim": 14336,
            "in_channels": 48,
            "out_channels": 48,
        },
        4_999_787_712,
        825,
    ),
    "I2V-14B": (WAN_PICTURE, 16_394_878_784, 1303),
    "FLF2V-14B": (WAN_PICTURE | {"pos_embed_seq_len": 514}, 16_395_536_704, 1304),
    "I2V-A14B": ({"in_channels": 36}, 14_288_901_184, 1095),
}


@pytest.mark.parametrize("patch_size", [(1, 2, 2), (2, 1, 2)])
@torch.no_grad()
def test_wan_computes_the_same(tmp_path, patch_size):
    theirs = make_wan(patch_size=patch_size)
    theirs.save_pretrained(tmp_path)
    ours = load_network(tmp_path)
    torch.manual_seed(1)
    for size in ((8, 8), (6, 10)):
        x, text = torch.randn(B, C, 4, *size), torch.randn(B, 7, 14)
        expected = theirs(x, STEPS, text).sample
        assert relative_error(ours(x, STEPS, Conditioning(text=text)), expected) < 2e-6


@torch.no_grad()
def test_wan_is_told_a_noise_level_for_every_frame(tmp_path):
    theirs = make_wan()
    theirs.save_pretrained(tmp_path)
    ours = load_network(tmp_path)
    torch.manual_seed(1)
    x, text = torch.randn(B, C, 3, 6, 10), torch.randn(B, 7, 14)
    levels = torch.tensor([[0.0, 981.0, 981.0], [0.0, 41.0, 300.0]])
    expected = theirs(x, levels.repeat_interleave(15, dim=1), text).sample  # one for every token
    assert relative_error(ours(x, levels, Conditioning(text=text)), expected) < 2e-6


def test_wan_comes_back_bit_for_bit(tmp_path):
    theirs = make_wan()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="30KB")
    export(load_network(tmp_path / "theirs"), tmp_path / "back")
    back, report = WanTransformer3DModel.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(report.values())
    expected = theirs.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in back.state_dict().items())
    settings = json.loads((tmp_path / "back" / "config.json").read_text())
    known = set(WAN) - {"rope_max_seq_len"}
    assert {key: settings[key] for key in known} == {key: WAN[key] for key in known}


@pytest.mark.parametrize("kind", WAN_FULL)
def test_full_wans_have_the_published_keys_and_shapes(kind):
    more, count, keys = WAN_FULL[kind]
    with torch.device("meta"):
        theirs = WanTransformer3DModel(**more)
        ours = dit_from_config(config_of(theirs))
        found = to_foreign(ours.state_dict(), dit_entries(ours))
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in found.items()} == expected
    assert len(found) == keys
    assert sum(p.numel() for p in ours.parameters()) == count
    assert len({entry.theirs for entry in original_wan_entries(ours)}) == keys


def test_wans_of_no_published_kind_are_refused():
    config = {**WAN, "_class_name": "WanTransformer3DModel", "image_dim": 10}
    with pytest.raises(ValueError, match=r"x.json: got added_kv_proj_dim=None, expected 24"):
        dit_from_config(config, "x.json")
    with pytest.raises(ValueError, match=r"x.json: got image_dim=10, expected None"):
        dit_from_config(config | {"added_kv_proj_dim": 24}, "x.json")
    with pytest.raises(ValueError, match=r"x.json: got in_channels=9, expected 12"):
        dit_from_config(config | {"image_dim": None, "in_channels": 9}, "x.json")


LTX_FULL = {
    "2B": ({}, 1_923_385_472, 715),
    "13B": (
        {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48},
        13_042_569_344,
        1215,
    ),
}
LEFT_OVER = {  # channels that are not rotated
    2: {},
    4: {"num_attention_heads": 2, "attention_head_dim": 14, "cross_attention_dim": 28},
}


@pytest.mark.parametrize("left_over", LEFT_OVER)
@torch.no_grad()
def test_ltx_computes_the_same(tmp_path, left_over):
    theirs = make_ltx(**LEFT_OVER[left_over])
    theirs.save_pretrained(tmp_path)
    ours = load_network(tmp_path)
    torch.manual_seed(1)
    x, text, fps = torch.randn(B, 6, 3, 5, 4), torch.randn(B, 7, 14), torch.tensor([25.0, 30.0])
    mask = torch.ones(B, 7)
    mask[1, 4:] = 0
    levels = torch.tensor([[0.0, 981.0, 981.0], [0.0, 41.0, 300.0]])
    cond = Conditioning(text=text, text_mask=mask, fps=fps)
    for level in (STEPS, levels):
        expected = call_ltx(theirs, x, level, text, mask, fps)
        assert relative_error(ours(x, level, cond), expected) < 2e-6
    text[1, 4:] = 0  # what is masked changes nothing
    torch.testing.assert_close(ours(x, levels, cond.replace(text=text)), ours(x, levels, cond))
    slow = cond.replace(fps=fps / 2)
    assert relative_error(ours(x, levels, slow), ours(x, levels, cond)) > 1e-3


@torch.no_grad()
def test_later_ltx_networks_know_that_the_first_frame_is_alone(tmp_path):
    theirs = make_ltx()
    theirs.save_pretrained(tmp_path)
    early = load_network(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {FIRST_ALONE: True}))
    ours = load_network(tmp_path)
    torch.manual_seed(1)
    x, text, fps = torch.randn(B, 6, 3, 2, 4), torch.randn(B, 7, 14), torch.tensor([25.0, 30.0])
    mask = torch.ones(B, 7)
    cond = Conditioning(text=text, text_mask=mask, fps=fps)
    expected = call_ltx(theirs, x, STEPS, text, mask, fps, is_late=True)
    assert relative_error(ours(x, STEPS, cond), expected) < 2e-6
    assert relative_error(early(x, STEPS, cond), expected) > 1e-3


def test_ltx_comes_back_bit_for_bit(tmp_path):
    theirs = make_ltx()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="30KB")
    export(load_network(tmp_path / "theirs"), tmp_path / "back")
    back, report = LTXVideoTransformer3DModel.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(report.values())
    expected = theirs.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in back.state_dict().items())
    settings = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {key: settings[key] for key in LTX} == LTX


@pytest.mark.parametrize("kind", LTX_FULL)
def test_full_ltx_networks_have_the_published_keys_and_shapes(kind):
    more, count, keys = LTX_FULL[kind]
    with torch.device("meta"):
        theirs = LTXVideoTransformer3DModel(**more)
        ours = dit_from_config(config_of(theirs))
        found = to_foreign(ours.state_dict(), dit_entries(ours))
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in found.items()} == expected
    assert len(found) == keys
    assert sum(p.numel() for p in ours.parameters()) == count


def test_settings_of_ltx_that_ours_cannot_have_are_refused():
    config = {**LTX, "_class_name": "LTXVideoTransformer3DModel"}
    for change, message in (
        ({"patch_size": 2}, "x.json: got patch_size=2, expected 1"),
        ({"cross_attention_dim": 8}, "x.json: got cross_attention_dim=8, expected 32"),
        ({"norm_eps": 1e-5}, "x.json: got norm_eps=1e-05, expected 1e-06"),
    ):
        with pytest.raises(ValueError, match=message):
            dit_from_config(config | change, "x.json")
