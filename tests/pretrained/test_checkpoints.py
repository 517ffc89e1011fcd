"""What a training run leaves behind loads by name, safely, with the averaged weights by default."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from vdm.autoencoder.vae import VideoVAE
from vdm.pretrained import bundled, read
from vdm.pretrained.checkpoints import read_final, read_lightning
from vdm.pretrained.layout import FORMAT
from vdm.pretrained.parts import Parts


def tiny_vae() -> VideoVAE:
    return VideoVAE(
        latent_channels=3,
        widths=(6, 8),
        level_strides=((2, 2, 2),),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        patch_size=2,
    )


def description() -> dict:
    return {"format": FORMAT, **Parts(name="run", autoencoder=tiny_vae()).describe()}


def states(prefix: str, scale: float) -> dict[str, torch.Tensor]:
    state = tiny_vae().state_dict()
    return {f"{prefix}autoencoder.{key}": torch.full_like(v, scale) for key, v in state.items()}


@pytest.fixture
def final(tmp_path):
    path = tmp_path / "final.safetensors"
    tensors = {**states("ema.", 1.0), **states("raw.", 2.0)}
    save_file(tensors, path, metadata={"vdm": json.dumps(description())})
    return path


@pytest.fixture
def lightning(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save(
        {
            "vdm": json.dumps(description()),
            "state_dict": {**states("", 1.0), "discriminator.weight": torch.ones(2)},
            "current_model_state": states("", 2.0),
            "global_step": 60,
        },
        path,
    )
    return path


@pytest.mark.parametrize("kind", ["final", "lightning"])
def test_the_averaged_weights_are_the_default(kind, request):
    path = request.getfixturevalue(kind)
    for weights, expected in [("ema", 1.0), ("raw", 2.0)]:
        parts = read(path, weights)
        assert {float(value.mean()) for value in parts.autoencoder.state_dict().values()} == {
            expected
        }
    assert read(path).autoencoder.decoder.training is False


def test_a_run_folder_is_its_final_file(final):
    assert read(final.parent).weight_hashes() == read(final).weight_hashes()


def test_a_file_of_somebody_else_is_refused(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no description in the metadata"):
        read_final(tmp_path / "other.safetensors")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint of a vdm run"):
        read_lightning(tmp_path / "other.ckpt")


def test_a_run_without_averaged_weights_says_so(tmp_path):
    save_file(states("raw.", 2.0), tmp_path / "f.safetensors", {"vdm": json.dumps(description())})
    with pytest.raises(ValueError, match="holds no ema weights"):
        read(tmp_path / "f.safetensors")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    with open("bomb.ckpt", "wb") as stream:
        write({"state_dict": Bomb()}, stream)
    with pytest.raises(ValueError, match=r"bomb\.ckpt: refused"):
        read("bomb.ckpt")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("keep", [0, 1, 100, 2000])
def test_a_truncated_checkpoint_is_refused(lightning, keep):
    lightning.write_bytes(lightning.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"last\.ckpt") as caught:
        read(lightning)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_bundled_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("vdm.pretrained.sources.BUNDLED", tmp_path)
    for name in ("moving-shapes", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vdm.json").write_text("{}")
    assert bundled() == ["moving-shapes", "other"]
    with pytest.raises(ValueError, match="moving-shapes, other; nearest: moving-shapes"):
        read("moving-shape")


def test_paths_that_lead_nowhere_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*gone\.ckpt"):
        read(tmp_path / "gone.ckpt")
    with pytest.raises(ValueError, match=r"holds neither vdm\.json nor final\.safetensors"):
        read(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model_index\.json: got class None, expected one of"):
        read(tmp_path)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"a part of a model \(config\.json\); expected vdm\.json"):
        read(tmp_path / "part")
    (tmp_path / "model.bin").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"got \.bin, expected \.safetensors"):
        read(tmp_path / "model.bin")
