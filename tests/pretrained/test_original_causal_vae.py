"""Causal VAEs out of their authors' files, which are written here from diffusers' names."""

import re

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from safetensors.torch import save_file

from tests.models.unet3d_oracles import reference, relative_error
from tests.pretrained.test_diffusers_causal_vae import FULL, TINY
from vdm.pretrained import components, load_autoencoder
from vdm.pretrained import original_causal_vae as original
from vdm.pretrained.diffusers_causal_vae import causal_vae_from_config
from vdm.pretrained.keymap import to_foreign

NAMES = {
    "CogVideoX": "cogvideox",
    "HunyuanVideo": "hunyuan_video",
    "Wan 2.1": "wan2.1",
    "Wan 2.2": "wan2.2",
}

# From the authors' keys to diffusers', written a second time.
COGVIDEOX = [
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"encoder\.down\.(\d)\.block\.", r"encoder.down_blocks.\1.resnets."),
    (r"encoder\.down\.(\d)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    *[
        (rf"decoder\.up\.{level}\.{theirs}\.", f"decoder.up_blocks.{3 - level}.{ours}.")
        for level in range(4)
        for theirs, ours in (("block", "resnets"), ("upsample", "upsamplers.0"))
    ],
]
WAN_22 = [
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"coder\.conv1\.", "coder.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.downsamples\.(\d)\.downsamples\.(\d)\.(?=resa|time)", r".down_blocks.\1.downsampler."),
    (r"\.upsamples\.(\d)\.upsamples\.(\d)\.(?=resa|time)", r".up_blocks.\1.upsampler."),
    (r"\.downsamples\.(\d)\.downsamples\.", r".down_blocks.\1.resnets."),
    (r"\.upsamples\.(\d)\.upsamples\.", r".up_blocks.\1.resnets."),
]


def to_diffusers(system, state):
    """The state of diffusers' model in a file of its authors."""
    if system == "Wan 2.1":
        return convert_wan_vae_to_diffusers(dict(state))
    if system == "HunyuanVideo":  # whose names diffusers has kept
        return dict(state)
    found = {}
    for key, value in state.items():
        for theirs, ours in COGVIDEOX if system == "CogVideoX" else WAN_22:
            key = re.sub(theirs, ours, key)
        found[key] = value
    return found


@pytest.mark.parametrize("system", NAMES)
def test_full_sizes_have_the_keys_of_the_authors(system):
    cls, config, *_ = FULL[system]
    known = original.KNOWN[NAMES[system]]
    with torch.device("meta"):
        theirs = cls(**config)
        ours = causal_vae_from_config(known.config)
    found = to_foreign(ours.state_dict(), original.original_vae_entries(ours, known))
    assert original.recognize(found, "") == NAMES[system]
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in to_diffusers(system, found).items()} == shapes


@pytest.mark.parametrize("system", ["CogVideoX", "Wan 2.2"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_of_the_authors_is_the_same_model(system, suffix, tmp_path, monkeypatch):
    cls, config = TINY[system]
    theirs = reference(cls, **config)
    name = NAMES[system]
    settings = {"_class_name": cls.__name__, **config}
    known = original.Known(settings, original.KNOWN[name].mark, original.KNOWN[name].rename)
    monkeypatch.setitem(original.KNOWN, name, known)
    empty = causal_vae_from_config(settings)
    back = {entry: key for key, entry in _keys(empty, known)}
    state = {back[key]: value.clone() for key, value in theirs.state_dict().items()}
    assert to_diffusers(system, state).keys() == theirs.state_dict().keys()
    path = tmp_path / f"vae{suffix}"
    state["loss.logvar"] = torch.zeros(())
    torch.save({"state_dict": state}, path) if suffix == ".pt" else save_file(state, path)
    ours = load_autoencoder(path)
    raw = torch.randn(2, ours.latent_channels, 3, 2, 3)
    with torch.no_grad():
        decoded, expected = ours.decode(ours.scale.normalize(raw)), theirs.decode(raw).sample
    assert relative_error(decoded, expected) < 2e-5


def _keys(vae, known):
    """Keys of the authors and of diffusers, side by side."""
    places = original.original_vae_entries(vae, known)
    return zip(
        [place.theirs for place in places],
        [place.theirs for place in original.causal_vae_entries(vae)],
        strict=True,
    )


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "vae.pth"
    torch.save({"encoder.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="got a file of no known VAE, expected one of cogvideox"):
        components.load_autoencoder(path)
