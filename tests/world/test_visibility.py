import numpy as np
import pytest

from vdm.world.scenes import Camera, Object, Plane, Scene
from vdm.world.visibility import shape_points, visible_fraction

START = np.zeros(1)


def disc(colour, x, size="large"):
    return Object(colour, "circle", "plain", size, "static", None, 0.0, x=x)


def visible(*objects):
    return visible_fraction(Scene(objects, Camera(), Plane(80.0, 30.0, 1)), START)[0]


def test_one_object_in_the_frame_is_fully_visible():
    assert visible(disc("red", 3.0)).tolist() == [1.0]


def test_what_leaves_the_frame_is_not_visible():
    assert visible(disc("red", 32.0))[0] == pytest.approx(0.5, abs=0.02)
    assert visible(disc("red", 50.0)).tolist() == [0.0]


def test_the_near_object_hides_the_far_one():
    assert visible(disc("red", 0.0), disc("blue", 0.0)).tolist() == [0.0, 1.0]
    ratio = 1 - (9 / 12) ** 2
    assert visible(disc("red", 0.0), disc("blue", 0.0, "small"))[0] == pytest.approx(
        ratio, abs=0.02
    )
    assert visible(disc("red", -13.0), disc("blue", 13.0)).tolist() == [1.0, 1.0]


def test_points_cover_a_ring_but_not_its_hole():
    radii = np.hypot(*shape_points("ring").T)
    assert 0.55 < radii.min() < 0.6
    assert 0.95 < radii.max() < 1
