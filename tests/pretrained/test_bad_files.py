"""Bad files of published models: one clear line that names the file, exit status 1, nothing run."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pretrained.test_original_motion import make_adapter, make_image, original
from tests.pretrained.tiny_models import modelscope, svd
from vdm.cli import main

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
KEYS = {
    "unet": "conv_in.bias",
    "vae": "encoder.conv_in.bias",
    "text_encoder": "final_layer_norm.bias",
    "image_encoder": "visual_projection.weight",
}


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def shallow(part):
    """A part of the same kind with one level: what is read before a bad file is read soon."""
    names = ("block_out_channels", "down_block_types", "up_block_types", "num_attention_heads")
    lists = {name: part.config[name] for name in names if name in part.config}
    shorter = {
        name: each[-1:] if name.startswith("up") else each[:1]
        for name, each in lists.items()
        if isinstance(each, (tuple, list))
    }
    return part.from_config({**part.config, **shorter})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model that reads words, one that moves pictures, and an image model with motion modules."""
    place = tmp_path_factory.mktemp("models")
    for name, model in {"words": modelscope(), "pictures": svd()}.items():
        model.register_modules(unet=shallow(model.unet), vae=shallow(model.vae))
        model.save_pretrained(place / name)
    make_image(place / "unet")
    torch.save(original(make_adapter(24, False)), place / "mm.ckpt")
    return place


