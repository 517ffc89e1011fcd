"""Single files of authors: which network it is, and every weight in its place."""

import re

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_hunyuan_video_transformer_to_diffusers
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from safetensors.torch import save_file

from tests.models.unet3d_oracles import our_state, reference
from tests.pretrained.test_diffusers_unet import COMMON, TINY
from tests.pretrained.test_original_unet import original
from tests.pretrained.tiny_dit import make_hunyuan
from vdm.models import unet3d_presets as presets
from vdm.models.dual_stream_presets import DualStreamSize, hunyuan_video, open_sora_2
from vdm.models.unet3d_blocks import Heads
from vdm.pretrained import load_network
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.original_dual_stream import OPEN_SORA_ORIGINAL, dual_stream_entries
from vdm.pretrained.original_network import (
    KNOWN,
    build_network,
    load_original_network,
    recognize,
)
from vdm.types import Conditioning

SIZE = {"widths": (32, 64), "depth": 1, "attention": (1, 0, 1), "context_dim": 16}
LAVIE = presets.Size(Heads(number=4), num_groups=8, **SIZE)
MODELSCOPE = presets.Size(Heads(dim=8), **SIZE)


def lavie_state(has_bias, in_channels=4):
    """An image model's weights under diffusers' names, and attentions over time beside them."""
    config = COMMON | TINY[UNet2DConditionModel] | {"in_channels": in_channels}
    state = dict(reference(UNet2DConditionModel, **config).state_dict())
    blocks = {key.split(".norm3")[0]: len(v) for key, v in state.items() if "norm3.weight" in key}
    for block, dim in blocks.items():
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            state[f"{block}.attn_temp.{part}.weight"] = torch.randn(dim, dim)
        state[f"{block}.attn_temp.to_out.0.bias"] = torch.randn(dim)
        state[f"{block}.norm_temp.weight"] = torch.randn(dim)
        state[f"{block}.norm_temp.bias"] = torch.randn(dim)
        if has_bias:
            name = "time_rel_pos_bias.relative_attention_bias.weight"
            state[f"{block}.attn_temp.{name}"] = torch.randn(32, 4)
            state[f"{block}.attn_temp.rotary_emb.freqs"] = torch.randn(4)
    return state


@pytest.mark.parametrize("kind", ["lavie", "lavie_interpolation"])
def test_lavie(kind, tmp_path):
    is_base = kind == "lavie"
    state = lavie_state(is_base, 4 if is_base else 8)
    torch.save({"ema": state}, tmp_path / "lavie.pt")
    ours = load_original_network(tmp_path / "lavie.pt", lambda: getattr(presets, kind)(LAVIE))
    own = ours.state_dict()
    spatial = {key: value for key, value in state.items() if "temp" not in key}
    expected = our_state(spatial, own)
    rest = own.keys() - expected.keys()
    assert all(torch.equal(own[key], value) for key, value in expected.items())
    assert len(rest) == sum("temp" in key and "freqs" not in key for key in state)
    transformer = ours.down[0].layers[0].transformer
    guest = transformer.blocks[0].guests[0] if is_base else transformer.blocks[1]
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    assert torch.equal(guest.attention.to_k.weight, state[f"{block}.attn_temp.to_k.weight"])
    assert torch.equal(guest.norm.bias, state[f"{block}.norm_temp.bias"])
    x, steps = torch.randn(2, 4, 3, 8, 12), torch.tensor([7.0, 900.0])
    given = {} if is_base else {"given": torch.randn_like(x)}
    cond = Conditioning(text=torch.randn(2, 5, 16), **given)
    assert ours(x, steps, cond).shape == x.shape


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s}], ids=["bare", "wrapped"]
)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "_module.model.diffusion_model."])
def test_modelscope(wrap, prefix, tmp_path):
    theirs = reference(UNet3DConditionModel, **COMMON, **TINY[UNet3DConditionModel])
    state = original(theirs, {"up": "1", "last": "3", "kernels": True})
    named = {f"{prefix}{key}": value for key, value in state.items()}
    if prefix:  # a file of the whole model, of which this is a part
        named["first_stage_model.quant_conv.bias"] = torch.ones(1)
    torch.save(wrap(named), tmp_path / "model.pth")
    ours = load_original_network(tmp_path / "model.pth", lambda: presets.modelscope(MODELSCOPE))
    expected = our_state(theirs.state_dict(), ours.state_dict())
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())


