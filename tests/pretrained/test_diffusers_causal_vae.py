"""diffusers' causal VAEs are ours: same latents, same frames, same weights there and back."""

import json
from functools import cache

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from tests.models.unet3d_oracles import reference, relative_error
from vdm.layers import pieces
from vdm.pipelines.plan import MemoryMeter
from vdm.pretrained import export, load_autoencoder
from vdm.pretrained.diffusers_causal_vae import causal_vae_entries, causal_vae_from_config
from vdm.pretrained.keymap import to_foreign

B = 2
COGVIDEOX = {
    "block_out_channels": (12, 16, 16, 20),
    "layers_per_block": 1,
    "latent_channels": 5,
    "norm_num_groups": 4,
    "scaling_factor": 0.7,
}
HUNYUAN = {
    "block_out_channels": (8, 12, 16, 12),
    "layers_per_block": 1,
    "latent_channels": 5,
    "norm_num_groups": 4,
    "scaling_factor": 0.7,
}
WAN = {
    "base_dim": 6,
    "z_dim": 5,
    "dim_mult": [1, 2, 3, 2],
    "num_res_blocks": 1,
    "latents_mean": [0.1, -0.2, 0.3, -0.4, 0.5],
    "latents_std": [1.1, 1.2, 1.3, 0.9, 0.8],
}
WAN_22 = WAN | {
    "decoder_base_dim": 8,
    "dim_mult": [1, 2, 2, 2],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}
