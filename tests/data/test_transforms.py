"""Windows are addressed by a key and always fit."""

import numpy as np
import pytest

from vdm.data.transforms import Window, cut, draw_window

SHAPE = (23, 40, 50)


def draw(*key, shape=SHAPE, strides=(1, 2, 3), shrinks=(1, 2)):
    return draw_window(shape, 7, 16, strides, shrinks, *key)


def test_same_key_same_window():
    assert draw("a", 3) == draw("a", 3)
    assert draw("a", 3) != draw("a", 4)


def test_windows_fit_and_every_choice_is_made():
    windows = [draw("many", index) for index in range(300)]
    for window in windows:
        side = 16 * window.shrink
        assert 0 <= window.start <= 23 - 6 * window.stride - 1
        assert 0 <= window.top <= 40 - side
        assert 0 <= window.left <= 50 - side
    assert {window.stride for window in windows} == {1, 2, 3}
    assert {window.shrink for window in windows} == {1, 2}
    assert {window.start for window in windows} == set(range(17))


def test_only_fitting_strides_and_shrinks_are_drawn():
    windows = [draw("few", index, shape=(13, 31, 50)) for index in range(50)]
    assert {window.stride for window in windows} == {1, 2}
    assert {window.shrink for window in windows} == {1}


@pytest.mark.parametrize("shape", [(6, 40, 50), (23, 15, 50)])
def test_video_that_is_too_small_is_refused(shape):
    with pytest.raises(ValueError, match="at least 7 frames, 16 pixels"):
        draw("none", shape=shape)


def test_cut_takes_the_window():
    video = np.random.default_rng(0).integers(0, 256, (23, 40, 50, 3), dtype=np.uint8)
    clip = cut(video, Window(start=2, stride=3, top=4, left=5), 7, 16)
    assert np.array_equal(clip, video[2:21:3, 4:20, 5:21])


def test_cut_averages_pixels_when_it_shrinks():
    video = np.zeros((7, 32, 32, 3), np.uint8)
    video[:, ::2, ::2, 1] = 202
    clip = cut(video, Window(start=0, stride=1, shrink=2), 7, 16)
    assert clip.shape == (7, 16, 16, 3)
    assert (clip[..., 1] == 50).all()  # 50.5, half to even
    assert (clip[..., 0] == 0).all()
