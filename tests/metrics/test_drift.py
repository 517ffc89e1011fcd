"""Planted drift is read with its sign and size, and a clip that repeats has none."""

import numpy as np
import pytest

from vdm import world
from vdm.metrics.drift import WINDOW, drift, slope, windows


@pytest.fixture(scope="module")
def clip():
    """Three times the same window."""
    one = world.render(world.scene("test-iid", seed=0, index=3), 40, WINDOW)
    return np.tile(one, (3, 1, 1, 1))[None]


def test_what_repeats_does_not_drift(clip):
    assert all(abs(value) < 1e-9 for value in drift(clip)[0].values())


def test_a_clip_that_fades_and_freezes_drifts_down(clip):
    gain = np.repeat([1.0, 0.8, 0.6], WINDOW).reshape(1, -1, 1, 1, 1)
    faded = (clip * gain).round().astype(np.uint8)
    faded[:, WINDOW:] = faded[:, WINDOW::WINDOW].repeat(WINDOW, 1)
    row, still = drift(faded)[0], drift(clip[:, :1].repeat(3 * WINDOW, 1))[0]
    assert all(value < 0 for value in row.values())
    assert all(value == 0 for value in still.values())


def test_brightness_is_in_percent_a_window():
    grey = np.repeat(np.uint8([51, 102, 153, 204]), WINDOW).reshape(1, -1, 1, 1, 1)
    row = drift(np.broadcast_to(grey, (1, 4 * WINDOW, 32, 32, 3)).copy())[0]
    assert row["brightness"] == pytest.approx(20, rel=1e-3)
    assert row["contrast"] == row["sharpness"] == pytest.approx(0, abs=1e-9)


def test_the_slope_is_that_of_a_line_whatever_its_height():
    place = np.arange(5)
    values = np.stack([3 * place - 7.0, -0.5 * place, np.array([0, 1, 0, 1, 0])])
    assert slope(values) == pytest.approx([3, -0.5, 0])


def test_frames_that_fill_no_window_are_not_read(clip):
    longer = np.concatenate((clip, np.zeros_like(clip[:, :5])), axis=1)
    assert len(windows(longer)) == 3
    assert drift(longer) == drift(clip)
