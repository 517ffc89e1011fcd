"""LTX-Video out of its authors' single file, which diffusers' own converter reads as well."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from diffusers.loaders.single_file_utils import (
    convert_ltx_transformer_checkpoint_to_diffusers,
    convert_ltx_vae_checkpoint_to_diffusers,
)
from safetensors.torch import save_file

import vdm
from tests.models.unet3d_oracles import relative_error
from tests.pretrained.test_diffusers_dit import LTX_FULL
from tests.pretrained.tiny_dit import LTX_CLIP, ltx_condition_pipeline, ltx_pipeline
from vdm.conditioning.given import GivenAhead
from vdm.pretrained import export, load_autoencoder, load_network
from vdm.pretrained import original_ltx as original
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.loading import Reading
from vdm.pretrained.tensor_files import TensorFiles
from vdm.utils.config import describe

VERSIONS = {"0.9.0": original.OLD, "0.9.1": original.NEW, "0.9.5": original.NEWER}
RATIOS = {"spatial_compression_ratio": 32, "temporal_compression_ratio": 8}


def shapes(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def to_diffusers(state):
    """Both parts, as diffusers converts them."""
    left = dict(state)
    vae = convert_ltx_vae_checkpoint_to_diffusers(left)
    return convert_ltx_transformer_checkpoint_to_diffusers(left), vae


def their_vae(version):
    config = {key: value for key, value in VERSIONS[version].items() if key[0] != "_"}
    return AutoencoderKLLTXVideo(**config | (RATIOS if version == "0.9.5" else {}))


def file_of(network, vae):
    """The authors' file of two models of ours."""
    parts = {
        original.NETWORK: to_foreign(network.state_dict(), original.network_entries(network)),
        original.VAE: to_foreign(vae.state_dict(), original.vae_entries(vae)),
    }
    return {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}


@pytest.mark.parametrize(("version", "size"), [("0.9.0", "2B"), ("0.9.1", "2B"), ("0.9.5", "13B")])
def test_full_sizes_have_the_keys_of_the_authors(version, size):
    with torch.device("meta"):
        network = LTXVideoTransformer3DModel(**LTX_FULL[size][0])
        vae = their_vae(version)
    marks = [original.DEEP] if size == "13B" else []
    marks += [f"{original.VAE}{original.TOLD}"] if version != "0.9.0" else []
    marks += [f"{original.VAE}{original.FOLDING}"] if version == "0.9.5" else []
    file = (Path("f"), {key: torch.zeros(()) for key in marks}, Reading(is_plan=True))
    ours = original.read_ltx_network(*file), original.read_ltx_vae(*file)
    found = file_of(*ours)
    assert set(marks) < set(found)
    assert original.is_ltx(found)
    converted = to_diffusers(found)
    assert [shapes(state) for state in converted] == [
        shapes(model.state_dict()) for model in (network, vae)
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small model of diffusers, ours of its folder, and the authors' file with the same."""
    folder = tmp_path_factory.mktemp("ltx")
    theirs = ltx_pipeline()
    theirs.save_pretrained(folder / "model")
    ours = vdm.load(folder / "model")
    state = file_of(ours.network, ours.autoencoder)
    converted = to_diffusers(state)
    for model, found in zip((theirs.transformer, theirs.vae), converted, strict=True):
        expected = model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in found.items())
    state[f"{original.VAE}{original.STATISTICS}mean-of-stds"] = torch.ones(6)
    path = folder / "ltx-video-tiny.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return theirs, ours, path


@pytest.fixture
def sized(tiny, monkeypatch):
    """The file, as if its sizes were published ones."""
    theirs, _, path = tiny
    for name, part in (("TRANSFORMER", theirs.transformer), ("OLD", theirs.vae)):
        monkeypatch.setattr(original, name, getattr(original, name) | dict(part.config))
    return path


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_it_makes_the_same_clip_of_the_states_of_a_prompt(tiny, sized):
    _, ours, _ = tiny
    single = vdm.load(sized)
    assert (single.parts.system, single.parts.name) == ("LTX-Video", "ltx-video-tiny")
    states = ours.text_encoder.encode(["a cat runs"]).text[:, :5]
    asked = {"steps": 2, "seed": 3, "progress": False, "guidance_scale": 1.0, **LTX_CLIP}
    assert torch.equal(single(states, **asked).frames, ours(states, **asked).frames)
    with pytest.raises(ValueError, match="model 'ltx-video-tiny' takes no prompt"):
        single("a cat runs", **asked)


@torch.no_grad()
def test_parts_are_read_alone(tiny, sized):
    _, ours, _ = tiny
    network, vae = load_network(sized), load_autoencoder(sized)
    for one, other in ((network, ours.network), (vae, ours.autoencoder)):
        expected = other.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in one.state_dict().items())
    video = torch.rand(1, 3, 9, 64, 32) * 2 - 1
    assert relative_error(vae.encode(video), ours.autoencoder.encode(video)) == 0


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_later_versions_are_whole_models_too(tmp_path, monkeypatch):
    theirs = ltx_condition_pipeline()
    theirs.save_pretrained(tmp_path / "model")
    ours = vdm.load(tmp_path / "model")
    for name, part in (("TRANSFORMER", theirs.transformer), ("NEWER", theirs.vae)):
        monkeypatch.setattr(original, name, getattr(original, name) | dict(part.config))
    state = file_of(ours.network, ours.autoencoder)
    path = tmp_path / "late.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    single = vdm.load(path)
    assert (single.parts.system, single.parts.given) == ("LTX-Video-0.9.5", GivenAhead())
    states = ours.text_encoder.encode(["a cat runs"]).text[:, :5]
    asked = {"steps": 2, "seed": 3, "progress": False, "guidance_scale": 1.0, **LTX_CLIP}
    assert torch.equal(single(states, **asked).frames, ours(states, **asked).frames)
    export(load_network(path), tmp_path / "there")
    assert describe(load_network(tmp_path / "there")) == describe(ours.network)


def test_other_keys_are_refused(tiny, tmp_path):
    path = tmp_path / "more.safetensors"
    save_file({**dict(TensorFiles([tiny[2]])), "wings.weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"holds wings\.weight, for which there is no place"):
        vdm.load(path)
