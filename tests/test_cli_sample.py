"""``vdm sample`` and ``vdm convert``: every argument is a flag, every error one line."""

import inspect
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import make_parts

import vdm
from vdm.cli import main
from vdm.cli_sample import LOADING, parser
from vdm.layers.factorization import Spatial, Temporal
from vdm.models.dit import VideoDiT
from vdm.pretrained.layout import write_folder
from vdm.pretrained.loading import read_safetensors
from vdm.utils.video_io import read_metadata, read_video

RED, BLUE = "a red circle moves left", "a blue square moves right"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_folder(make_parts(), tmp_path_factory.mktemp("models") / "tiny"))


def test_every_argument_of_the_generator_and_of_load_is_a_flag():
    flags = {flag.removeprefix("--").replace("-", "_") for flag in parser().flags()}
    call = set(inspect.signature(vdm.Generator.__call__).parameters) - {"self", "prompt"}
    load = set(inspect.signature(vdm.load).parameters) - {"source"}
    assert call - {"progress"} <= flags
    assert "no_progress" in flags
    assert load == set(LOADING)
    assert load <= flags


def test_several_prompts_become_one_file_each(model, tmp_path, capsys):
    words = ["sample", model, RED, BLUE, "--seed", "3", "--out", str(tmp_path), "--no-progress"]
    assert main(words) == 0
    paths = capsys.readouterr().out.splitlines()
    assert len(paths) == 2
    for path, prompt, seed in zip(paths, (RED, BLUE), (3, 4), strict=True):
        frames, fps = read_video(path)
        assert frames.shape == (5, 16, 24, 3)
        assert fps == 8
        assert read_metadata(path)["prompt"] == prompt
        assert read_metadata(path)["seed"] in (seed, [seed])


def test_the_flags_reach_the_generator(model, tmp_path, capsys):
    generate = vdm.load(model)
    noise = torch.randn(1, 3, 2, 4, 6)
    save_file({"noise": noise}, tmp_path / "noise.safetensors")
    words = ["sample", model, RED, "--out", str(tmp_path), "--output", "latents", "--no-progress"]
    words += ["--noise", str(tmp_path / "noise.safetensors"), "--num-frames", "3", "--steps", "3"]
    words += ["--guidance-scale", "1,4", "--sampler", "heun", "--negative-prompt", BLUE]
    assert main(words) == 0
    path = capsys.readouterr().out.strip()
    expected = generate(
        [RED],
        noise=noise,
        num_frames=3,
        steps=3,
        guidance_scale=(1.0, 4.0),
        sampler="heun",
        negative_prompt=BLUE,
        output="latents",
        progress=False,
    )
    assert torch.equal(load_file(path)["latents"], expected)


def test_latents_of_another_prompt_stay(model, tmp_path, capsys):
    words = ["--out", str(tmp_path), "--output", "latents", "--seed", "3", "--no-progress"]
    assert main(["sample", model, RED, RED, "--batch-size", "1", *words]) == 0
    assert main(["sample", model, BLUE, *words]) == 0
    paths = capsys.readouterr().out.splitlines()
    assert len(set(paths)) == 3
    about = [read_safetensors(Path(path))[1] for path in paths]
    assert [one["prompt"] for one in about] == [RED, RED, BLUE]
    assert [one["seed"] for one in about] == ["3", "4", "3"]


