"""diffusers' image VAEs are ours: same pictures, same weights there and back."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import (
    AutoencoderKLTemporalDecoder,
)
from einops import rearrange
from safetensors.torch import load_file, save_file

from tests.models.unet3d_oracles import reference, relative_error
from vdm.pretrained import export, load_autoencoder
from vdm.pretrained.diffusers_folder import WEIGHTS
from vdm.pretrained.diffusers_vae import vae_from_config

B, T = 2, 3
IMAGE = {
    "block_out_channels": (16, 24, 24),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "latent_channels": 5,
    "norm_num_groups": 8,
    "scaling_factor": 0.3,
}
TEMPORAL = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "layers_per_block": 2,
    "latent_channels": 4,
}
CASES = [(AutoencoderKL, IMAGE), (AutoencoderKLTemporalDecoder, TEMPORAL)]


@pytest.fixture(params=CASES, ids=lambda case: case[0].__name__)
def theirs(request):
    cls, config = request.param
    return reference(cls, **config)


@pytest.fixture
def ours(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    return load_autoencoder(tmp_path)


def frames(video):
    return rearrange(video, "b c t h w -> (b t) c h w")


@pytest.mark.parametrize("size", [(16, 24), (40, 8)], ids=str)
@torch.no_grad()
def test_encoders_agree(ours, theirs, size):
    video = torch.rand(B, 3, T, *size) * 2 - 1
    posterior = theirs.encode(frames(video)).latent_dist
    mean, logvar = ours.encode_moments(video)
    assert relative_error(frames(mean), posterior.mean) < 1e-5
    assert relative_error(frames(logvar), posterior.logvar) < 1e-5
    assert torch.equal(ours.encode(video), mean * ours.scale)
    assert theirs.config.scaling_factor == ours.scale


@pytest.mark.parametrize("decode_frames", [None, 1, 2])
@torch.no_grad()
def test_decoders_agree(ours, theirs, decode_frames):
    latents = torch.randn(B, ours.latent_channels, T, 5, 4)
    raw, pieces = latents / ours.scale, []
    for chunk in raw.split(decode_frames or T, dim=2):
        more = {"num_frames": chunk.shape[2]} if ours.is_temporal else {}
        piece = theirs.decode(frames(chunk), **more).sample
        pieces.append(rearrange(piece, "(b t) c h w -> b c t h w", b=B))
    decoded = ours.decode(latents, decode_frames=decode_frames)
    assert relative_error(decoded, torch.cat(pieces, dim=2)) < 1e-5
    assert ours.is_chunk_exact != ours.is_temporal


def test_weights_there_and_back_are_the_same(ours, theirs, tmp_path):
    export(ours, tmp_path / "back")
    again, told = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    state = theirs.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    assert again.config.scaling_factor == theirs.config.scaling_factor


def test_files_of_early_days_are_read(tmp_path):
    theirs = reference(AutoencoderKL, **IMAGE)
    theirs.save_pretrained(tmp_path)
    names = {
        ".to_q.": ".query.",
        ".to_k.": ".key.",
        ".to_v.": ".value.",
        ".to_out.0.": ".proj_attn.",
    }
    state = {}
    for key, value in load_file(tmp_path / WEIGHTS).items():
        for new, old in names.items():
            key = key.replace(new, old)
        state[key] = value
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in state
    save_file(state, tmp_path / WEIGHTS)
    raw = torch.randn(1, 5, 1, 4, 4)
    with torch.no_grad():
        expected = theirs.decode(frames(raw)).sample
        assert relative_error(frames(load_autoencoder(tmp_path).decode_raw(raw)), expected) < 1e-5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "VQModel"}, "got class VQModel, expected AutoencoderKL or"),
        (IMAGE | {"act_fn": "relu"}, "got act_fn='relu', expected 'silu'"),
        (IMAGE | {"use_quant_conv": False}, "got use_quant_conv=False, expected True"),
        (IMAGE | {"in_channels": 4}, "got in_channels=4, expected 3"),
    ],
)
def test_settings_that_ours_cannot_have_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        vae_from_config({"_class_name": "AutoencoderKL"} | config)
