"""Samples show up while a run goes on, and do not change how it ends."""

import numpy as np
import pytest
from PIL import Image

from vdm.training.cli import main
from vdm.training.sample_grid import SampleGrid, grid


def test_a_run_with_samples_ends_like_one_without(smoke, finished, tmp_path):
    sampler = (
        "--trainer.callbacks+={class_path: SampleGrid, init_args: {every_n_steps: 3, steps: 2, "
        "prompts: [a red circle grows., a blue star shrinks.]}}"
    )
    assert main(["fit", *smoke, sampler, f"--output={tmp_path}"]) == 0
    name = "final.safetensors"
    assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    clips = sorted((tmp_path / "samples").iterdir())
    assert [clip.name for clip in clips] == ["step-00000003.gif", "step-00000006.gif"]
    with Image.open(clips[0]) as picture:
        assert picture.n_frames == 5


def test_what_cannot_be_sampled_is_found_before_the_first_step(smoke, tmp_path):
    run = tmp_path / "run"

    def fit(prompts, *words):
        grid = f"{{class_path: SampleGrid, init_args: {{prompts: [{prompts}]}}}}"
        words = [f"--trainer.callbacks+={grid}", f"--output={run}", *words, "--trainer.max_steps=1"]
        return main(["fit", *smoke, *words])

    with pytest.raises(ValueError, match="unknown word 'mauve'"):
        fit("a mauve circle grows.")
    with pytest.raises(ValueError, match="takes no prompt"):
        fit("a red circle grows.", "--model.text_encoder=null")
    assert fit("a red circle grows.") == 0  # the failed ones do not stand in the way


def test_a_step_of_several_batches_is_sampled_once(smoke, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        SampleGrid, "look", lambda self, trainer, module: seen.append(trainer.global_step)
    )
    grid = "--trainer.callbacks+={class_path: SampleGrid, init_args: {every_n_steps: 2}}"
    words = [*smoke, grid, "--trainer.accumulate_grad_batches=3", "--trainer.max_steps=4"]
    assert main(["fit", *words, f"--output={tmp_path}"]) == 0
    assert seen == [2, 4]


def test_a_grid_has_a_row_per_clip():
    clips = np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1, 1)
    clips = np.broadcast_to(clips, (2, 16, 3, 5, 3)) + np.arange(16, dtype=np.uint8).reshape(
        1, 16, 1, 1, 1
    ) * np.uint8(2)
    picture = grid(clips)
    assert picture.shape == (2 * 3, 8 * 5, 3)
    assert picture[0, 0, 0] == 0
    assert picture[-1, 0, 0] == 1
    assert picture[0, -1, 0] == 30


@pytest.mark.parametrize("arguments", [{"every_n_steps": 0}, {"prompts": []}])
def test_a_grid_of_nothing_is_refused(arguments):
    with pytest.raises(ValueError, match="expected at least 1 of both"):
        SampleGrid(**arguments)
