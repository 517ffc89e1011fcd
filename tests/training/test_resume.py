"""A run killed at any moment and resumed ends with the same bytes as one that was not."""

import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from vdm.training.cli import CHOICES, main

ROOT = Path(__file__).parents[2]
AUTOENCODER = [
    "--trainer.max_steps=6",
    "--trainer.val_check_interval=4",
    "--trainer.gradient_clip_val=1.0",
    "--trainer.callbacks=[{class_path: EMA, init_args: {decay: 0.5}}, "
    "{class_path: Checkpoints, init_args: {every_n_steps: 2}}]",
    "--model.autoencoder={class_path: VideoVAE, init_args: {latent_channels: 2, widths: [8, 8], "
    "level_strides: [[2, 2, 2]], encoder_blocks: [1, 1], decoder_blocks: [1, 1], patch_size: 2}}",
    "--model.adversarial={class_path: AdversarialLoss, init_args: {start_step: 3, discriminator: "
    "{class_path: VideoDiscriminator, init_args: {width: 4, depth: 1}}}}",
    "--model.statistics_clips=5",
    "--data.shapes={num_train: 12, num_val: 6, size: 16, num_frames: 5}",
    "--data.batch_size=4",
]
TIMES_PER_FRAME = [
    "--model.network.factorization=[{class_path: Spatial}, "
    "{class_path: Temporal, init_args: {is_causal: true, window: 2}}]",
    "--model.network.block.time_positions=rotary",
    "--model.loss.frame_times={class_path: MixedTimes, init_args: "
    "{rules: [CleanPast, IndependentTimes], weights: [1, 1]}}",
]


STAGES = ("interpolate", "upscale")
STAGE = [
    *(word for word in AUTOENCODER if word.startswith(("--trainer", "--model.autoencoder"))),
    *(f"--model.network.{size}" for size in ("dim=24", "depth=1", "num_heads=2", "pooled_dim=12")),
    *(f"--model.text_encoder.{size}" for size in ("dim=12", "depth=1", "num_heads=2")),
    "--data.shapes={num_train: 12, num_val: 6, size: 16, num_frames: 9}",
    "--data.batch_size=4",
]


def words_for(kind, smoke, cache):
    if kind == "times per frame":
        return [*smoke, *TIMES_PER_FRAME]
    if kind in STAGES:
        recipe = ROOT / "configs" / f"{kind}_s_shapes.yaml"
        low = ["--data.view.low_size=8"] if kind == "upscale" else []
        return [f"--config={recipe}", *STAGE, *low, f"--data.cache_dir={cache}"]
    recipe = ROOT / "configs" / "vae_shapes.yaml"
    return [f"--config={recipe}", *AUTOENCODER, f"--data.cache_dir={cache}"]


@pytest.mark.parametrize("kind", ["times per frame", "autoencoder", *STAGES])
def test_a_resumed_run_ends_like_one_that_was_not_interrupted(kind, smoke, cache, tmp_path):
    words = words_for(kind, smoke, cache)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["fit", *words, f"--output={whole}"]) == 0
    shutil.copytree(whole, cut)
    (cut / "final.safetensors").unlink()
    (cut / "checkpoints" / "step-00000006.ckpt").unlink()
    torch.rand(7)  # the global generator stands elsewhere
    assert main(["fit", *words, f"--output={cut}", "--resume"]) == 0
    name = "final.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()
    last = "checkpoints/step-00000006.ckpt"
    first, second = (torch.load(run / last, weights_only=True) for run in (whole, cut))
    assert torch.equal(
        torch.stack([s["exp_avg"].norm() for s in adam(first)]),
        torch.stack([s["exp_avg"].norm() for s in adam(second)]),
    )


def adam(checkpoint):
    states = checkpoint["optimizer_states"][0]["state"].values()
    return [state for state in states if "exp_avg" in state]


def test_resume_starts_where_there_is_nothing_and_refuses_other_batches_than_before(
    smoke, tmp_path
):
    run = tmp_path / "run"
    few = ["--trainer.max_steps=2", "--resume"]
    assert main(["fit", *smoke, *few, f"--output={run}"]) == 0
    assert (run / "final.safetensors").is_file()
    stored = (run / "config.yaml").read_bytes()
    for word, said in {
        "--data.batch_size=3": r"got data\.batch_size=3, expected 4",
        "--data.shapes.num_train=13": "got num_samples=13, expected 12",
    }.items():
        with pytest.raises(ValueError, match=said):
            main(["fit", *smoke, f"--output={run}", "--resume", "--trainer.max_steps=8", word])
        assert (run / "config.yaml").read_bytes() == stored


@pytest.mark.slow
def test_the_smoke_recipe_survives_being_killed(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # equal runs: an equal number of threads
    context = multiprocessing.get_context("forkserver")
    # What optimizers and loggers import when they are first used comes along.
    late = ["torch._dynamo", "torch.utils.tensorboard"]
    context.set_forkserver_preload(["vdm.training.cli", *CHOICES, *late])
    words = [f"--config={ROOT / 'configs' / 'smoke.yaml'}", f"--data.cache_dir={cache}"]
    words += ["--trainer.max_steps=40", "--data.batch_size=4"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(folder):
        arguments = ["fit", *words, f"--output={folder}", "--resume"]
        process = context.Process(target=main, args=(arguments,))
        process.start()
        return process

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(["fit", *words, f"--output={whole}"]) == 0
    finally:
        torch.set_num_threads(threads)

    process = start(killed)
    while process.is_alive() and not checkpoints(killed):
        time.sleep(0.01)
    process.join(random.Random(0).uniform(0, 0.2))
    process.kill()  # SIGKILL: nothing is cleaned up
    process.join()
    assert process.exitcode == -signal.SIGKILL  # it was not done before
    newest = max(checkpoints(killed))
    newest.write_bytes(newest.read_bytes()[:5000])
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    name = "final.safetensors"
    assert (killed / name).read_bytes() == (whole / name).read_bytes()


def checkpoints(run):
    return set((run / "checkpoints").glob("step-*.ckpt"))
