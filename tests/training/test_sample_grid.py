"""Samples show up while a run goes on, and do not change how it ends."""

import numpy as np
import pytest
from PIL import Image

from vdm.training.cli import main
from vdm.training.sample_grid import SampleGrid, grid


def test_a_run_with_samples_ends_like_one_without(smoke, tmp_path):
    sampler = (
        "--trainer.callbacks+={class_path: SampleGrid, init_args: {every_n_steps: 3, steps: 2, "
        "prompts: [a red circle grows., a blue star shrinks.]}}"
    )
    plain, shown = tmp_path / "plain", tmp_path / "shown"
    assert main(["fit", *smoke, f"--output={plain}"]) == 0
    assert main(["fit", *smoke, sampler, f"--output={shown}"]) == 0
    name = "final.safetensors"
    assert (shown / name).read_bytes() == (plain / name).read_bytes()
    clips = sorted((shown / "samples").iterdir())
    assert [clip.name for clip in clips] == ["step-00000003.gif", "step-00000006.gif"]
    with Image.open(clips[0]) as picture:
        assert picture.n_frames == 5


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