def test_networks_are_recognized_by_their_keys():
    lavie = lavie_state(True)
    assert recognize(lavie, "f") == "lavie"
    assert recognize(lavie_state(False), "f") == "lavie_interpolation"
    theirs = reference(UNet3DConditionModel, **COMMON, **TINY[UNet3DConditionModel])
    modelscope = original(theirs, {"up": "1", "last": "3", "kernels": True})
    assert recognize(modelscope, "f") == "modelscope"
    crafter = {key.replace("input_blocks.0.1.", "init_attn.0."): 0 for key in modelscope}
    assert recognize([*crafter, "fps_embedding.0.weight"], "f") == "videocrafter2"
    with pytest.raises(ValueError, match=r"f\.pt: got a file of no known network, expected one of"):
        recognize(["weight"], "f.pt")
    assert set(KNOWN) >= {"stable_video_diffusion", "videocrafter2", "modelscope", "lavie"}


def test_load_network_takes_such_files(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt: got a file of no known network"):
        load_network(tmp_path / "odd.pt")
    save_file({"weight": torch.ones(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match=r"odd\.safetensors: got a file of no known network"):
        load_network(tmp_path / "odd.safetensors")


def hunyuan_originals(theirs):
    """Weights of diffusers' HunyuanVideo under their authors' names, some of them fused."""
    state = {}
    for key, value in theirs.items():
        if key.startswith("norm_out."):
            value = torch.cat(value.chunk(2)[::-1])
        for pattern, name in HUNYUAN_NAMES:
            key = re.sub(pattern, name, key)
        state.setdefault(key, []).append(value)
    return {key: torch.cat(values) for key, values in state.items()}


FUSED = ("to_q.", "add_q_", "to_k.", "add_k_", "to_v.", "add_v_", "proj_mlp.")
"""Parts of tensors of theirs, in the order in which they stand there."""
HUNYUAN_NAMES = [
    (r"^context_embedder\.time_text_embed\.timestep_embedder\.linear_1", "txt_in.t_embedder.mlp.0"),
    (r"^context_embedder\.time_text_embed\.timestep_embedder\.linear_2", "txt_in.t_embedder.mlp.2"),
    (r"^context_embedder\.time_text_embed\.text_embedder", "txt_in.c_embedder"),
    (r"^context_embedder\.proj_in", "txt_in.input_embedder"),
    (r"^context_embedder\.token_refiner\.refiner_blocks", "txt_in.individual_token_refiner.blocks"),
    (r"(refiner\.blocks\.\d+)\.attn\.to_[qkv]", r"\1.self_attn_qkv"),
    (r"(refiner\.blocks\.\d+)\.attn\.to_out\.0", r"\1.self_attn_proj"),
    (r"(refiner\.blocks\.\d+)\.norm_out\.linear", r"\1.adaLN_modulation.1"),
    (r"(refiner\.blocks\.\d+)\.ff\.", r"\1.mlp."),
    (r"^x_embedder", "img_in"),
    (r"^time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer"),
    (r"^time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer"),
    (r"^time_text_embed\.timestep_embedder\.linear_1", "time_in.mlp.0"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "time_in.mlp.2"),
    (r"^time_text_embed\.guidance_embedder\.linear_1", "guidance_in.mlp.0"),
    (r"^time_text_embed\.guidance_embedder\.linear_2", "guidance_in.mlp.2"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"^proj_out", "final_layer.linear"),
    (r"^single_transformer_blocks(\.\d+)\.(attn\.to_[qkv]|proj_mlp)", r"single_blocks\1.linear1"),
    (r"^single_transformer_blocks(\.\d+)\.proj_out", r"single_blocks\1.linear2"),
    (r"^single_transformer_blocks(\.\d+)\.norm\.", r"single_blocks\1.modulation."),
    (r"^single_transformer_blocks(\.\d+)\.attn\.norm_(.)", r"single_blocks\1.\2_norm"),
    (r"^transformer_blocks", "double_blocks"),
    (r"\.norm1_context\.", ".txt_mod."),
    (r"^(double_blocks\.\d+)\.norm1\.", r"\1.img_mod."),
    (r"\.ff_context\.", ".txt_mlp."),
    (r"\.ff\.", ".img_mlp."),
    (r"net\.0\.proj", "fc1"),
    (r"net\.2", "fc2"),
    (r"attn\.to_[qkv]", "img_attn_qkv"),
    (r"attn\.add_[qkv]_proj", "txt_attn_qkv"),
    (r"attn\.to_out\.0", "img_attn_proj"),
    (r"attn\.to_add_out", "txt_attn_proj"),
    (r"attn\.norm_added_(.)", r"txt_attn_\1_norm"),
    (r"attn\.norm_(.)", r"img_attn_\1_norm"),
]


@pytest.mark.parametrize(
    ("kind", "name"), [("t2v", "hunyuan_video"), ("i2v-concat", "hunyuan_video_image")]
)
def test_hunyuan_video(kind, name, tmp_path):
    theirs = make_hunyuan(kind)
    state = dict(theirs.state_dict())
    order = sorted(state, key=lambda key: [part in key for part in reversed(FUSED)])
    original_state = hunyuan_originals({key: state[key] for key in order})
    assert recognize(original_state, "file") == name
    path = tmp_path / "mp_rank_00_model_states.pt"
    torch.save({"module": original_state}, path)
    size = DualStreamSize(2, 10, (2, 1), 4, 14, 16, (2, 4, 4), refiner_depth=1)
    loaded = load_original_network(path, lambda: hunyuan_video(kind, size)).state_dict()
    theirs.save_pretrained(tmp_path / "folder")
    expected = load_network(tmp_path / "folder").state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.items())
    oracle = convert_hunyuan_video_transformer_to_diffusers
    by_diffusers = oracle({k: v for k, v in original_state.items() if ".linear1." not in k})
    assert all(torch.equal(value, state[key]) for key, value in by_diffusers.items())


def test_open_sora_2(tmp_path):
    size = DualStreamSize(2, 10, (2, 1), 4, 14, 16, (2, 4, 4))
    torch.manual_seed(0)
    ours = open_sora_2(size)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    found = to_foreign(ours.state_dict(), dual_stream_entries(ours, OPEN_SORA_ORIGINAL))
    own = ours.state_dict()
    joint = torch.cat(
        [own[f"single_blocks.0.{part}.bias"] for part in ("attention.to_v", "to_hidden")]
    )
    assert torch.equal(found["single_blocks.0.v_mlp.bias"], joint)
    save_file(found, tmp_path / "Open_Sora_v2.safetensors")
    assert recognize(found, "file") == "open_sora_2"
    loaded = build_network(found, "open_sora_2", tmp_path, lambda: open_sora_2(size)).state_dict()
    assert all(torch.equal(value, own[key]) for key, value in loaded.items())
    with torch.device("meta"):
        full = open_sora_2()
        names = to_foreign(full.state_dict(), dual_stream_entries(full, OPEN_SORA_ORIGINAL))
    assert len(names) == 1082
    assert names["cond_in.weight"].shape == (3072, 68)
    assert names["double_blocks.18.txt_attn.norm.key_norm.scale"].shape == (128,)
    assert names["single_blocks.37.v_mlp.weight"].shape == (5 * 3072, 3072)
