import numpy as np
import pytest
import torch

from vdm.metrics.clips import check_clips, luma, quantise


def test_frames_are_rounded_once_half_to_even_and_axes_move():
    video = torch.zeros(2, 3, 5, 4, 6)
    video[1, 2, 3, 1, 5] = 1.0
    clips, clamped = quantise(video)
    assert clips.shape == (2, 5, 4, 6, 3)
    assert clips[0, 0, 0, 0, 0] == 128  # 127.5 goes to the even neighbour
    assert clips[1, 3, 1, 5, 2] == 255
    assert clamped == 0


def test_the_share_of_clamped_values_is_reported():
    video = torch.zeros(1, 3, 2, 4, 5)
    video[:, 0] = 1.5
    clips, clamped = quantise(video)
    assert clamped == pytest.approx(1 / 3)
    assert clips.max() == 255


def test_every_uint8_value_survives_the_round_trip():
    values = torch.arange(256, dtype=torch.float32) / 127.5 - 1
    clips, _ = quantise(values.repeat(3, 1).reshape(1, 3, 1, 16, 16))
    assert (clips[0, 0, ..., 1].ravel() == np.arange(256)).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 255.0])
def test_values_in_other_units_are_refused(value):
    video = torch.zeros(1, 3, 2, 4, 5)
    video[0, 0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"expected pixels in \[-1, 1\]"):
        quantise(video)


def test_wrong_type_shape_and_counts_are_refused():
    clips = np.zeros((2, 5, 4, 6, 3), np.uint8)
    check_clips(clips, min_clips=2, min_frames=5)
    with pytest.raises(TypeError, match="float32"):
        check_clips(clips.astype(np.float32))
    with pytest.raises(TypeError, match="list"):
        check_clips(clips.tolist())
    with pytest.raises(ValueError, match=r"\(b, t, h, w, 3\)"):
        check_clips(clips[0])
    with pytest.raises(ValueError, match=r"\(b, t, h, w, 3\)"):
        check_clips(clips.transpose(0, 4, 1, 2, 3))
    with pytest.raises(ValueError, match="at least 3"):
        check_clips(clips, min_clips=3)
    with pytest.raises(ValueError, match="at least 6"):
        check_clips(clips, min_frames=6)
    with pytest.raises(ValueError, match="no empty axis"):
        check_clips(clips[:, :, :0])


def test_luma_of_grey_is_the_grey_value():
    grey = np.full((2, 4, 5, 3), 77, np.uint8)
    assert np.allclose(luma(grey), 77)
    assert luma(grey).shape == (2, 4, 5)
