"""Wan's networks in the files of their authors: every weight in its place."""

import json
from typing import get_args

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import save_file

from tests.pretrained.tiny_dit import make_wan
from tests.pretrained.tiny_wan import PICTURES, make_network
from vdm.models.dit_presets import WanKind, WanSize, wan
from vdm.pretrained import load_network
from vdm.pretrained.diffusers_dit import dit_entries
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.original_wan import (
    is_original_wan,
    load_original_wan,
    network_of,
    original_wan_entries,
)
from vdm.utils.config import describe

KINDS = {"words": {}, "two pictures": PICTURES}
PLACES = {"img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed"}
"""What diffusers' reader of single files has no name for; its script of conversion has."""


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_those_that_diffusers_converts(kind, tmp_path):
    theirs = make_network(**KINDS[kind])
    theirs.save_pretrained(tmp_path)
    ours = load_network(tmp_path)
    original = to_foreign(ours.state_dict(), original_wan_entries(ours))
    assert is_original_wan(original)
    converted = convert_wan_transformer_to_diffusers(dict(original))
    converted = {PLACES.get(key, key): value for key, value in converted.items()}
    expected = theirs.state_dict()
    assert converted.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in converted.items())
    read = load_original_wan(original, "f", lambda: network_of(original, "f", head_dim=12))
    state = ours.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in read.state_dict().items())


@pytest.mark.parametrize("kind", get_args(WanKind))
def test_shapes_tell_which_network_it_is(kind):
    with torch.device("meta"):
        ours = wan(WanSize(2, 12, 1, 32, 5, 14, (1, 2, 2), 10, 6), kind)
        original = to_foreign(ours.state_dict(), original_wan_entries(ours))
        found = network_of(original, "f", head_dim=12)
    assert describe(found) == describe(ours)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """One whose attention head is as wide as published, there and here."""
    folder = tmp_path_factory.mktemp("wide")
    make_wan(num_attention_heads=1, attention_head_dim=128, num_layers=1).save_pretrained(folder)
    return load_network(folder)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_single_file_is_recognized(wide, prefix, tmp_path):
    state = to_foreign(wide.state_dict(), original_wan_entries(wide))
    path = tmp_path / "wan.safetensors"
    save_file({f"{prefix}{key}": value.contiguous() for key, value in state.items()}, path)
    ours, expected = load_network(path), wide.state_dict()
    assert describe(ours) == describe(wide)
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
    torch.save(state, tmp_path / "wan.pth")
    assert describe(load_network(tmp_path / "wan.pth")) == describe(wide)


def test_a_folder_of_its_authors_is_read(wide, tmp_path):
    state = to_foreign(wide.state_dict(), original_wan_entries(wide))
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 128}))
    save_file(
        {key: value.contiguous() for key, value in state.items()},
        tmp_path / "diffusion_pytorch_model.safetensors",
    )
    ours, expected = load_network(tmp_path), wide.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())


def test_what_is_none_is_refused(wide):
    state = to_foreign(wide.state_dict(), original_wan_entries(wide))
    with pytest.raises(ValueError, match=r"f: holds blocks.9.ffn.0.bias, for which there is no pl"):
        load_original_wan(
            state | {"blocks.9.ffn.0.bias": torch.ones(1)},
            "f",
            lambda: network_of(state, "f"),
        )
    odd = state | {"patch_embedding.weight": torch.ones(128, 9, 1, 2, 2)}
    with pytest.raises(ValueError, match="f: got a network of 9 channels, expected 4 or 12"):
        network_of(odd, "f")
    odd = state | {"patch_embedding.weight": torch.ones(128, 16)}
    with pytest.raises(ValueError, match=r"f: patch_embedding.weight has shape \(128, 16\), exp"):
        network_of(odd, "f")
    assert not is_original_wan([entry.theirs for entry in dit_entries(wide)])
