"""Consistency and smoothness are 1 where nothing changes, and fall with what is planted."""

import numpy as np
import pytest
import torch
from textured_clips import panned, smooth_noise

from vdm.metrics.between import flow_warp, linear
from vdm.metrics.vbench import RANGES, consistency, scaled, smoothness


def walk(seed: int, num_frames: int) -> torch.Tensor:
    """Features that move away from where they began."""
    steps = torch.randn(num_frames, 11, generator=torch.Generator().manual_seed(seed))
    return 3 * steps[:1] + steps.cumsum(0)


def test_consistency_is_the_mean_over_frames_of_both_cosines():
    features = torch.stack([walk(seed, 5) for seed in (0, 1)])
    features[0, 3] = -features[0, 0]  # its cosine to the first frame is -1 and counts as 0
    for clip, value in zip(features.double().numpy(), consistency(features), strict=True):
        pairs = [(clip[0], clip[k], clip[k - 1]) for k in range(1, 5)]
        total = 0.0
        for first, here, before in pairs:
            for other in (first, before):
                cosine = here @ other / np.linalg.norm(here) / np.linalg.norm(other)
                total += max(0.0, cosine) / 2
        assert float(value) == pytest.approx(total / 4, abs=1e-6)


def test_still_features_are_consistent_and_shuffled_ones_less_than_ordered_ones():
    assert consistency(walk(0, 1).repeat(6, 1)[None]).item() == pytest.approx(1, abs=1e-6)
    for seed in range(3):
        ordered = walk(seed, 12)
        order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
        assert consistency(ordered[order][None]) < consistency(ordered[None])
    with pytest.raises(ValueError, match="1 frame, expected at least 2"):
        consistency(torch.ones(1, 1, 3))


@pytest.mark.parametrize("rule", [linear, flow_warp])
def test_a_still_clip_is_smooth_and_jitter_makes_it_less_so(rule):
    still = np.zeros((5, 2), int)
    side = np.where(np.arange(5) % 2, 1, -1)[:, None] * np.array([1, 0])
    values = [
        smoothness(panned(0, still + amount * side, 40, 48)[None], rule)[0]
        for amount in (0, 1, 2, 4)
    ]
    assert values[0] == 1
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


def test_steady_motion_is_smoother_than_steps_at_random_and_flow_sees_that_best():
    steady = np.arange(9)[:, None] * np.array([2, 1])
    steps = np.random.default_rng(0).permutation(9)
    clips = np.stack([panned(1, steady, 40, 48), panned(1, steady[steps], 40, 48)])
    warped, faded = smoothness(clips, flow_warp), smoothness(clips, linear)
    assert warped[0] > warped[1]
    assert faded[0] > faded[1]
    assert warped[0] > faded[0]


def test_every_second_frame_is_made_from_its_two_neighbours_alone():
    first, last = (smooth_noise(seed, 16, 24).astype(int) for seed in (0, 1))
    middle = np.rint((first + last) / 2)
    clip = np.stack([first, middle, last, np.zeros_like(first)]).astype(np.uint8)[None]
    assert smoothness(clip, linear)[0] == 1  # the fourth has no neighbour after it
    clip[0, 1, 5, 7, 2] = middle[5, 7, 2] - 3
    assert smoothness(clip, linear)[0] == pytest.approx(1 - 3 / 255 / clip[0, 1].size)
    with pytest.raises(ValueError, match="expected at least 3"):
        smoothness(clip[:, :2], linear)


@pytest.mark.parametrize("dimension", RANGES)
def test_a_scaled_value_is_a_place_in_the_range(dimension):
    low, high = RANGES[dimension]
    assert scaled(dimension, low) == 0
    assert scaled(dimension, high) == 1
    assert scaled(dimension, (low + high) / 2) == pytest.approx(0.5)
