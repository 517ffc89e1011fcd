"""Every argument of ``vdm.load`` works or is refused; what is loaded generates the same clip."""

import pytest
import torch
from tiny_model import make_parts

import vdm
from vdm.layers.attention import Attention
from vdm.pretrained import export, load_network, load_schedule
from vdm.utils.video_io import read_metadata

RED = "a red circle moves left"
ASK = {"seed": 3, "output": "latents", "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export(make_parts(), tmp_path_factory.mktemp("model") / "tiny", layout="vdm")


def test_a_stored_model_generates_what_it_generated_before(folder, generate):
    assert torch.equal(vdm.load(folder)(RED, **ASK), generate(RED, **ASK))


def test_a_generator_is_exported_bit_for_bit(folder, tmp_path):
    again = export(vdm.load(folder), tmp_path / "again", layout="vdm")
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_parts_are_at_hand(folder):
    generate = vdm.load(folder)
    assert type(generate.network) is type(load_network(folder))
    assert generate.schedule == load_schedule(folder).schedule
    assert generate.target == load_schedule(folder).target
    assert generate.image_encoder is None
    assert generate.autoencoder.strides == (2, 4, 4)
    assert generate.envelope.num_frames == (1, 7)
    assert not generate.network.training
    assert "tiny" in repr(generate)


def test_what_made_a_clip_is_noted_in_it(folder, tmp_path):
    clip = vdm.load(folder)(RED, seed=3, progress=False)
    about = read_metadata(clip.save(tmp_path / "clip.mp4"))
    assert about["model"] == "tiny"
    assert about["seed"] == [3]
    assert about["prompt"] == RED
    assert about["sampler"] == "euler"
    assert about["steps"] == 3
    assert len(about["config_sha256"]) == 64
    parts = vdm.load(folder).parts
    assert about["weights_sha256"] == parts.weight_hashes()
    assert set(about["weights_sha256"]) == {"network", "text_encoder", "autoencoder"}


@pytest.mark.parametrize("attention", ["plain", "sdpa", "auto"])
def test_the_attention_kernel_reaches_every_layer(folder, attention, generate):
    loaded = vdm.load(folder, attention=attention)
    layers = [m for m in loaded.network.modules() if isinstance(m, Attention)]
    assert {layer.backend for layer in layers} == {attention}
    assert torch.allclose(loaded(RED, **ASK), generate(RED, **ASK), atol=1e-4)


def test_the_number_format_is_that_of_the_weights(folder):
    for dtype in ("bfloat16", torch.bfloat16):
        loaded = vdm.load(folder, dtype=dtype)
        assert {p.dtype for p in loaded.network.parameters()} == {torch.bfloat16}
    assert vdm.load(folder).dtype == torch.float32


def test_compiling_compiles_the_blocks_of_the_network(folder, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    made = vdm.load(folder, compile=True)
    assert compiled == list(made.network.blocks)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"motion": "mm"}, "motion='mm', expected None: motion is for an image model, and"),
        ({"quantize": "int7"}, "quantize='int7', expected one of int8, int8-dynamic"),
        ({"variant": "fp16"}, "variant='fp16', expected None: variant is for a model in"),
        ({"profile": "original"}, "profile='original'"),
        ({"offload": "disk"}, "offload='disk', expected 'cpu' or None"),
        ({"offload": "cpu", "device": "cpu"}, "offload='cpu' with device cpu"),
        ({"attention": "magic"}, "attention='magic', expected one of auto"),
        ({"dtype": "int8"}, "dtype='int8', expected one of float32"),
    ],
)
def test_an_argument_that_would_do_nothing_is_refused(folder, asked, message):
    with pytest.raises(ValueError, match=message):
        vdm.load(folder, **asked)
