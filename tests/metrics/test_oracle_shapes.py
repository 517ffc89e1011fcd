import numpy as np
import pytest

from vdm.metrics.oracle_shapes import (
    GREY,
    PERIODS,
    STEP,
    colour_labels,
    equal_area_radius,
    normalise_masks,
    template_overlaps,
)
from vdm.world.attributes import COLOURS, SHAPES, TEXTURE_SHADE
from vdm.world.shapes import is_inside


def draw(shape: str, degrees: float = 0.0, radius: float = 9.0, x: float = 30.3, y: float = 25.6):
    """A soft mask of a turned shape, (44, 60)."""
    fine = (np.arange(60 * 4) + 0.5) / 4 - 0.5
    u, v = np.meshgrid((fine - x) / radius, (fine[: 44 * 4] - y) / radius)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    inside = is_inside(shape, cos * u + sin * v, cos * v - sin * u)
    return inside.reshape(44, 4, 60, 4).mean((1, 3))


def overlaps(mask: np.ndarray) -> dict[str, np.ndarray]:
    area = mask.sum()
    centre = np.array([[mask.sum(0) @ np.arange(60), mask.sum(1) @ np.arange(44)]]) / area
    flat = normalise_masks(mask[None].astype(np.float32), centre, np.array([area]))
    return {shape: values[0] for shape, values in template_overlaps(flat).items()}


@pytest.mark.parametrize("light", [1.0, TEXTURE_SHADE])
def test_every_colour_is_read_also_where_the_texture_is_dark_or_the_edge_soft(light):
    for index, rgb in enumerate(COLOURS.values()):
        pure = np.array(rgb) * light
        soft = 0.6 * pure + 0.4 * 85
        pixels = np.rint([pure, soft]).astype(np.uint8)
        assert (colour_labels(pixels) == index).all()


def test_the_plane_is_grey_also_under_noise():
    noise = np.random.default_rng(0).normal(0, 5, (200, 200, 3))
    grey = np.linspace(15, 150, 200).reshape(200, 1, 1)
    labels = colour_labels((grey + noise).round().clip(0, 255).astype(np.uint8))
    assert (labels == GREY).mean() > 0.997


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_overlaps_most_with_itself_at_its_own_angle(shape):
    angle = 3 * STEP
    found = overlaps(draw(shape, angle))
    assert max(found, key=lambda name: found[name].max()) == shape
    assert found[shape].max() > 0.9
    if PERIODS[shape] > STEP:
        assert found[shape].argmax() == angle // STEP


def test_place_and_size_do_not_matter():
    first = overlaps(draw("star", 12, 8.0, 20.2, 19.7))["star"]
    second = overlaps(draw("star", 12, 13.0, 33.9, 22.5))["star"]
    assert np.abs(first - second).max() < 0.06


def test_the_circle_of_equal_area_has_the_shapes_area():
    for shape in SHAPES:
        radius = 9 * equal_area_radius(shape)
        assert draw(shape, 17).sum() == pytest.approx(np.pi * radius**2, rel=0.01)
