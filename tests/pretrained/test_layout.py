"""A model folder loads back bit for bit, and every damaged one is refused in one line."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from vdm.autoencoder.vae import VideoVAE
from vdm.pretrained.components import (
    convert,
    export,
    load_autoencoder,
    load_network,
    load_schedule,
    parse_dtype,
)
from vdm.pretrained.layout import read_card, read_folder, write_folder
from vdm.pretrained.parts import Defaults, Envelope, Parts


def tiny_vae() -> VideoVAE:
    return VideoVAE(
        latent_channels=3,
        widths=(6, 8),
        level_strides=((2, 2, 2),),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        patch_size=2,
    )


@pytest.fixture
def folder(tmp_path):
    parts = Parts(
        name="tiny",
        autoencoder=tiny_vae(),
        defaults=Defaults(num_frames=5, height=12, guidance_scale=(1.0, 3.0)),
        envelope=Envelope(num_frames=(1, 5)),
    )
    return write_folder(parts, tmp_path / "tiny")


def same(first, second) -> bool:
    pairs = zip(first.items(), second.items(), strict=True)
    return all(a == b and torch.equal(x, y) and x.dtype == y.dtype for (a, x), (b, y) in pairs)


def test_a_folder_is_read_back_bit_for_bit(tmp_path):
    vae = tiny_vae()
    vae.latents.set(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.1, 1.0, 3.0]))
    loaded = load_autoencoder(export(vae, tmp_path / "out", layout="vdm"))
    assert same(vae.state_dict(), loaded.state_dict())
    assert not loaded.training
    again = export(loaded, tmp_path / "again", layout="vdm")
    for name in ("autoencoder.safetensors", "vdm.json"):
        assert (again / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_defaults_and_envelope_survive(folder):
    parts = read_folder(folder)
    assert parts.defaults == Defaults(num_frames=5, height=12, guidance_scale=(1.0, 3.0))
    assert parts.envelope == Envelope(num_frames=(1, 5))
    assert parts.name == "tiny"


def test_reading_leaves_the_global_random_state_alone(folder):
    before = torch.get_rng_state()
    read_folder(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_stored_in_half_precision_are_used_in_full(folder, tmp_path):
    half = convert(folder, tmp_path / "half", dtype="float16")
    stored = load_file(half / "autoencoder.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    loaded = load_autoencoder(half).state_dict()
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[key], value.float()) for key, value in stored.items())


def test_a_weight_that_does_not_fit_half_precision_is_refused(tmp_path):
    vae = tiny_vae()
    vae.latents.mean.fill_(1e6)
    with pytest.raises(ValueError, match=r"autoencoder.latents.mean does not fit into float16"):
        export(vae, tmp_path, layout="vdm", dtype=torch.float16)


def test_the_hash_of_the_parts_knows_the_architecture_but_not_the_weights(folder):
    first = read_folder(folder)
    other = Parts(name="other", autoencoder=tiny_vae())
    assert first.config_hash() == other.config_hash()
    assert first.weight_hashes() != other.weight_hashes()
    assert other.weight_hashes() == other.weight_hashes()


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def damage_pickle(path):
    path.write_bytes(pickle.dumps({"weights": [1.0]}))


def damage_empty(path):
    path.write_bytes(b"")


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, "truncated"),
        (damage_pickle, "a pickle"),
        (damage_empty, "empty"),
        (damage_flip, "sha256"),
    ],
)
def test_a_damaged_file_is_refused_by_name(folder, damage, message):
    damage(folder / "autoencoder.safetensors")
    with pytest.raises(ValueError, match=message) as caught:
        read_folder(folder)
    assert "autoencoder.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def rewrite(folder, change):
    """Change the stored weights and their checksum together."""
    path = folder / "autoencoder.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    card = json.loads((folder / "vdm.json").read_text())
    del card["weights"]["autoencoder"]["sha256"]
    (folder / "vdm.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("latents.mean"), "VideoVAE misses latents.mean"),
        (lambda state: state.update(extra=torch.ones(2)), "VideoVAE has no extra"),
        (
            lambda state: state.update({"latents.mean": torch.zeros(4)}),
            r"latents.mean has shape \(4,\), VideoVAE expects \(3,\)",
        ),
        (lambda state: state["latents.std"].fill_(float("nan")), "latents.std holds NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_key(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message) as caught:
        read_folder(folder)
    assert "autoencoder.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(format="vdm/9"), "format 'vdm/9'"),
        (lambda card: card.update(colour=1), "unknown key colour"),
        (lambda card: card["parts"].update(brain=None), "unknown part brain"),
        (lambda card: card["defaults"].update(speed=3), "defaults has no speed"),
        (lambda card: card["parts"]["autoencoder"]["init_args"].update(wdth=3), "wdth"),
        (
            lambda card: card["parts"]["autoencoder"].update(class_path="os.system"),
            "os.system",
        ),
        (lambda card: card.update(weights={}), "no weights for autoencoder"),
    ],
)
def test_a_description_that_nothing_reads_is_refused(folder, change, message):
    card = read_card(folder)
    change(card)
    (folder / "vdm.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=message):
        read_folder(folder)


def test_a_broken_description_is_refused(folder):
    (folder / "vdm.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_folder(folder)


def test_a_missing_weight_file_is_named(folder):
    (folder / "autoencoder.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"autoencoder\.safetensors"):
        read_folder(folder)


def test_a_part_that_the_model_lacks_is_named(folder):
    with pytest.raises(ValueError, match="the model has no network"):
        load_network(folder)
    with pytest.raises(ValueError, match="the model has no schedule"):
        load_schedule(folder)


def test_diffusers_has_no_counterpart(folder, tmp_path):
    with pytest.raises(ValueError, match="diffusers has no class for VideoVAE"):
        export(read_folder(folder), tmp_path / "out")
    with pytest.raises(ValueError, match="got layout='onnx'"):
        export(read_folder(folder), tmp_path / "out", layout="onnx")


def test_converting_never_overwrites_a_model(folder):
    with pytest.raises(ValueError, match="already holds a model"):
        convert(folder, folder)


def test_number_formats_are_named():
    assert parse_dtype("float16") is torch.float16
    assert parse_dtype(None) is None
    with pytest.raises(ValueError, match="got dtype='int8', expected one of float32"):
        parse_dtype("int8")
