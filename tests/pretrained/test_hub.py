"""Names on the hub; nothing is ever fetched in a test."""

import sys
from fnmatch import fnmatch

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

import vdm
from tests.pretrained.tiny_models import animatediff, image, modelscope
from vdm.pretrained.hub import is_hub_id


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """What the hub gives: folders by name."""
    models, asked = {}, {}

    def snapshot_download(name, allow_patterns, ignore_patterns):
        asked[name] = (allow_patterns, ignore_patterns)
        if name not in models:
            raise LocalEntryNotFoundError("cannot be reached\nand so on")
        folder = tmp_path / "snapshots" / str(len(name))
        models[name].save_pretrained(folder)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return models, asked


def test_a_published_model_loads_by_name(hub):
    models, asked = hub
    models["ali/text-to-video-ms-1.7b"] = modelscope()
    generate = vdm.load("ali/text-to-video-ms-1.7b")
    assert generate.parts.name == "text-to-video-ms-1.7b"
    assert generate.parts.system == "ModelScope text-to-video"
    wanted, unwanted = asked["ali/text-to-video-ms-1.7b"]
    assert "*.safetensors" in wanted
    assert "*.fp16.*" in unwanted


def test_only_the_weights_that_are_named_are_fetched(hub):
    models, asked = hub
    models["a/b"] = modelscope()
    with pytest.raises(FileNotFoundError, match="no weights of variant 'fp16' in"):
        vdm.load("a/b", variant="fp16")
    wanted, _ = asked["a/b"]
    names = ["unet/d.fp16.safetensors", "unet/d.fp16-00001-of-00002.safetensors", "vae/config.json"]
    assert all(any(fnmatch(name, pattern) for pattern in wanted) for name in names)
    assert not any(fnmatch("unet/d.safetensors", pattern) for pattern in wanted)


def test_so_does_a_motion_adapter(hub):
    models, _ = hub
    models["someone/image"] = image()
    models["someone/motion-adapter"] = animatediff().motion_adapter
    generate = vdm.load("someone/image", motion="someone/motion-adapter")
    assert generate.parts.system == "AnimateDiff"


def test_a_name_that_nobody_has_is_one_line(hub):
    with pytest.raises(FileNotFoundError, match=r"the hub does not give it: cannot be reached$"):
        vdm.load("someone/nothing")


def test_without_the_package_nothing_is_fetched(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'vdm\[hub\]'"):
        vdm.load("someone/nothing")


def test_paths_are_no_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    names = ["a/b", "stabilityai/stable-video-diffusion-img2vid-xt-1-1"]
    assert all(is_hub_id(name) for name in names)
    paths = ["outputs/run", "/a/b", "a", "a/b/c", "./a", "../a", "~/a", "moving-shapes"]
    assert not any(is_hub_id(path) for path in paths)
