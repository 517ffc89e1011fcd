"""Models in eight bits: smaller, close to what they were, and they say so."""

import sys

import pytest
import torch
from tiny_model import make_parts

import vdm
from tests.models.unet3d_oracles import relative_error
from tests.pretrained import tiny_models
from vdm.pipelines.quantize import FORMATS, quantize
from vdm.pretrained import export
from vdm.pretrained.parts import Parts, plain_tensors
from vdm.types import Conditioning
from vdm.utils.video_io import read_metadata

LIMITS = {"int8": 2e-2, "int8-dynamic": 5e-2}


def test_without_torchao_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ValueError, match=r"needs torchao: pip install 'vdm\[torchao\]'"):
        quantize(make_parts(), "int8")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of ours, and a published one."""
    pytest.importorskip("torchao")
    place = tmp_path_factory.mktemp("models")
    tiny_models.modelscope().save_pretrained(place / "published")
    export(make_parts(), place / "ours", layout="vdm")
    return place


@pytest.mark.parametrize("format", FORMATS)
@torch.no_grad()
def test_a_published_network_is_smaller_and_close_to_what_it_was(folders, format, capsys):
    exact = vdm.load(folders / "published")
    ours = vdm.load(folders / "published", quantize=format)
    said = capsys.readouterr().err
    assert f"published: quantised to {format}: " in said
    assert f"{format})" in repr(ours)
    x, steps, text = torch.randn(2, 4, 3, 8, 12), torch.tensor([981.0, 41.0]), torch.randn(2, 5, 16)
    one, other = (made.network(x, steps, Conditioning(text=text)) for made in (ours, exact))
    assert 0 < relative_error(one, other) < LIMITS[format]
    linear = ours.network.down[0].layers[0].transformer.blocks[0].feedforward.fc2
    assert isinstance(linear, torch.nn.Linear)
    stored = sum(part.nbytes for part in plain_tensors(linear.weight))
    assert stored < 0.5 * 4 * linear.in_features * linear.out_features


def test_what_is_said_is_what_was_done(folders):
    parts = vdm.load(folders / "published").parts
    linears = [m for m in parts.network.modules() if type(m) is torch.nn.Linear]
    before = [linear.weight.detach().clone() for linear in linears]
    parts.text_encoder = None
    done = quantize(parts, "int8")
    assert done.num_maps == len(linears)
    assert done.num_bytes_before == sum(weight.nbytes for weight in before)
    assert done.num_bytes < done.num_bytes_before / 2
    after = torch.cat([linear.weight.dequantize().flatten() for linear in linears])
    exact = torch.cat([weight.flatten() for weight in before])
    assert done.error == pytest.approx(relative_error(after, exact), rel=1e-3)
    assert 1e-4 < done.error < 1e-2


def test_a_clip_says_that_it_was_made_so(folders, tmp_path):
    exact, ours = vdm.load(folders / "ours"), vdm.load(folders / "ours", quantize="int8")
    clips = [made("a red circle moves left", seed=1, progress=False) for made in (exact, ours)]
    about = read_metadata(clips[1].save(tmp_path / "clip.mp4"))
    assert about["quantize"] == "int8"
    assert "quantize" not in read_metadata(clips[0].save(tmp_path / "exact.mp4"))
    hashes = [made.parts.weight_hashes() for made in (exact, ours)]
    assert hashes[0]["network"] != hashes[1]["network"]
    assert hashes[0]["autoencoder"] == hashes[1]["autoencoder"]


def test_it_is_not_written_as_if_it_were_exact(folders, tmp_path):
    ours = vdm.load(folders / "published", quantize="int8")
    with pytest.raises(ValueError, match="got a quantised weight, expected plain numbers"):
        export(ours, tmp_path / "out")


def test_a_model_without_linear_maps_is_refused():
    pytest.importorskip("torchao")
    with pytest.raises(ValueError, match="but odd has no linear map"):
        quantize(Parts("odd", network=torch.nn.Conv2d(1, 1, 1)), "int8")
