"""Stable Video Diffusion out of its authors' file, which is written here from diffusers' names."""

import re

import pytest
import torch
from safetensors.torch import save_file

import vdm
from tests.pretrained.test_original_unet import original
from tests.pretrained.tiny_models import VISION, svd
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d_blocks import Heads
from vdm.pretrained import sources
from vdm.pretrained.diffusers_files import TensorFiles
from vdm.pretrained.original_svd import ENCODER, IMAGE, UNET, VAE, Sizes, is_svd, read_svd

VAE_NAMES = [
    (r"^quant_conv", "quant_conv"),
    (r"encoder\.down_blocks\.(\d)\.resnets", r"encoder.down.\1.block"),
    (r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample"),
    (r"decoder\.up_blocks\.0\.resnets", "decoder.up.1.block"),
    (r"decoder\.up_blocks\.1\.resnets", "decoder.up.0.block"),
    (r"decoder\.up_blocks\.0\.upsamplers\.0", "decoder.up.1.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"spatial_res_block\.", ""),
    (r"temporal_res_block\.norm1", "time_stack.in_layers.0"),
    (r"temporal_res_block\.conv1", "time_stack.in_layers.2"),
    (r"temporal_res_block\.norm2", "time_stack.out_layers.0"),
    (r"temporal_res_block\.conv2", "time_stack.out_layers.3"),
    (r"time_mixer\.", ""),
    (r"time_conv_out", "conv_out.time_mix_conv"),
]
CLIP_NAMES = [
    (r"^vision_model\.embeddings\.class_embedding", "class_embedding"),
    (r"^vision_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding", "conv1"),
    (r"^vision_model\.pre_layrnorm", "ln_pre"),
    (r"^vision_model\.post_layernorm", "ln_post"),
    (r"^vision_model\.encoder\.layers", "transformer.resblocks"),
    (r"layer_norm", "ln_"),
    (r"self_attn\.out_proj", "attn.out_proj"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
]


def renamed(key, names):
    for theirs, authors in names:
        key = re.sub(theirs, authors, key)
    return key


def vae_state(vae):
    state = {}
    for key, value in vae.state_dict().items():
        name = renamed(key, VAE_NAMES)
        is_kernel = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        state[name] = value[..., None, None] if is_kernel else value
    return state


def clip_state(encoder):
    state, theirs = {}, encoder.state_dict()
    for key, value in theirs.items():
        if key == "visual_projection.weight":
            state["proj"] = value.T
        elif found := re.search(r"(.*)self_attn\.q_proj\.(weight|bias)", key):
            parts = [theirs[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            name = renamed(f"{found[1]}attn.in_proj_{found[2]}", CLIP_NAMES)
            state[name] = torch.cat(parts)
        elif not re.search(r"self_attn\.[kv]_proj", key):
            state[renamed(key, CLIP_NAMES)] = value
    return state


def single_file(pipeline, path):
    """As the authors ship it: an encoder twice, of which one has a map to moments."""
    numbers = {"up": "1", "last": "2", "kernels": False}
    vae = vae_state(pipeline.vae)
    parts = {
        UNET: original(pipeline.unet, numbers),
        VAE: {key: value for key, value in vae.items() if not key.startswith("quant_conv")},
        ENCODER: {key: value for key, value in vae.items() if not key.startswith("decoder.")},
        IMAGE: clip_state(pipeline.image_encoder),
    }
    state = {
        f"{prefix}{key}": value.contiguous().clone()
        for prefix, part in parts.items()
        for key, value in part.items()
    }
    save_file(state, path)


@pytest.fixture
def tiny(monkeypatch):
    """Sizes that no published file has."""
    size = presets.Size(
        Heads(dim=16), 16, widths=(32, 64), depth=1, attention=(1, 0, 1), scalar_dim=8
    )
    sizes = Sizes(size, {"widths": (32, 64), "depth": 2}, VISION)

    def read(path, files, profile, how):
        return read_svd(path, files, profile, sizes, how)

    monkeypatch.setattr(sources, "read_svd", read)


def test_the_file_and_the_folder_are_one_model(tiny, tmp_path):
    theirs = svd()
    theirs.save_pretrained(tmp_path / "folder")
    single_file(theirs, tmp_path / "svd_xt.safetensors")
    one, other = (vdm.load(tmp_path / name) for name in ("folder", "svd_xt.safetensors"))
    assert other.parts.modules.keys() == one.parts.modules.keys()
    for name, module in one.parts.modules.items():
        state = other.parts.modules[name].state_dict()
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    same = ("schedule", "target", "preconditioning", "given", "system")
    for name in same:
        assert getattr(one.parts, name) == getattr(other.parts, name), name
    assert other.parts.defaults.num_frames == 25
    assert (other.parts.defaults.height, other.parts.defaults.width) == (576, 1024)
    assert other.parts.name == "svd_xt"


def test_the_authors_numerics_are_a_profile(tiny, tmp_path):
    single_file(svd(), tmp_path / "svd.safetensors")
    ours = vdm.load(tmp_path / "svd.safetensors", profile="original")
    assert ours.network.up[0].layers[0].resblock.norm1.eps == 1e-5
    assert ours.parts.defaults.num_frames == 14
    usual = vdm.load(tmp_path / "svd.safetensors")
    assert usual.network.up[0].layers[0].resblock.norm1.eps == 1e-6
    with pytest.raises(ValueError, match="got profile='mine'"):
        vdm.load(tmp_path / "svd.safetensors", profile="mine")


def test_a_file_with_a_hole_is_named(tiny, tmp_path):
    path = tmp_path / "svd.safetensors"
    single_file(svd(), path)
    state = dict(TensorFiles([path]))
    assert is_svd(state)
    key = f"{UNET}time_embed.0.bias"
    save_file({k: v.clone() for k, v in state.items() if k != key}, path)
    with pytest.raises(ValueError, match=r"svd\.safetensors: misses time_embed\.0\.bias"):
        vdm.load(path)
