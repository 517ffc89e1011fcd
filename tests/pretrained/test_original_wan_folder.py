"""Wan's models in their authors' folders are those that diffusers has in its own."""

from contextlib import ExitStack
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline
from safetensors.torch import save_file

import vdm
from tests.pretrained.tiny_wan import (
    GIVEN,
    WAN_21,
    WAN_22,
    base_parts,
    make_image_encoder,
    make_network,
)
from vdm.models.experts import Experts
from vdm.pretrained import original_wan_folder as original
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.original_causal_vae import KNOWN, original_vae_entries
from vdm.pretrained.original_wan import original_wan_entries

WIDE = {"num_attention_heads": 1, "attention_head_dim": 128, "num_layers": 1}
"""Heads are as wide as published."""
IMAGE_DIM = 32
TOLD = GIVEN | {"image_dim": IMAGE_DIM, "added_kv_proj_dim": 128}
VAES = {"wan2.1": (original.VAE, WAN_21), "wan2.2": (original.VAE_22, WAN_22)}


def picture_model():
    parts = base_parts(WAN_21, 5.0) | make_image_encoder(IMAGE_DIM, original.NUM_HEADS)
    return WanImageToVideoPipeline(**parts, transformer=make_network(**WIDE, **TOLD))


def model_of_two():
    names = ("transformer", "transformer_2")
    both = {name: make_network(is_two, **WIDE) for is_two, name in enumerate(names)}
    return WanPipeline(**base_parts(WAN_21, 12.0), **both, boundary_ratio=0.875)


def model_in_place():
    parts = base_parts(WAN_22, 5.0)
    return WanPipeline(**parts, transformer=make_network(**WIDE), expand_timesteps=True)


MODELS = {
    "Wan2.1-I2V-14B": (picture_model, "wan2.1"),
    "Wan2.2-T2V-A14B": (model_of_two, "wan2.1"),
    "Wan2.2-TI2V-5B": (model_in_place, "wan2.2"),
}


def umt5_of_authors(model):
    """Weights under their names, written a second time."""
    found = {"token_embedding": model.shared, "norm": model.encoder.final_layer_norm}
    for number, block in enumerate(model.encoder.block):
        first, second = block.layer
        inside, dense = first.SelfAttention, second.DenseReluDense
        parts = {
            "norm1": first.layer_norm,
            "norm2": second.layer_norm,
            "pos_embedding.embedding": inside.relative_attention_bias,
            "ffn.gate.0": dense.wi_0,
            "ffn.fc1": dense.wi_1,
            "ffn.fc2": dense.wo,
        }
        parts |= {f"attn.{name}": getattr(inside, name) for name in "qkvo"}
        found |= {f"blocks.{number}.{name}": part for name, part in parts.items()}
    return {f"{name}.weight": part.weight for name, part in found.items()}


def clip_of_authors(model):
    """The same of the image tower; beside it something of the text tower."""
    tower = getattr(model, "vision_model", model)
    table = tower.embeddings
    found = {
        "cls_embedding": table.class_embedding[None, None],
        "pos_embedding": table.position_embedding.weight[None],
        "patch_embedding.weight": table.patch_embedding.weight,
        "head": torch.zeros(IMAGE_DIM, 2),
    }
    parts = {"pre_norm": tower.pre_layrnorm, "post_norm": tower.post_layernorm}
    for number, layer in enumerate(tower.encoder.layers):
        inside = {
            "norm1": layer.layer_norm1,
            "norm2": layer.layer_norm2,
            "attn.proj": layer.self_attn.out_proj,
            "mlp.0": layer.mlp.fc1,
            "mlp.2": layer.mlp.fc2,
        }
        parts |= {f"transformer.{number}.{name}": part for name, part in inside.items()}
        three = [getattr(layer.self_attn, f"{name}_proj") for name in "qkv"]
        for kind in ("weight", "bias"):
            fused = torch.cat([getattr(one, kind) for one in three])
            found[f"transformer.{number}.attn.to_qkv.{kind}"] = fused
    for name, part in parts.items():
        found |= {f"{name}.{kind}": value for kind, value in part.named_parameters()}
    found = {f"visual.{name}": value.detach().clone() for name, value in found.items()}
    return found | {"log_scale": torch.zeros(()), "textual.head.0.weight": torch.zeros(2)}


def write(folder, theirs, ours, vae):
    """The authors' folder of a model, which is here already."""
    name, known = VAES[vae][0], KNOWN[vae]
    network = ours.network
    pair = isinstance(network, Experts)
    for place, one in zip(
        original.PAIR if pair else ("",),
        (network.high, network.low) if pair else (network,),
        strict=True,
    ):
        (folder / place).mkdir(parents=True, exist_ok=True)
        state = to_foreign(one.state_dict(), original_wan_entries(one))
        state = {key: value.contiguous() for key, value in state.items()}
        save_file(state, folder / place / "diffusion_pytorch_model.safetensors")
    places = original_vae_entries(ours.autoencoder, known)
    torch.save(to_foreign(ours.autoencoder.state_dict(), places), folder / name)
    torch.save(umt5_of_authors(theirs.text_encoder), folder / original.T5)
    theirs.tokenizer.save_pretrained(folder / original.TOKENIZER)
    if ours.image_encoder is not None:
        torch.save(clip_of_authors(theirs.image_encoder), folder / original.CLIP)


def small_vaes():
    """While this is open, files hold small VAEs."""
    stack = ExitStack()
    for name, (_, config) in VAES.items():
        small = replace(KNOWN[name], config=KNOWN[name].config | config)
        stack.enter_context(patch.dict(KNOWN, {name: small}))
    return stack


@pytest.mark.parametrize("system", MODELS)
@torch.no_grad()
def test_it_is_the_model_that_diffusers_has(system, tmp_path):
    make, vae = MODELS[system]
    theirs = make()
    theirs.save_pretrained(tmp_path / "model")
    expected = vdm.load(tmp_path / "model")
    with small_vaes():
        write(tmp_path / "authors" / "model", theirs, expected, vae)
        found = vdm.load(tmp_path / "authors" / "model")
    assert found.parts.system == system
    assert found.parts.modules.keys() == expected.parts.modules.keys()
    for name, part in expected.parts.modules.items():
        state = getattr(found, name).state_dict()
        assert state.keys() == part.state_dict().keys()
        assert all(torch.equal(value, state[key]) for key, value in part.state_dict().items())
    for rule in ("given", "schedule", "target", "preconditioning", "defaults", "envelope"):
        assert getattr(found.parts, rule) == getattr(expected.parts, rule)
    assert getattr(found.network, "boundary", 0) == getattr(expected.network, "boundary", 0)
    words = [one.text_encoder.encode(["a cat runs"]).text for one in (found, expected)]
    assert torch.equal(*words)
    if found.image_encoder is not None:
        picture = 2 * torch.rand(1, 3, 20, 30) - 1
        seen = [one.image_encoder.encode_image(picture) for one in (found, expected)]
        assert torch.equal(*seen)


def test_what_tells_a_size_has_to_be_there(tmp_path):
    path = tmp_path / "some.pth"
    torch.save({"visual.cls_embedding": torch.zeros(1, 1, 2)}, path)
    with pytest.raises(ValueError, match=r"has no visual.patch_embedding.weight of 4 axes"):
        original.load_wan_clip(path)
    with pytest.raises(ValueError, match=r"has no token_embedding.weight of 2 axes"):
        original.load_umt5(path, tmp_path)
