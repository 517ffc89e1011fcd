"""``vdm evaluate`` scores models and folders of clips, and refuses what would change nothing."""

import inspect
import json
import shutil

import numpy as np
import pytest
from tiny_model import make_parts

from vdm import world
from vdm.cli import main
from vdm.cli_evaluate import LOADING, PROTOCOLS, SETTINGS, parser
from vdm.pipelines import evaluate as pipeline
from vdm.pipelines.evaluate import evaluate
from vdm.pretrained.layout import write_folder
from vdm.utils.video_io import write_video

FAST = ["--n", "2", "--num-resamples", "10", "--no-progress"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_folder(make_parts(), tmp_path_factory.mktemp("models") / "tiny"))


def test_every_argument_of_evaluate_is_a_flag():
    flags = {flag.removeprefix("--").replace("-", "_") for flag in parser().flags()}
    named = set(inspect.signature(evaluate).parameters) - {"model", "settings"}
    named = named - {"baselines", "progress", "protocols"} | {"no_baselines", "no_progress"}
    assert named | {"protocol"} | set(SETTINGS) | set(LOADING) <= flags
    assert PROTOCOLS == pipeline.PROTOCOLS


def test_a_model_is_scored_as_tables_and_json(model, tmp_path, capsys):
    words = ["evaluate", model, "--data", "test-iid", "--num-objects", "1", *FAST]
    words += ["--height", "32", "--width", "32", "--num-frames", "5", "--steps", "1"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    assert "caption-accuracy" in printed
    assert "protocol " in printed
    assert main([*words, "--out", str(tmp_path / "b"), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    saved = json.loads((tmp_path / "a" / "scores.json").read_text())
    assert read["scores"] == saved["scores"]
    (scores,) = saved["scores"].values()
    for named in scores.values():
        for score in named.values():
            assert score["protocol"]


def test_a_folder_of_clips_is_scored_without_loading_anything(tmp_path, capsys):
    clips = tmp_path / "clips"
    for index in range(2):
        scene = world.scene("test-iid", 0, index)
        path = clips / f"{index}.mkv"
        write_video(np.asarray(world.render(scene, 64, 16, 8.0)), path, 8.0)
        path.with_suffix(".txt").write_text(world.print_caption(scene))
    words = ["evaluate", str(clips), *FAST, "--no-baselines", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "caption-accuracy" in capsys.readouterr().out
    assert main([*words, "--dtype", "bfloat16"]) == 1
    assert str(clips) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--protocol", "fvdd"], "--protocol: got 'fvdd'"),
        (["--data", "test-idd"], "test-idd"),
        (["--n", "0"], "--n: got 0"),
        (["--height", "32", "--width", "32", "--sampler", "eulr"], "nearest: euler"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words, said, model, capsys):
    assert main(["evaluate", model, *FAST, *words]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_damaged_model_is_failed_work(model, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    weights = damaged / "network.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main(["evaluate", str(damaged), *FAST]) == 1
    assert "network.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(("there", "status"), [(False, 2), (True, 1)])
def test_weights_of_a_score_that_cannot_be_used_are_said_in_one_line(
    there, status, model, tmp_path, capsys
):
    path = tmp_path / "weights.pth"
    if there:
        path.write_bytes(b"damaged")
    words = ["--height", "32", "--width", "32", "--protocol", "fd/transnet"]
    assert main(["evaluate", model, *FAST, *words, "--transnet-weights", str(path)]) == status
    (said,) = capsys.readouterr().err.splitlines()
    assert str(path) in said


def test_weights_are_named_with_the_hash_that_they_must_have(model, tmp_path, capsys):
    path = tmp_path / "inception.pth"
    path.write_bytes(b"damaged")
    words = ["evaluate", model, "--n", "10", "--height", "32", "--width", "32", "--protocol", "fid"]
    assert main([*words, "--inception-weights", f"{path}@0123456789abcdef"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "got sha256" in said
    assert "expected 0123456789abcdef" in said
    assert main(words) == 2
    assert "expected --inception-weights FILE" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_a_wrong_word(capsys):
    assert main(["evaluate", "no-such-model"]) == 2
    assert "no-such-model" in capsys.readouterr().err


def test_published_figures_are_listed_without_a_model(capsys):
    assert main(["evaluate", "--anchors"]) == 0
    printed = capsys.readouterr().out
    assert "StyleGAN-V" in printed
    assert "1431" in printed
    assert main(["evaluate"]) == 2
    assert "got no MODEL, expected one, or --anchors alone" in capsys.readouterr().err
