from dataclasses import replace

import numpy as np
import pytest

from vdm.world import attributes as a
from vdm.world.scenes import Camera, Object, Plane, Scene

FRAMES = np.arange(16.0)


def thing(motion, speed="slow", **options):
    return Object("blue", "star", "plain", "small", motion, speed, angle=0.3, **options)


def scene_of(*objects, camera="static"):
    return Scene(objects, Camera(camera), Plane(80.0, 30.0, 5))


def test_a_static_object_does_not_move():
    pose = thing("static", None, x=4.0, y=-7.0).pose(FRAMES)
    for values, value in zip(
        (pose.x, pose.y, pose.angle, pose.radius), (4, -7, 0.3, 9), strict=True
    ):
        assert (values == value).all()


@pytest.mark.parametrize(("way", "step"), [("left", (-1, 0)), ("down", (0, 1))])
@pytest.mark.parametrize(("speed", "pace"), [("slow", 0.8), ("fast", 2.4)])
def test_straight_motion_covers_its_pixels_per_frame(way, step, speed, pace):
    pose = thing(way, speed).pose(FRAMES)
    np.testing.assert_allclose(np.diff(pose.x), step[0] * pace, atol=1e-12)
    np.testing.assert_allclose(np.diff(pose.y), step[1] * pace, atol=1e-12)


def test_an_orbit_is_a_circle_and_clockwise_is_from_right_to_down():
    pose = thing("circle-cw", "fast", orbit=8.0, heading=0.0).pose(np.array([0.0, 0.5, 16 / 1.3]))
    np.testing.assert_allclose(np.hypot(pose.x, pose.y), 8.0)
    assert pose.y[1] > 0
    np.testing.assert_allclose([pose.x[2], pose.y[2]], [8, 0], atol=1e-12)
    other = thing("circle-ccw", "fast", orbit=8.0, heading=0.0).pose(np.array([0.5]))
    assert other.y[0] < 0


@pytest.mark.parametrize(("speed", "radians"), [("slow", 1.2), ("fast", 2.4)])
def test_spin_turns_its_angle_in_16_frames(speed, radians):
    for motion, sense in (("spin-cw", 1), ("spin-ccw", -1)):
        angle = thing(motion, speed).pose(np.array([0.0, 16.0])).angle
        np.testing.assert_allclose(angle[1] - angle[0], sense * radians)


@pytest.mark.parametrize(("speed", "factor"), [("slow", 1.5), ("fast", 1.9)])
def test_growth_and_shrinking_reach_their_factor_in_16_frames(speed, factor):
    ends = np.array([0.0, 16.0])
    np.testing.assert_allclose(thing("grow", speed).pose(ends).radius, [9, 9 * factor])
    large = replace(thing("shrink", speed), size="large")
    np.testing.assert_allclose(large.pose(ends).radius, [12, 12 / factor])


def test_a_bounce_keeps_its_speed_between_walls():
    box = (-10.0, 12.0, -20.0, 20.0)
    ball = thing("bounce", "fast", x=5.0, y=1.0, heading=np.pi / 4, box=box)
    pose = ball.pose(np.linspace(0, 40, 4001))
    assert box[0] <= pose.x.min() < box[0] + 0.1
    assert box[1] - 0.1 < pose.x.max() <= box[1]
    steps = np.hypot(np.diff(pose.x), np.diff(pose.y)) / 0.01
    assert np.median(steps) == pytest.approx(3.6)


@pytest.mark.parametrize(
    ("camera", "moved"),
    [("pan-left", (15, 0)), ("pan-right", (-15, 0)), ("pan-up", (0, 15)), ("pan-down", (0, -15))],
)
def test_the_plane_moves_against_a_panning_camera(camera, moved):
    scene = scene_of(camera=camera)
    matrix = scene.matrix(None, FRAMES)
    np.testing.assert_allclose(matrix[15, :2, 2] - matrix[0, :2, 2], moved)
    np.testing.assert_allclose(matrix[:, 0, 0], 1)


def test_zooming_in_enlarges_about_the_middle():
    matrix = scene_of(camera="zoom-in").matrix(None, FRAMES)
    np.testing.assert_allclose(matrix[:, 0, 0], 1 / (1 - 0.016 * FRAMES))
    np.testing.assert_allclose(matrix[:, :2, 2], 31.5)
    assert (scene_of(camera="zoom-out").matrix(None, FRAMES)[1:, 0, 0] < 1).all()


def test_depth_changes_nothing_at_frame_0_and_nearer_objects_move_more():
    scene = scene_of(
        thing("static", None, x=6.0, y=2.0),
        thing("static", None, x=6.0, y=2.0, depth=0.8),
        camera="pan-right",
    )
    far, near = scene.matrix(0, FRAMES), scene.matrix(1, FRAMES)
    np.testing.assert_allclose(far[0], near[0])
    np.testing.assert_allclose(far[1, 0, 2] - far[0, 0, 2], -1)
    np.testing.assert_allclose(near[1, 0, 2] - near[0, 0, 2], -1 / 0.8)


def test_matrices_are_similarities_that_carry_the_origin_to_the_centre():
    scene = scene_of(thing("grow", "fast", x=-3.0, y=9.0), camera="zoom-out")
    matrix = scene.matrix(0, FRAMES)
    centre, radius = scene.centres(0, FRAMES)
    np.testing.assert_allclose(matrix[:, :2, 2], centre)
    scale = np.sqrt(np.linalg.det(matrix[:, :2, :2]))
    np.testing.assert_allclose(matrix[:, 0, 0], matrix[:, 1, 1])
    np.testing.assert_allclose(matrix[:, 0, 1], -matrix[:, 1, 0])
    np.testing.assert_allclose(radius, scale * a.RADII["small"] * 1.1)


def test_a_camera_never_passes_through_the_plane():
    with pytest.raises(ValueError, match=r"got frame 60, expected at most 56.*depth 1"):
        scene_of(camera="zoom-in").matrix(None, np.array([10.0, 60.0]))