def test_noise_without_prompts_makes_as_many_clips(model, tmp_path, capsys):
    save_file({"noise": torch.randn(3, 3, 3, 4, 6)}, tmp_path / "noise.safetensors")
    words = ["--noise", str(tmp_path / "noise.safetensors"), "--batch-size", "2", "--no-progress"]
    assert main(["sample", model, "--out", str(tmp_path), *words]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_given_frames_are_read_from_files(model, tmp_path, capsys):
    assert main(["sample", model, RED, "--out", str(tmp_path), "--format", "mkv"]) == 0
    clip = capsys.readouterr().out.strip()
    words = ["sample", model, BLUE, "--out", str(tmp_path / "b"), "--video", clip]
    assert main([*words, "--mask", "1,0,0,0,0", "--no-progress"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    network = VideoDiT(
        3, 24, 2, 2, text_dim=8, pooled_dim=8, factorization=[Spatial(), Temporal(True, 2)]
    )
    return str(write_folder(make_parts(network=network), tmp_path_factory.mktemp("m") / "causal"))


def test_a_clip_is_written_while_it_is_made(causal, tmp_path, capsys):
    words = ["sample", causal, RED, BLUE, "--out", str(tmp_path), "--stream", "--num-frames", "7"]
    words += ["--steps", "1", "--seed", "3", "--chunk", "2", "--context-time", "0.1"]
    assert main([*words, "--no-progress", "--format", "mkv"]) == 0
    paths = capsys.readouterr().out.splitlines()
    assert len(paths) == 2
    for path, prompt in zip(paths, (RED, BLUE), strict=True):
        assert read_video(path)[0].shape == (7, 16, 24, 3)
        about = read_metadata(path)
        assert (about["prompt"], about["chunk"], about["context_time"]) == (prompt, 2, 0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stream", "--noise", "x.safetensors"], "--noise: got x.safetensors, expected none"),
        (["--stream", "--output", "latents"], "--output: got 'latents', expected video with"),
        (["--stream", "--format", "gif"], "got suffix '.gif', expected one of .mp4"),
        (["--chunk", "2"], "--chunk: got 2, expected it with --stream alone"),
        (["--context-time", "0.1"], "--context-time: got 0.1, expected it with --stream alone"),
        (["--stream", "--context-time", "2"], "context_time=2.0, expected 0"),
    ],
)
def test_flags_of_streams_and_of_whole_clips_do_not_mix(words, said, causal, tmp_path, capsys):
    assert main(["sample", causal, RED, "--out", str(tmp_path), "--no-progress", *words]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_model_that_is_not_causal_does_not_stream(model, tmp_path, capsys):
    assert main(["sample", model, RED, "--out", str(tmp_path), "--stream"]) == 2
    assert "sees later frames" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["a mauve circle moves left"], 2, "mauve"),
        ([RED, "--height", "17"], 2, "nearest: 16"),
        ([RED, "--num-frames", "0"], 2, "--num-frames: got 0, expected at least 1"),
        ([RED, "--sampler", "eulr"], 2, "nearest: euler"),
        ([RED, "--image", "no-such.png"], 2, "--image: got no-such.png"),
        ([RED, "--cond", "fsp=6"], 2, "fsp"),
        ([RED, "--cond", "fps"], 2, "expected FIELD=VALUE"),
        ([RED, "--mask", "1,x"], 2, "--mask: got '1,x'"),
        ([RED, "--dtype", "float8"], 2, "--dtype: got 'float8'"),
        ([RED, "--motion", "x"], 2, "motion"),
        ([RED, "--device", "foo"], 2, "--device: got 'foo', expected one of cpu"),
        ([RED, "--sampler", ""], 2, "sampler ''"),
    ],
)
def test_wrong_words_have_status_2_and_name_what_was_expected(
    words, status, said, model, tmp_path, capsys
):
    words = ["sample", model, *words, "--out", str(tmp_path), "--no-progress"]
    assert main(words) == status
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_model_is_a_wrong_word_and_a_damaged_one_is_failed_work(model, tmp_path, capsys):
    assert main(["sample", "no-such-model", RED, "--out", str(tmp_path)]) == 2
    assert "no-such-model" in capsys.readouterr().err
    damaged = tmp_path / "damaged"
    assert main(["convert", model, str(damaged)]) == 0
    weights = damaged / "network.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main(["sample", str(damaged), RED, "--out", str(tmp_path)]) == 1
    assert "network.safetensors" in capsys.readouterr().err


def test_a_converted_model_generates_the_same_and_is_not_overwritten(model, tmp_path, capsys):
    assert main(["convert", model, str(tmp_path / "copy"), "--layout", "vdm"]) == 0
    arguments = {"seed": 0, "progress": False, "output": "latents"}
    ours, copied = vdm.load(model), vdm.load(tmp_path / "copy")
    assert torch.equal(ours(RED, **arguments), copied(RED, **arguments))
    assert main(["convert", model, str(tmp_path / "copy")]) == 2
    assert main(["convert", "no-such-model", str(tmp_path / "other")]) == 2
    assert main(["convert", model, str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    stored = load_file(tmp_path / "half" / "network.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}


def test_a_damaged_input_is_failed_work(model, tmp_path, capsys):
    for flag, name in (("--image", "bad.png"), ("--video", "bad.mp4")):
        (tmp_path / name).write_bytes(b"neither picture nor film")
        words = ["sample", model, RED, "--out", str(tmp_path), flag, str(tmp_path / name)]
        assert main([*words, "--no-progress"]) == 1
        assert name in capsys.readouterr().err
