"""CLIP's transformers as transformers builds them."""

import sys

import pytest
import torch

from vdm.conditioning.clip import build_clip

TINY = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPVisionModelWithProjection"])
def test_tables_of_positions_are_there_on_the_meta_device(kind):
    with torch.device("meta"):
        model = build_clip(kind, TINY | {"num_hidden_layers": 1})
    tables = dict(model.named_buffers())
    assert tables
    for table in tables.values():
        assert torch.equal(table.flatten(), torch.arange(table.numel()))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any("position_ids" in key for key in model.state_dict())


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_size": 15},
        {"hidden_size": "wide"},
        {"num_attention_heads": 0},
        {"hidden_act": "roar"},
        {"num_hidden_layers": -1.5},
    ],
    ids=str,
)
def test_settings_that_make_no_encoder_are_refused(settings):
    with pytest.raises(ValueError, match=r"settings of which there is no CLIPTextModel: \S"):
        build_clip("CLIPTextModel", TINY | settings)


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'vdm\[transformers\]'"):
        build_clip("CLIPTextModel", TINY)
