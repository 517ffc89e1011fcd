import numpy as np
import pytest

from vdm.world import attributes as a
from vdm.world.shapes import is_inside, is_shaded, outline, reach

LINE = np.linspace(-1.5, 1.5, 601)
U, V = np.meshgrid(LINE, LINE)
CELL = (LINE[1] - LINE[0]) ** 2


def area(shape):
    return float(is_inside(shape, U, V).sum() * CELL)


def test_areas_are_those_of_the_figures():
    assert area("circle") == pytest.approx(np.pi, rel=0.01)
    assert area("ring") == pytest.approx(np.pi * (1 - 0.55**2), rel=0.01)
    assert area("square") == pytest.approx((2 * 0.78) ** 2, rel=0.01)
    assert area("triangle") == pytest.approx(3 * np.sqrt(3) / 4 * 1.1**2, rel=0.01)
    assert area("bar") == pytest.approx(4 * 1.1 * 1.1 / 3, rel=0.01)
    assert area("cross") == pytest.approx(4 * (2 * 1.05 * 0.36 - 0.36**2), rel=0.01)
    star = 10 * 0.5 * 1.1 * (0.5 * 1.1) * np.sin(np.pi / 5)
    assert area("star") == pytest.approx(star, rel=0.01)


@pytest.mark.parametrize(
    ("shape", "fold"), [("triangle", 3), ("square", 4), ("cross", 4), ("star", 5), ("bar", 2)]
)
def test_shapes_have_their_symmetry_and_no_higher(shape, fold):
    def turned(angle):
        u = np.cos(angle) * U - np.sin(angle) * V
        v = np.sin(angle) * U + np.cos(angle) * V
        inside, again = is_inside(shape, U, V), is_inside(shape, u, v)
        return (inside != again).sum() / inside.sum()

    assert turned(2 * np.pi / fold) < 0.02
    assert turned(np.pi / fold) > 0.1


@pytest.mark.parametrize("shape", ["triangle", "star"])
def test_one_point_looks_up(shape):
    inside = is_inside(shape, U, V)
    assert V[inside].min() == pytest.approx(-1.1, abs=0.03)
    assert V[inside].max() < 1.0


def test_a_bar_is_three_times_as_long_as_wide():
    inside = is_inside("bar", U, V)
    assert np.ptp(U[inside]) / np.ptp(V[inside]) == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize("shape", a.SHAPES)
def test_outline_and_reach_bound_the_shape_tightly(shape):
    inside = is_inside(shape, U, V)
    furthest = np.hypot(U[inside], V[inside]).max()
    assert reach(shape) - 0.03 < furthest <= reach(shape)
    points = outline(shape)
    assert U[inside].max() <= points[:, 0].max() < U[inside].max() + 0.02
    assert V[inside].min() >= points[:, 1].min() > V[inside].min() - 0.02


@pytest.mark.parametrize("texture", a.TEXTURES)
def test_textures_darken_part_of_the_object_and_plain_none(texture):
    inside = is_inside("circle", U, V)
    share = is_shaded(texture, U, V)[inside].mean()
    if texture == "plain":
        assert share == 0
    else:
        assert 0.25 < share < 0.6


@pytest.mark.parametrize("shape", a.SHAPES)
def test_single_precision_sees_the_same_shape(shape):
    single = is_inside(shape, U.astype(np.float32), V.astype(np.float32))
    assert (single != is_inside(shape, U, V)).mean() < 0.002
