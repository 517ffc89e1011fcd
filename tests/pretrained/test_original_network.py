"""Single files of authors: which network it is, and every weight in its place."""

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from safetensors.torch import save_file

from tests.models.unet3d_oracles import our_state, reference
from tests.pretrained.test_diffusers_unet import COMMON, TINY
from tests.pretrained.test_original_unet import original
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d_blocks import Heads
from vdm.pretrained import load_network
from vdm.pretrained.original_network import KNOWN, load_original_network, recognize
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