@pytest.fixture
def copy(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(name):
        return shutil.copytree(models / name, tmp_path / name)

    return make


def refused(capsys, *words):
    """What the command line says: one line, and nothing else happens."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "Traceback" not in said
    assert not os.path.exists("exploded")
    return said


def damage(path, key, what):
    """Spoil a file of weights, whose tensor of this key is changed."""
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "text":
        path.write_text("<html>not found</html>")
    elif what == "missing":
        path.unlink()
    elif what in ("pickle", "pickle with code"):
        path.unlink()
        state = {key: Bomb() if "code" in what else "words"}
        torch.save(state, path.with_name("pytorch_model.bin"))
    else:
        state = load_file(path)
        spoil(state, key, what)
        save_file(state, path)


def spoil(state, key, what):
    if what == "NaN":
        state[key][0] = torch.nan
    elif what == "infinite":
        state[key][0] = torch.inf
    elif what == "another shape":
        state[key] = state[key][1:].clone()
    elif what == "a missing key":
        del state[key]
    elif what == "a surplus key":
        state["sail"] = torch.ones(1)


SAYS = {
    "truncated": "{file}: the file is truncated or damaged",
    "empty": "{file}: the file is empty",
    "text": "{file}: the file is truncated or damaged",
    "missing": "no weights in {part}",
    "pickle": "pytorch_model.bin: holds no tensors",
    "pickle with code": "pytorch_model.bin: refused: it pickles objects other than tensors",
    "NaN": "{part}: {key} holds NaN or infinite values",
    "infinite": "{part}: {key} holds NaN or infinite values",
    "another shape": "{part}: {key} has shape (",
    "a missing key": "{part}: misses {key}",
    "a surplus key": "{part}: holds sail, for which there is no place",
}
OTHERS = [("words", "vae"), ("words", "text_encoder"), ("pictures", "image_encoder")]
CASES = [("words", "unet", what) for what in SAYS]
CASES += [
    (*part, what)  # of every part the file, the tensors and the keys
    for part in OTHERS
    for what in ("truncated", "pickle with code", "NaN", "another shape", "a missing key")
]


@pytest.mark.parametrize(("model", "part", "what"), CASES)
def test_weights(model, part, what, copy, capsys):
    folder = copy(model)
    name = f"{WEIGHTS.get(part, 'model')}.safetensors"
    damage(folder / part / name, KEYS[part], what)
    said = refused(capsys, "sample", folder, "a cat", "--out", "clips")
    asked = {"file": folder / part / name, "part": folder / part, "key": KEYS[part]}
    assert SAYS[what].format(**asked) in said


SETTINGS = [
    ("words", "model_index.json", {"_class_name": "FluxPipeline"}, "got class FluxPipeline"),
    ("words", "model_index.json", {"unet": [None, None]}, "has no unet"),
    ("words", "model_index.json", {"wing": ["a", "B"]}, "got a part wing"),
    ("words", "unet/config.json", {"_class_name": "UNet1DModel"}, "got class UNet1DModel"),
    ("words", "unet/config.json", {"block_out_channels": 5}, "int"),
    ("words", "unet/config.json", {"block_out_channels": None}, "None"),
    ("words", "unet/config.json", {"attention_head_dim": "many"}, ""),
    ("words", "unet/config.json", {"layers_per_block": "two"}, ""),
    ("words", "unet/config.json", {"sample_size": "large"}, "got sample_size='large'"),
    ("words", "unet/config.json", {"wings": 2}, "got wings=2, which nothing reads"),
    ("words", "vae/config.json", {"_class_name": "VQModel"}, "got class VQModel"),
    ("words", "vae/config.json", {"latent_channels": "4"}, ""),
    ("words", "vae/config.json", {"norm_num_groups": 0}, ""),
    ("words", "text_encoder/config.json", {"model_type": "t5"}, "got model_type='t5'"),
    ("words", "text_encoder/config.json", {"hidden_size": 15}, "no CLIPTextModel"),
    ("words", "text_encoder/config.json", {"vocab_size": 9}, "expected at most the 9 of"),
    ("words", "scheduler/scheduler_config.json", {"_class_name": "X"}, "got class X"),
    ("words", "scheduler/scheduler_config.json", {"beta_start": "low"}, ""),
    ("words", "scheduler/scheduler_config.json", {"num_train_timesteps": 0}, ""),
    ("words", "scheduler/scheduler_config.json", {"beta_schedule": "x"}, "got beta_schedule='x'"),
    ("pictures", "image_encoder/config.json", {"model_type": "vit"}, "got model_type='vit'"),
    ("pictures", "image_encoder/config.json", {"patch_size": "x"}, "no CLIPVisionModel"),
    ("pictures", "unet/config.json", {"num_frames": "all"}, "got num_frames='all'"),
]


@pytest.mark.parametrize(("model", "file", "change", "message"), SETTINGS, ids=str)
def test_settings(model, file, change, message, copy, capsys):
    path = copy(model) / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    said = refused(capsys, "sample", path.parents[file.count("/")], "--out", "clips")
    assert str(path) in said
    assert message in said


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
@pytest.mark.parametrize(
    "file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"]
)
def test_settings_that_are_none(file, text, copy, capsys):
    path = copy("words") / file
    path.write_bytes(text.encode("latin-1"))
    said = refused(capsys, "sample", path.parents[file.count("/")], "--out", "clips")
    assert f"{path}: " in said


@pytest.mark.parametrize("part", ["unet", "vae", "scheduler", "text_encoder", "tokenizer"])
def test_parts_that_are_missing(part, copy, capsys):
    folder = copy("words")
    shutil.rmtree(folder / part)
    assert str(folder / part) in refused(capsys, "sample", folder, "--out", "clips")
    assert str(folder / part) in refused(capsys, "convert", folder, "copy")


@pytest.mark.parametrize("data", [b"{}", b"[", b"\xff\xfe", b'{"a": "b"}'])
def test_tokenizers(data, copy, capsys):
    folder = copy("words")
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    (folder / "tokenizer" / "vocab.json").write_bytes(data)
    assert str(folder / "tokenizer") in refused(capsys, "sample", folder, "--out", "clips")


@pytest.mark.parametrize(
    "what",
    ["truncated", "empty", "text", "code", "NaN", "another shape", "a missing key", "flat tables"],
)
def test_motion_modules(what, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, state = tmp_path / "mm.ckpt", torch.load(models / "mm.ckpt", weights_only=True)
    key = next(key for key in state if key.endswith("proj_in.bias"))
    if what == "flat tables":
        state = {k: v.flatten() if k.endswith("pe") else v for k, v in state.items()}
    spoil(state, key, what)
    torch.save({"state_dict": state | ({"x": Bomb()} if what == "code" else {})}, path)
    if what in ("truncated", "empty", "text"):
        damage(path, key, what)
    from vdm.pretrained.diffusers_folder import load_unet

    with pytest.raises(ValueError, match=r"mm\.ckpt|unet: ") as caught:
        load_unet(models / "unet", motion=path)
    assert "\n" not in str(caught.value)
    assert not os.path.exists("exploded")
