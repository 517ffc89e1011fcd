import colorsys
from itertools import combinations, product

import numpy as np

from vdm.world import attributes as a


def held_out_pairs():
    colours = tuple(a.COLOURS)
    shape_motion = {
        (s, m)
        for s, m in product(a.SHAPES, a.MOTIONS)
        if all(a.is_held_out(c, s, m) for c in colours)
    }
    colour_shape = {
        (c, s)
        for c, s in product(colours, a.SHAPES)
        if all(a.is_held_out(c, s, m) for m in a.MOTIONS)
    }
    return shape_motion, colour_shape


def test_twelve_and_seven_pairs_are_held_out():
    shape_motion, colour_shape = held_out_pairs()
    assert (len(shape_motion), len(colour_shape)) == (12, 7)
    assert {("circle", "static"), ("bar", "left"), ("triangle", "circle-cw")} <= shape_motion
    assert {("red", "circle"), ("pink", "square")} <= colour_shape


def test_no_value_is_held_out_altogether():
    allowed = [
        triple
        for triple in product(a.COLOURS, a.SHAPES, a.MOTIONS)
        if not a.is_held_out(*triple)
        and any(a.is_drawable(triple[1], triple[2], size) for size in a.SIZES)
    ]
    assert {c for c, _, _ in allowed} == set(a.COLOURS)
    assert {s for _, s, _ in allowed} == set(a.SHAPES)
    assert {m for _, _, m in allowed} == set(a.MOTIONS)


def test_hues_lie_at_least_24_degrees_apart():
    hues = [360 * colorsys.rgb_to_hsv(*(v / 255 for v in rgb))[0] for rgb in a.COLOURS.values()]
    gaps = [abs(x - y) for x, y in combinations(hues, 2)]
    assert min(min(gap, 360 - gap) for gap in gaps) >= 24


def test_round_shapes_do_not_spin_and_sizes_leave_room_to_change():
    assert not a.is_drawable("circle", "spin-cw", "small")
    assert not a.is_drawable("ring", "spin-ccw", "large")
    assert a.is_drawable("star", "spin-cw", "small")
    assert not a.is_drawable("star", "grow", "large")
    assert a.is_drawable("star", "grow", "small")
    assert not a.is_drawable("star", "shrink", "small")
    assert a.is_drawable("star", "shrink", "large")


def test_four_of_84_pairs_of_shape_and_motion_are_void():
    assert len(a.SHAPES) * len(a.MOTIONS) == 84
    assert len(a.DRAWABLE_PAIRS) == len(set(a.DRAWABLE_PAIRS)) == 80
    assert ("ring", "spin-cw") not in a.DRAWABLE_PAIRS


def test_logarithms_of_growth_belong_to_its_factors():
    for speed, factor in a.GROWTH.items():
        np.testing.assert_allclose(a.LOG_GROWTH[speed], np.log(factor), rtol=1e-15)
