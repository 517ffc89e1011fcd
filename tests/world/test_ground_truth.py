from dataclasses import replace

import numpy as np
import pytest

from vdm.world.ground_truth import ground_truth, layer_matrices
from vdm.world.render import render
from vdm.world.sampling import scene
from vdm.world.scenes import Camera, Object, Plane, Scene

PLANE = Plane(80.0, 30.0, 11)


def warp(image, flow):
    """Sample ``image`` (h, w, 3) bilinearly at every pixel moved by ``flow`` (h, w, 2)."""
    h, w = image.shape[:2]
    y, x = np.mgrid[:h, :w] + flow[..., ::-1].transpose(2, 0, 1)
    x0, y0 = np.clip(x.astype(int), 0, w - 2), np.clip(y.astype(int), 0, h - 2)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    bottom = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy


@pytest.mark.parametrize("split", ["train", "test-occlusion", "test-hard"])
def test_warping_by_the_true_flow_leaves_almost_nothing(split):
    errors, unwarped = [], []
    for index in range(5):
        one = scene(split, 0, index)
        frames = render(one) / 255
        truth = ground_truth(one)
        for first, second, flow, hidden in [
            (frames[:-1], frames[1:], truth.forward_flow, truth.forward_occluded),
            (frames[1:], frames[:-1], truth.backward_flow, truth.backward_occluded),
        ]:
            for k in range(len(first)):
                error = (warp(second[k], flow[k]) - first[k]) ** 2
                errors.append(error[~hidden[k]].mean())
                unwarped.append(((second[k] - first[k]) ** 2)[~hidden[k]].mean())
    assert np.mean(errors) < 4e-4
    assert np.mean(errors) < 0.1 * np.mean(unwarped)


def test_flow_is_how_objects_and_plane_move():
    ball = Object("red", "circle", "plain", "large", "right", "fast", 0.0, x=-12.0)
    truth = ground_truth(Scene((ball,), Camera("pan-up"), PLANE), num_frames=4)
    on_ball = truth.identity[0] == 1
    np.testing.assert_allclose(truth.forward_flow[0][on_ball], [[2.4, 1]] * on_ball.sum())
    np.testing.assert_allclose(truth.forward_flow[0][~on_ball], [[0, 1]] * (~on_ball).sum())
    np.testing.assert_allclose(
        truth.backward_flow[2][truth.identity[3] == 0][0], [0, -1], atol=1e-12
    )


def test_forward_and_backward_flow_cancel_where_nothing_is_hidden():
    truth = ground_truth(scene("test-hard", 0, 2), num_frames=5)
    for k in range(4):
        back = warp(truth.backward_flow[k][..., [0, 1, 1]], truth.forward_flow[k])[..., :2]
        total = np.abs(truth.forward_flow[k] + back).max(-1)
        assert np.median(total[~truth.forward_occluded[k]]) < 1e-9


def test_occlusion_is_the_band_that_a_moving_object_covers():
    ball = Object("red", "square", "plain", "large", "right", "fast", 0.0, x=-12.0)
    truth = ground_truth(Scene((ball,), Camera(), PLANE), num_frames=3)
    hidden = truth.forward_occluded[0]
    side = 2 * 0.78 * 12
    assert hidden.sum() == pytest.approx(2.4 * side, rel=0.3)
    assert (truth.identity[0][hidden] == 0).all()
    assert (truth.identity[1][hidden] == 1).all()


def test_what_leaves_the_frame_counts_as_occluded():
    truth = ground_truth(Scene((), Camera("pan-right"), PLANE), num_frames=2)
    assert truth.forward_occluded[0, :, 0].all()
    assert not truth.forward_occluded[0, :, 1:].any()
    assert truth.backward_occluded[0, :, -1].all()


def test_depth_identity_and_camera_agree_with_the_pinhole():
    one = scene("test-hard", 0, 0)
    one = replace(one, camera=Camera("zoom-in"))
    truth = ground_truth(one, size=48, num_frames=6)
    depths = np.array([1.0, 1.0, 0.9, 0.8])
    for t in range(6):
        np.testing.assert_allclose(truth.depth[t], depths[truth.identity[t]] - 0.016 * t)
    # A point of the plane, projected by the camera, lands where its layer's matrix takes it.
    matrix = layer_matrices(one, np.arange(6.0))[0]
    for t in range(6):
        world = np.array([0.2, -0.1, 1.0, 1.0])
        pixel = truth.intrinsics @ (truth.camera_from_world[t] @ world)[:3]
        expected = (matrix[t] @ [64 * 0.2, -64 * 0.1, 1.0])[:2]
        np.testing.assert_allclose(pixel[:2] / pixel[2], (expected + 0.5) * 48 / 64 - 0.5)


def test_identity_shows_the_colour_of_its_object():
    one = scene("train", 0, 7)
    frames, truth = render(one).astype(float), ground_truth(one)
    saturation = np.ptp(frames, axis=-1) / np.maximum(frames.max(-1), 1)
    assert ((saturation > 0.35) == (truth.identity > 0)).mean() > 0.98


@pytest.mark.parametrize("index", [0, 2, 5, 6])
def test_boxes_hold_the_object_and_nothing_more(index):
    one = scene("train", 0, index)
    truth = ground_truth(one, size=128)
    for layer in range(len(one.objects)):
        for t in (0, 9):
            y, x = np.nonzero(truth.identity[t] == layer + 1)
            seen = [x.min(), y.min(), x.max(), y.max()]
            np.testing.assert_allclose(truth.boxes[t, layer], seen, atol=2)


def test_larger_frames_scale_the_flow():
    one = scene("train", 0, 2)
    small, large = ground_truth(one, size=32), ground_truth(one, size=64)
    np.testing.assert_allclose(
        small.forward_flow[:, 0, 0] * 2, large.forward_flow[:, :2, :2].mean((1, 2)), atol=1e-9
    )


def test_arrays_have_one_entry_per_frame_or_pair():
    truth = ground_truth(scene("train", 0, 2), size=24, num_frames=5, fps=16)
    assert truth.forward_flow.shape == truth.backward_flow.shape == (4, 24, 24, 2)
    assert truth.forward_occluded.shape == truth.backward_occluded.shape == (4, 24, 24)
    assert truth.identity.shape == truth.depth.shape == (5, 24, 24)
    assert truth.visible.shape == (5, 2)
    assert truth.boxes.shape == (5, 2, 4)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="expected all positive"):
        ground_truth(scene("train", 0, 2), size=0)
