"""Seconds, frames and latent frames fit together."""

import pytest

from vdm.utils.time_grid import TimeGrid


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_latent_frames_hold_all_frames_and_none_is_empty(stride):
    for num_frames in range(1, 14):
        grid = TimeGrid(num_frames, stride=stride)
        assert grid.padded_frames == 1 + (grid.num_latent_frames - 1) * stride
        assert num_frames <= grid.padded_frames < num_frames + stride
        whole = TimeGrid(grid.padded_frames, stride=stride)
        assert whole.padded_frames == whole.num_frames
        assert whole.num_latent_frames == grid.num_latent_frames


def test_pieces_have_latent_frames_of_their_own():
    # Counted by hand: 17 frames and three zeros in front of them are five groups of four.
    counts = {1: 1, 4: 1, 5: 2, 16: 4, 17: 5, 18: 6, 22: 7, 34: 10, 51: 15}
    for num_frames, expected in counts.items():
        grid = TimeGrid(num_frames, stride=4, piece=17)
        assert grid.num_latent_frames == expected
        whole = TimeGrid(grid.padded_frames, stride=4, piece=17)
        assert (whole.padded_frames, whole.num_latent_frames) == (whole.num_frames, expected)
        assert num_frames <= whole.num_frames < num_frames + 4


def test_a_grid_covers_its_seconds():
    assert TimeGrid(12, fps=8.0).seconds == 1.5
    assert TimeGrid.from_seconds(1.5, 8.0, stride=4) == TimeGrid(12, 8.0, 4)
    assert TimeGrid.from_seconds(1.44, 8.0) == TimeGrid(12, 8.0)
    assert TimeGrid.from_seconds(0.01, 8.0) == TimeGrid(1, 8.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "got num_frames=0, expected at least 1"),
        ({"num_frames": 1, "fps": 0.0}, r"got fps=0\.0, expected more than 0"),
        ({"num_frames": 1, "fps": float("nan")}, "got fps=nan"),
        ({"num_frames": 1, "stride": 0}, "got stride=0, expected at least 1"),
    ],
)
def test_impossible_grids_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimeGrid(**arguments)


@pytest.mark.parametrize(("num_frames", "step"), [(16, 2), (16, 3), (17, 4), (1, 5), (9, 1)])
def test_keyframes_have_a_time_axis_of_their_own(num_frames, step):
    grid = TimeGrid(num_frames, 8.0, 4)
    every = grid.every(step)
    assert every.num_latent_frames == len(range(0, grid.num_latent_frames, step))
    assert every.fps == 8.0 / step
    assert every.every(2).num_latent_frames == grid.every(2 * step).num_latent_frames
    with pytest.raises(ValueError, match="got step=0"):
        grid.every(0)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 6, 16, 17, 18, 34, 43])
@pytest.mark.parametrize("piece", [None, 17])
def test_latent_frames_stand_for_all_frames_of_a_clip(num_frames, piece):
    grid = TimeGrid(num_frames, stride=4, piece=piece)
    assert sum(grid.groups) == num_frames
    assert len(grid.groups) == grid.num_latent_frames
    whole = TimeGrid(51, stride=4, piece=17).groups
    assert whole == 3 * [1, 4, 4, 4, 4]
