"""Frames between known ones: what is exact, what is held, which rule is nearer."""

import numpy as np
import pytest
from textured_clips import smooth_noise

from vdm.metrics.between import flow_warp, hold, linear


def known_of(count, *frames):
    known = np.zeros(count, bool)
    known[list(frames)] = True
    return known


@pytest.mark.parametrize("rule", [hold, linear, flow_warp])
def test_known_frames_stay_and_the_ends_are_held(rule):
    clip = np.stack([smooth_noise(seed, 16, 24) for seed in range(6)])
    known = known_of(6, 1, 4)
    filled = rule(clip, known)
    assert np.array_equal(filled[known], clip[known])
    assert np.array_equal(filled[0], clip[1])
    assert np.array_equal(filled[5], clip[4])
    hidden = np.where(known[:, None, None, None], clip, 0)
    assert np.array_equal(rule(hidden, known), filled)
    with pytest.raises(ValueError, match="got no known frame"):
        rule(clip, known_of(6))


def test_linear_is_exact_on_a_cross_fade():
    first, last = (smooth_noise(seed, 16, 24).astype(float) for seed in (0, 1))
    share = np.linspace(0, 1, 5).reshape(-1, 1, 1, 1)
    clip = np.rint((1 - share) * first + share * last).astype(np.uint8)
    assert np.array_equal(linear(clip, known_of(5, 0, 4)), clip)


def test_flow_is_nearly_exact_on_constant_motion_and_beats_linear():
    square = np.full((5, 48, 64, 3), 40, np.uint8)
    for k in range(5):
        square[k, 16:32, 10 + 2 * k : 26 + 2 * k] = 220
    pan = np.stack([smooth_noise(0, 80, 96)[10:58, 10 + k : 74 + k] for k in range(5)])
    known = known_of(5, 0, 4)
    for clip in (square, pan):
        error = [
            np.abs(rule(clip, known).astype(float) - clip).mean() for rule in (linear, flow_warp)
        ]
        assert error[1] < 0.25 * error[0]
