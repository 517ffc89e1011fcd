"""Maps say of every cell what the frames show there."""

import numpy as np
import pytest

from vdm.world import attributes as a
from vdm.world.ground_truth import ground_truth
from vdm.world.maps import FLOW_SCALE, NUM_MAPS, SHAPE_SCALE, state_maps
from vdm.world.sampling import scene
from vdm.world.scenes import Camera, Object, Plane, Scene

PLANE = Plane(80.0, 30.0, 11)
BALL = Object("red", "square", "plain", "large", "right", "fast", 0.0, x=-12.0, y=3.0)


def test_an_object_fills_the_map_of_its_shape_alone_with_its_area():
    maps = state_maps(Scene((BALL,), Camera(), PLANE), np.array([0.0, 2.5]), 32, 16)
    assert maps.shape == (NUM_MAPS, 2, 32, 16)
    pixels = maps[: len(a.SHAPES)].sum(axis=(2, 3)) / SHAPE_SCALE * (64 * 64) / (32 * 16)
    side = 2 * 0.78 * 12
    assert pixels[a.SHAPES.index("square")] == pytest.approx(side**2, rel=0.1)
    others = [index for index, name in enumerate(a.SHAPES) if name != "square"]
    assert not pixels[others].any()


def test_cells_move_as_what_they_show():
    maps = state_maps(Scene((BALL,), Camera("pan-up"), PLANE), np.array([1.0]), 16, 16)
    inside = maps[a.SHAPES.index("square")] == SHAPE_SCALE
    outside = maps[a.SHAPES.index("square")] == 0
    assert inside.any()
    np.testing.assert_allclose(maps[-2][inside], 2.4 * FLOW_SCALE, rtol=1e-5)
    np.testing.assert_allclose(maps[-2][outside], 0, atol=1e-5)
    np.testing.assert_allclose(maps[-1], FLOW_SCALE, rtol=1e-5)


@pytest.mark.parametrize("split", ["train", "test-hard"])
def test_they_are_the_means_of_the_ground_truth(split):
    one = scene(split, 0, 4)
    truth = ground_truth(one, num_frames=6)
    maps = state_maps(one, np.array([2.0, 4.0]), 32, 32)  # four samples a cell: its four pixels
    cells = lambda values: values.reshape(32, 2, 32, 2).mean(axis=(1, 3))  # noqa: E731
    for place, frame in enumerate((2, 4)):
        for number, shape in enumerate(a.SHAPES):
            layers = [k + 1 for k, thing in enumerate(one.objects) if thing.shape == shape]
            share = cells(np.isin(truth.identity[frame], layers).astype(float))
            np.testing.assert_allclose(maps[number, place], SHAPE_SCALE * share, atol=1e-5)
        for axis in range(2):
            flow = cells(truth.forward_flow[frame][..., axis])
            np.testing.assert_allclose(maps[-2 + axis, place], FLOW_SCALE * flow, atol=1e-4)
