"""The demo goes from words to scores with any model, and says in one line what it lacks."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import make_parts

from vdm import demo_training
from vdm.cli import main
from vdm.demo import Demo
from vdm.demo_training import RECIPES, check_folder, first_minute, validation_losses
from vdm.pipelines.showcase import CAPTIONS
from vdm.pretrained import export
from vdm.pretrained.parts import Defaults, Envelope

SHORT = ["--trainer.max_steps=4", "--trainer.val_check_interval=2", "--data.batch_size=2"]
SHORT += [f"--model.network.{size}" for size in ("dim=24", "depth=1", "num_heads=2")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    defaults = Defaults(5, 8.0, 16, 16, steps=1, guidance_scale=2.0, sampler="euler")
    parts = make_parts(defaults=defaults, envelope=Envelope((5, 5), (8, 8), (16, 16), (16, 16)))
    return str(export(parts, tmp_path_factory.mktemp("model") / "tiny", layout="vdm"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Noise in the place of fetched clips: one to train on, one held out."""
    folder = tmp_path_factory.mktemp("real")
    clips = {}
    for name, use in (("street", "train"), ("face", "val")):
        frames = np.random.default_rng(0).integers(0, 256, (40, 128, 130, 3), np.uint8)
        np.save(folder / f"{name}.npy", frames)
        clips[name] = {"name": name, "use": use, "shard": f"{name}.npy"}
        clips[name] |= {"shape": [40, 128, 130, 3], "shard_sha256": "0" * 64}
    (folder / "provenance.json").write_text(json.dumps({"version": 1, "clips": clips}))
    return folder


def test_everything_is_made_and_measured(model, tmp_path, capsys):
    words = ["demo", "--model", model, "--output", str(tmp_path / "out"), "--no-fetch"]
    words += ["--real", str(tmp_path / "none"), "--train-seconds", "0", "--num-scored", "1"]
    assert main([*words, "--prompt", "a green ring shrinks", "--prompt", CAPTIONS[0]]) == 0
    said = capsys.readouterr().out
    assert "no real clips in" in said
    assert "report.html" in said
    out = tmp_path / "out"
    page = (out / "report.html").read_text()
    assert page.count("data:image/webp;base64,") == 10 + 2 + 2
    assert all(caption in page for caption in (*CAPTIONS, "a green ring shrinks"))
    assert len(list((out / "clips").glob("*.mp4"))) == 9 + 2
    assert (out / "contact_sheet.png").stat().st_size > 1000
    assert (out / "words_to_video.gif").stat().st_size > 1000
    found = json.loads((out / "metrics.json").read_text())
    assert set(found) == {
        "model", "seed", "seconds", "words_to_video", "first_frame", "autoencoder", "scores",
    }  # fmt: skip
    assert found["words_to_video"][8]["prompt"] == "a green ring shrinks"
    assert found["autoencoder"]["clip"] == "a clip of the embedded world"
    assert set(found["scores"]["scores"]) == {"test-iid/1 object", "test-iid/2 objects"}


def test_a_real_clip_goes_through_the_autoencoder(model, shards, tmp_path):
    demo = Demo(model, tmp_path, 0)
    assert demo.through_autoencoder(shards, fetch=False) == shards
    assert demo.metrics["autoencoder"]["clip"] == "face, 128x128"
    assert demo.metrics["autoencoder"]["psnr"] > 0


@pytest.mark.parametrize("real", [True, False])
def test_a_small_network_is_trained_on_what_there_is(model, shards, tmp_path, monkeypatch, real):
    def run_here(words, check):
        assert words[:3] == [sys.executable, "-m", "vdm.cli"]
        return SimpleNamespace(returncode=main(words[3:]))

    monkeypatch.setattr(demo_training.subprocess, "run", run_here)
    counts = "--data.init_args.videos.init_args" if real else "--data.init_args.shapes"
    overrides = [*SHORT, f"{counts}.num_train=8", f"{counts}.num_val=2"]
    folder = tmp_path / "training"
    run = first_minute(model, shards if real else None, folder, 300, overrides)
    assert [step for step, _ in run.losses] == [2, 4]
    assert run.losses == validation_losses(folder)
    assert run.data == ("latents of 1 real videos" if real else "latents of the embedded world")
    assert [clip.frames.shape[2] for _, clip in run.clips] == [16, 16]
    assert run.said().startswith(("fell from", "did not fall from"))


def test_a_training_that_fails_says_so(model, tmp_path):
    with pytest.raises(RuntimeError, match="training ended with status 2"):
        first_minute(model, None, tmp_path / "training", 300, ["--config", "nowhere.yaml"])


def test_what_cannot_work_is_refused_before_the_first_stage(model, tmp_path, capsys):
    training = tmp_path / "training"
    training.mkdir()
    words = ["demo", "--output", str(tmp_path)]
    for wrong, said in (
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", model, "--prompt", "a mauve circle grows"], "unknown word 'mauve'"),
    ):
        assert main([*words, *wrong]) == 2
        assert said in capsys.readouterr().err
    (training / "config.yaml").write_text("model:\n  init_args:\n    name: mine\n")
    assert main([*words, "--model", model]) == 2
    assert "holds a run that is not the demo's" in capsys.readouterr().err
    assert (training / "config.yaml").is_file()
    check_folder(tmp_path / "elsewhere")
    (training / "config.yaml").write_text((RECIPES / "demo.yaml").read_text())
    check_folder(training)


def test_a_failed_training_is_a_note_and_a_seed_may_be_any(model, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("training ended with status 1")

    monkeypatch.setattr(demo_training, "first_minute", fail)
    demo = Demo(model, tmp_path, 10240 + 3)
    demo.train(None, 60)
    demo.continue_frame()
    demo.finish()
    assert "training ended with status 1" in (tmp_path / "report.html").read_text()
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert "training" not in found
    assert found["first_frame"]["seed"] in (10243, [10243])
