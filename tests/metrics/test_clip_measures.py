"""Every measure of a clip stands for itself: a batch changes nothing, planted errors raise it."""

import numpy as np
import pytest

from vdm import world
from vdm.metrics.clip_measures import (
    CLIP_MEASURES,
    measure_flicker,
    measure_motion,
    measure_warping,
)
from vdm.metrics.optical_flow import warping_error


@pytest.fixture(scope="module")
def clips():
    scenes = [world.scene("test-iid", seed=0, index=k) for k in (3, 8)]
    return np.stack([world.render(scene, 48, 7) for scene in scenes])


@pytest.mark.parametrize("measure", CLIP_MEASURES, ids=lambda measure: measure.name)
def test_a_batch_changes_nothing(measure, clips):
    clips = np.tile(clips, (1, -(-measure.min_frames // clips.shape[1]), 1, 1, 1))
    rows = measure.measure(clips)
    assert rows == [row for clip in clips for row in measure.measure(clip[None])]
    assert all(np.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("measure", CLIP_MEASURES, ids=lambda measure: measure.name)
def test_too_few_frames_are_refused(measure):
    short = np.zeros((1, measure.min_frames - 1, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=f"expected at least {measure.min_frames}"):
        measure.measure(short)


def test_noise_raises_flicker_and_warping_error(clips):
    noise = np.random.default_rng(0).normal(0, 6, clips.shape)
    noisy = (clips + noise).round().clip(0, 255).astype(np.uint8)
    for measure, name in ((measure_flicker, "difference"), (measure_warping, "error")):
        before, after = measure(clips), measure(noisy)
        assert all(a[name] < b[name] for a, b in zip(before, after, strict=True))
    for row in measure_flicker(noisy):
        assert row["vbench"] == pytest.approx(100 - row["difference"])
        assert row["scaled"] == pytest.approx((row["vbench"] - 62.93) / 0.3707)  # VBench's range


def test_the_clip_s_own_flow_explains_most_of_what_changes(clips):
    still = np.zeros((6, 48, 48, 2), np.float32)
    everywhere = np.ones((6, 48, 48), bool)
    for clip, row in zip(clips, measure_warping(clips), strict=True):
        assert row["error"] < 0.5 * warping_error(clip, still, everywhere)


def test_half_the_speed_is_half_the_motion():
    scene = world.scene("test-iid", seed=0, index=3)
    slow = world.render(scene, 64, 17)[None]
    fast = slow[:, ::2]
    amounts = [measure_motion(clip)[0]["amount"] for clip in (slow, fast)]
    assert amounts[1] == pytest.approx(2 * amounts[0], rel=0.15)