LTX = {
    "latent_channels": 5,
    "block_out_channels": [6, 8, 10],
    "decoder_block_out_channels": [6, 10, 8],
    "layers_per_block": [1, 2, 1, 1],
    "decoder_layers_per_block": [1, 1, 2, 1],
    "spatio_temporal_scaling": [True, True, False],
    "decoder_spatio_temporal_scaling": [True, True, False],
    "decoder_inject_noise": [False] * 4,
    "down_block_types": ["LTXVideoDownBlock3D"] * 3,
    "downsample_type": ["conv"] * 3,
    "upsample_residual": [False] * 3,
    "upsample_factor": [1] * 3,
}
LTX_TOLD = LTX | {
    "decoder_block_out_channels": [8, 16],
    "decoder_layers_per_block": [1, 2, 1],
    "decoder_spatio_temporal_scaling": [True, True],
    "decoder_inject_noise": [False, True, True],
    "upsample_residual": [True] * 2,
    "upsample_factor": [2] * 2,
    "timestep_conditioning": True,
}
LTX_FOLDING = LTX_TOLD | {
    "block_out_channels": [4, 8, 16, 32],
    "down_block_types": ["LTXVideo095DownBlock3D"] * 3,
    "downsample_type": ["spatial", "temporal", "spatiotemporal"],
    "spatio_temporal_scaling": [True] * 3,
    "decoder_inject_noise": [False] * 3,
    "spatial_compression_ratio": 16,
    "temporal_compression_ratio": 4,
}
TINY = {
    "CogVideoX": (AutoencoderKLCogVideoX, COGVIDEOX),
    "HunyuanVideo": (AutoencoderKLHunyuanVideo, HUNYUAN),
    "Wan 2.1": (AutoencoderKLWan, WAN),
    "Wan 2.2": (AutoencoderKLWan, WAN_22),
    "LTX 0.9.0": (AutoencoderKLLTXVideo, LTX),
    "LTX 0.9.1": (AutoencoderKLLTXVideo, LTX_TOLD),
    "LTX 0.9.5": (AutoencoderKLLTXVideo, LTX_FOLDING),
}
WAN_22_FULL = WAN_22 | {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "latents_mean": [0.1] * 48,
    "latents_std": [1.5] * 48,
}
LTX_TOLD_FULL = {
    "decoder_block_out_channels": (256, 512, 1024),
    "decoder_layers_per_block": (5, 6, 7, 8),
    "decoder_spatio_temporal_scaling": (True,) * 3,
    "decoder_inject_noise": (True, True, True, False),
    "upsample_residual": (True,) * 3,
    "upsample_factor": (2,) * 3,
    "timestep_conditioning": True,
}
LTX_FOLDING_FULL = LTX_TOLD_FULL | {
    "block_out_channels": (128, 256, 512, 1024, 2048),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "layers_per_block": (4, 6, 6, 2, 2),
    "decoder_layers_per_block": (5, 5, 5, 5),
    "decoder_inject_noise": (False,) * 4,
    "spatio_temporal_scaling": (True,) * 4,
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
FULL = {
    "CogVideoX": (AutoencoderKLCogVideoX, {}, 215_583_907, 436),
    "HunyuanVideo": (AutoencoderKLHunyuanVideo, {}, 246_478_803, 248),
    "Wan 2.1": (AutoencoderKLWan, {}, 126_892_531, 194),
    "Wan 2.2": (AutoencoderKLWan, WAN_22_FULL, 704_688_668, 196),
    "LTX 0.9.0": (AutoencoderKLLTXVideo, {}, 419_193_649, 190),
    "LTX 0.9.1": (AutoencoderKLLTXVideo, LTX_TOLD_FULL, 934_976_434, 294),
    "LTX 0.9.5": (AutoencoderKLLTXVideo, LTX_FOLDING_FULL, 1_246_913_522, 226),
}
FRAMES = {
    "CogVideoX": [1, 5, 17],
    "HunyuanVideo": [1, 13, 17, 33],
    "Wan 2.1": [1, 9],
    "Wan 2.2": [1, 9],
    "LTX 0.9.0": [1, 9],
    "LTX 0.9.1": [5],
    "LTX 0.9.5": [1, 9],
}
"""Of clips that are encoded; those of more than one window among them."""
LATENT_FRAMES = {
    "CogVideoX": [1, 2, 5],
    "HunyuanVideo": [1, 4, 5, 7, 9],
    "Wan 2.1": [1, 4],
    "Wan 2.2": [1, 3],
    "LTX 0.9.0": [1, 3],
    "LTX 0.9.1": [1, 3],
    "LTX 0.9.5": [2],
}


@cache
def pair(system, folder):
    """A reference and what was read from its folder."""
    cls, config = TINY[system]
    theirs = make(cls, config)
    theirs.save_pretrained(folder)
    return load_autoencoder(folder), theirs


def make(cls, config):
    """With every number drawn anew; what noise levels are multiplied by stays large."""
    theirs = reference(cls, 1.0, **config)
    if cls is AutoencoderKLLTXVideo:
        torch.nn.init.normal_(theirs.latents_mean)
        torch.nn.init.uniform_(theirs.latents_std, 0.5, 2)
        if theirs.config.timestep_conditioning:
            theirs.decoder.timestep_scale_multiplier.data.fill_(700)
    return theirs


def decode_there(theirs, raw):
    """Frames of raw latents, told what their noise time is where that is asked for."""
    if not getattr(theirs.config, "timestep_conditioning", False):
        return theirs.decode(raw).sample
    torch.manual_seed(0)
    return theirs.decode(raw, torch.full((len(raw),), 0.05, device=raw.device)).sample


@pytest.fixture(scope="module", params=TINY)
def system(request):
    return request.param


@pytest.fixture(scope="module")
def both(system, tmp_path_factory):
    return pair(system, tmp_path_factory.mktemp(system))


def counts(table):
    return [(name, count) for name, found in table.items() for count in found]


@pytest.mark.parametrize(("name", "num_frames"), counts(FRAMES))
@torch.no_grad()
def test_encoders_agree(name, num_frames, tmp_path_factory):
    ours, theirs = pair(name, tmp_path_factory.getbasetemp() / name)
    _, sh, sw = ours.strides
    video = torch.rand(B, 3, num_frames, 2 * sh, 3 * sw) * 2 - 1
    posterior = theirs.encode(video).latent_dist
    mean, logvar = ours.encode_moments(video)
    assert relative_error(mean, posterior.mean) < 2e-5
    assert relative_error(logvar, posterior.logvar) < 2e-5


@pytest.mark.parametrize(("name", "num_frames"), counts(LATENT_FRAMES))
@torch.no_grad()
def test_decoders_agree(name, num_frames, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(pieces, "MOST_LATENTS_AT_ONCE", 0)  # as clips of usual size are decoded
    ours, theirs = pair(name, tmp_path_factory.getbasetemp() / name)
    raw = torch.randn(B, ours.latent_channels, num_frames, 2, 3)
    decoded = ours.decode(ours.scale.normalize(raw))
    assert relative_error(decoded, decode_there(theirs, raw)) < 2e-5


def test_weights_there_and_back_are_the_same(both, tmp_path):
    ours, theirs = both
    export(ours, tmp_path)
    again, told = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    state = theirs.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    settings = [json.loads(each.to_json_string()) for each in (again, theirs)]
    for each in settings:
        each.pop("_name_or_path", None)
    assert settings[0] == settings[1]


@cache
def full_pair(name):
    """A reference in full size and ours, without weights."""
    cls, config, *_ = FULL[name]
    with torch.device("meta"):
        theirs = cls(**config).eval()
        return causal_vae_from_config({**theirs.config, "_class_name": cls.__name__}), theirs


@pytest.mark.parametrize("name", FULL)
def test_full_sizes_have_the_same_keys_and_shapes(name):
    *_, count, num_keys = FULL[name]
    ours, theirs = full_pair(name)
    found = to_foreign(ours.state_dict(), causal_vae_entries(ours))
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in found.items()} == shapes
    assert sum(parameter.numel() for parameter in ours.parameters()) == count
    assert len(found) == num_keys


MEMORY = {
    "CogVideoX": 0.3,
    "HunyuanVideo": 0.5,
    "Wan 2.1": 0.5,
    "Wan 2.2": 0.5,
    "LTX 0.9.0": 0.5,
}
"""Share of the reference's. What Wan's convolutions remember is nearly half of it on both sides."""


@pytest.mark.parametrize("name", MEMORY)
@torch.no_grad()
def test_decoding_takes_less_memory_than_the_reference(name, monkeypatch):
    monkeypatch.setattr(pieces, "MOST_IN_PLANS", 8)  # on a CPU there are more
    ours, theirs = full_pair(name)
    latents = torch.empty(1, ours.latent_channels, 3, 30, 44, device="meta")
    peaks = []
    decoders = (ours, ours.decode), (theirs, lambda raw: decode_there(theirs, raw))
    for vae, decode in decoders:
        with MemoryMeter([*vae.parameters(), latents]) as meter:
            decode(latents)
        peaks.append(meter.peak)
    assert peaks[0] <= MEMORY[name] * peaks[1]


REFUSED = {
    "CogVideoX": [
        ({"act_fn": "relu"}, "got act_fn='relu', expected 'silu'"),
        ({"use_quant_conv": True}, "got use_quant_conv=True, expected False"),
        ({"temporal_compression_ratio": 3}, "got temporal_compression_ratio=3, expected a power"),
        ({"norm_eps": 1e-5}, "got norm_eps=1e-05, expected 1e-06"),
        ({"strength": 3}, "got strength=3, which nothing reads"),
    ],
    "HunyuanVideo": [
        ({"mid_block_add_attention": False}, "got mid_block_add_attention=False, expected True"),
        ({"temporal_compression_ratio": 8}, "got temporal_compression_ratio=8, expected 4"),
        ({"block_out_channels": (8, 12)}, "got 2 block_out_channels, expected 4"),
    ],
    "Wan 2.1": [
        ({"attn_scales": [0.5]}, "got attn_scales=.0.5., expected"),
        ({"patch_size": 2}, "got patch_size=2, expected None"),
        ({"latents_mean": [0.0]}, "got 1 means, expected 5"),
        ({"scale_factor_spatial": 16}, "got scale_factor_spatial=16, expected 8"),
    ],
}


@pytest.mark.parametrize(("name", "found"), counts(REFUSED))
def test_settings_that_ours_cannot_have_are_refused(name, found):
    (change, message), (cls, config) = found, TINY[name]
    with pytest.raises(ValueError, match=message):
        causal_vae_from_config({"_class_name": cls.__name__, **config, **change})
