import builtins

import numpy as np
import pytest
from textured_clips import panned

from vdm import world
from vdm.metrics.clip_measures import measure_motion, measure_warping
from vdm.metrics.motion import motion_features
from vdm.metrics.optical_flow import (
    FlowEstimator,
    _find,
    end_point_error,
    resize_flow,
    visible_mask,
    warp,
    warping_error,
)
from vdm.metrics.temporal import jitter


@pytest.fixture
def pan() -> np.ndarray:
    return panned(3, np.stack([2 * np.arange(4), -np.arange(4)], -1))


def constant_flow(clip: np.ndarray, x: float, y: float) -> np.ndarray:
    return np.broadcast_to(
        np.array([x, y], np.float32), (len(clip) - 1, *clip.shape[1:3], 2)
    ).copy()


def test_the_estimator_finds_a_pan_and_its_reverse(pan):
    estimate = FlowEstimator()
    forward, backward = estimate(pan), estimate(pan, reverse=True)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert np.allclose(forward[inner].mean((0, 1, 2)), (-2, 1), atol=0.1)
    assert np.allclose(backward[inner].mean((0, 1, 2)), (2, -1), atol=0.1)


def test_scores_of_one_clip_find_its_flow_once_each_way(pan):
    clip = np.concatenate([pan, pan[::-1]])[None]
    _find.cache_clear()
    for score in (jitter, motion_features, measure_motion, measure_warping):
        score(clip)
    assert _find.cache_info().misses == 3  # both ways, and of smaller frames
    jitter(clip[:, 1:])
    assert _find.cache_info().misses == 5


def test_flow_is_measured_in_pixels_of_the_size_asked_for(pan):
    flow = FlowEstimator("fast")(pan, size=(24, 16))
    assert flow.shape == (3, 24, 16, 2)
    assert np.allclose(flow[:, 4:-4, 4:-4].mean((0, 1, 2)), (-0.5, 0.5), atol=0.1)
    grown = resize_flow(flow, 48, 64)
    assert np.allclose(grown[:, 8:-8, 16:-16].mean((0, 1, 2)), (-2, 1), atol=0.3)


def test_warping_by_the_true_flow_undoes_the_motion(pan):
    flow = constant_flow(pan, -2, 1)
    warped, inside = warp(pan[1:].astype(np.float64), flow)
    assert np.allclose(warped[inside], pan[:-1][inside])
    assert inside[:, :-1, 2:].all()
    assert not inside[:, -1].any()
    visible = visible_mask(flow, -flow)
    assert (visible == inside).all()
    assert warping_error(pan, flow, visible) < 1e-12
    assert warping_error(pan, 0 * flow, np.ones_like(visible)) > 1e-3


def test_disagreeing_flows_and_motion_boundaries_are_occluded(pan):
    flow = constant_flow(pan, 0, 0)
    assert not visible_mask(flow, constant_flow(pan, 1, 0)).any()
    flow[:, :, 30:] = (3, 0)
    visible = visible_mask(flow, -flow)
    assert not visible[:, :, 29:31].any()
    assert visible[:, :, :28].all()


def test_end_point_error_counts_the_pixels_it_is_told_to():
    true = np.zeros((2, 4, 5, 2), np.float32)
    true[:, :, 0] = (3, 4)
    assert end_point_error(true, true) == {"mean": 0, "over_1px": 0, "over_3px": 0}
    error = end_point_error(np.zeros_like(true), true)
    assert error["mean"] == pytest.approx(1)
    assert error["over_3px"] == pytest.approx(0.2)
    assert end_point_error(np.zeros_like(true), true, moving_only=True)["mean"] == 5
    nowhere = np.zeros(true.shape[:3], bool)
    assert end_point_error(np.zeros_like(true), true, nowhere)["mean"] == 0


def test_the_worlds_own_flow_explains_its_clips_and_judges_the_estimator():
    estimate = FlowEstimator()
    warped, unwarped, errors, zeros = [], [], [], []
    for index in range(4):
        scene = world.scene("test-iid", 0, index)
        clip, truth = world.render(scene), world.ground_truth(scene)
        flow, visible = truth.forward_flow, ~truth.forward_occluded.astype(bool)
        warped.append(warping_error(clip, flow, visible))
        unwarped.append(warping_error(clip, 0 * flow, visible))
        assert end_point_error(flow, flow)["mean"] == 0
        errors.append(end_point_error(estimate(clip), flow, visible, moving_only=True)["mean"])
        zeros.append(end_point_error(0 * flow, flow, visible, moving_only=True)["mean"])
    assert np.mean(warped) < 3e-4  # what bilinear sampling leaves
    assert np.mean(unwarped) > 5 * np.mean(warped)
    assert np.mean(errors) < 0.5 * np.mean(zeros)


def test_misfits_are_refused(pan):
    flow = constant_flow(pan, 0, 0)
    visible = np.ones(flow.shape[:3], bool)
    with pytest.raises((TypeError, ValueError)):
        warping_error(pan[:3], flow, visible)
    with pytest.raises((TypeError, ValueError)):
        end_point_error(flow, flow[:1])
    with pytest.raises((TypeError, ValueError)):
        FlowEstimator("slow")
    with pytest.raises(ValueError, match="got side=16, expected at least 32"):
        FlowEstimator(side=16)
    with pytest.raises(ValueError, match="at least 2"):
        FlowEstimator()(pan[:1])


def test_without_opencv_the_message_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def no_opencv(name: str, *args: object, **kwargs: object) -> object:
        if name == "cv2":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_opencv)
    with pytest.raises(ImportError, match="opencv-python-headless"):
        FlowEstimator()
