"""CogVideoX's networks out of their authors' files, written here from diffusers' names."""

import re

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import save_file

from tests.models.unet3d_oracles import relative_error
from tests.pretrained.test_diffusers_dit import FULL, STEPS, SWITCHES, config_of
from tests.pretrained.tiny_dit import COGVIDEOX_KINDS, call_cogvideox, make_cogvideox
from vdm.models.dit_presets import CogVideoXSize
from vdm.pretrained import load_network
from vdm.pretrained import original_cogvideox as original
from vdm.pretrained.diffusers_dit_config import dit_from_config
from vdm.pretrained.keymap import to_foreign
from vdm.types import Conditioning

PREFIX = "model.diffusion_model."
TINY = {"num_heads": 3, "head_dim": 16, "in_channels": 4, "text_dim": 14, "cond_dim": 20}
SAMPLES = {"2b": (3, 8, 12), "5b": (3, 8, 12), "1.5": (3, 40, 40)}
DEPTHS = {"2b": 1, "5b": 2, "1.5": 2}

# From diffusers' keys to the authors', written a second time.
NAMES = [
    (r"^patch_embed\.pos_embedding$", "mixins.pos_embed.pos_embedding"),
    (r"^patch_embed\.", "mixins.patch_embed."),
    (r"^(time|ofs)_embedding\.linear_1", r"\1_embed.0"),
    (r"^(time|ofs)_embedding\.linear_2", r"\1_embed.2"),
    (r"^norm_final", "transformer.final_layernorm"),
    (r"^norm_out\.norm", "mixins.final_layer.norm_final"),
    (r"^norm_out\.linear", "mixins.final_layer.adaLN_modulation.1"),
    (r"^proj_out", "mixins.final_layer.linear"),
    (r"^transformer_blocks\.(\d+)\.attn1\.norm_q", r"mixins.adaln_layer.query_layernorm_list.\1"),
    (r"^transformer_blocks\.(\d+)\.attn1\.norm_k", r"mixins.adaln_layer.key_layernorm_list.\1"),
    (r"^transformer_blocks\.(\d+)\.norm1\.norm", r"transformer.layers.\1.input_layernorm"),
    (r"^transformer_blocks\.(\d+)\.norm2\.norm", r"transformer.layers.\1.post_attention_layernorm"),
    (r"^transformer_blocks\.(\d+)\.attn1\.to_out\.0", r"transformer.layers.\1.attention.dense"),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"transformer.layers.\1.mlp.dense_h_to_4h"),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.2", r"transformer.layers.\1.mlp.dense_4h_to_h"),
]


def authors_state(theirs):
    """The authors' file of a model of diffusers."""
    left, found = dict(theirs), {}
    for layer in range(100):
        block = f"transformer_blocks.{layer}"
        if f"{block}.norm1.linear.weight" not in left:
            break
        for kind in ("weight", "bias"):
            parts = [left.pop(f"{block}.attn1.to_{part}.{kind}") for part in "qkv"]
            fused = f"transformer.layers.{layer}.attention.query_key_value.{kind}"
            found[fused] = torch.cat(parts)
            one, two = (left.pop(f"{block}.norm{n}.linear.{kind}").chunk(6) for n in (1, 2))
            rows = [*one[:3], *two[:3], *one[3:], *two[3:]]
            found[f"mixins.adaln_layer.adaLN_modulations.{layer}.1.{kind}"] = torch.cat(rows)
    for key, value in left.items():
        (name,) = [re.sub(ours, theirs, key) for ours, theirs in NAMES if re.search(ours, key)][:1]
        found[name] = value
    return found


@pytest.mark.parametrize("kind", ["2b", "5b-i2v", "1.5-i2v"])
def test_full_sizes_have_the_keys_of_the_authors(kind):
    more, *_ = FULL[kind]
    with torch.device("meta"):
        theirs = CogVideoXTransformer3DModel(**more, **SWITCHES[kind])
        ours = dit_from_config(config_of(theirs))
        found = to_foreign(ours.state_dict(), original.cogvideox_entries(ours))
        expected = authors_state(theirs.state_dict())
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in expected.items()
    }
    assert original.MARK in found


@pytest.fixture
def published(monkeypatch):
    """As if the tiny sizes were the published ones."""
    names = {"2b": "COGVIDEOX_2B", "5b": "COGVIDEOX_5B", "1.5": "COGVIDEOX_15_5B"}
    for family, name in names.items():
        size = CogVideoXSize(depth=DEPTHS[family], num_text=5, sample=SAMPLES[family], **TINY)
        monkeypatch.setattr(original, name, size)


@pytest.mark.parametrize("kind", COGVIDEOX_KINDS)
@torch.no_grad()
def test_a_file_of_the_authors_is_the_same_network(kind, published, tmp_path):
    family = kind.removesuffix("-i2v")
    theirs = make_cogvideox(kind, num_layers=DEPTHS[family])
    state = authors_state(theirs.state_dict())
    unused = {"transformer.word_embeddings.weight": torch.ones(1, 2)}
    unused |= {"mixins.pos_embed.pos_embedding": torch.ones(2, 2)} if kind == "2b" else {}
    wrapped = {PREFIX + key: value.contiguous() for key, value in (unused | state).items()}
    path = tmp_path / ("network.safetensors" if kind == "5b" else "mp_rank_00_model_states.pt")
    save_file(wrapped, path) if kind == "5b" else torch.save({"module": wrapped}, path)
    ours = load_network(path)
    back = to_foreign(ours.state_dict(), original.cogvideox_entries(ours))
    assert back.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in back.items())
    shape = (2, 4, 3 * ours.patch_size[0], 8, 12)
    torch.manual_seed(1)
    x, text = torch.randn(shape), torch.randn(2, 5, 14)
    given = torch.randn(shape) if kind.endswith("i2v") else None
    expected = call_cogvideox(theirs, x, STEPS, text, given)
    assert relative_error(ours(x, STEPS, Conditioning(text=text, given=given)), expected) < 2e-6


def test_a_file_with_more_is_refused(published, tmp_path):
    state = authors_state(make_cogvideox("2b", num_layers=1).state_dict())
    path = tmp_path / "network.safetensors"
    save_file(
        {PREFIX + key: v.contiguous() for key, v in (state | {"wings": torch.ones(1)}).items()},
        path,
    )
    with pytest.raises(ValueError, match="holds wings, for which there is no place"):
        load_network(path)
