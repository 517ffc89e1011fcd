from dataclasses import replace

import numpy as np
import pytest

from vdm.world import attributes as a
from vdm.world.render import render
from vdm.world.sampling import scene
from vdm.world.scenes import Camera, Object, Plane, Scene


def plain(shape="circle", motion="static", **options):
    thing = Object("red", shape, "plain", "large", motion, None, 0.0, **options)
    return Scene((thing,), Camera(), Plane(80.0, 30.0, 11))


def still(index):
    return replace(scene("train", 0, index), camera=Camera("static"))


def test_clips_are_uint8_frames_of_any_size_and_length():
    frames = render(scene("train", 0, 3), size=40, num_frames=5, fps=10)
    assert frames.dtype == np.uint8
    assert frames.shape == (5, 40, 40, 3)
    assert render(scene("train", 0, 3)).shape == (16, 64, 64, 3)


def test_the_plane_is_grey_and_in_its_range():
    frames = render(Scene((), Camera("pan-left"), Plane(80.0, 30.0, 11)))
    assert (frames == frames[..., :1]).all()
    assert 50 <= frames.min() < frames.max() <= 110
    assert frames.std() > 3


@pytest.mark.parametrize("index", [2, 3, 5])
def test_the_frame_rate_changes_no_pixel(index):
    one = scene("train", 0, index)
    slow = render(one, num_frames=8, fps=8)
    fast = render(one, num_frames=15, fps=16)
    np.testing.assert_array_equal(slow, fast[::2])


def test_a_frame_does_not_depend_on_the_length_of_the_clip():
    one = scene("train", 0, 2)
    np.testing.assert_array_equal(render(one, num_frames=16)[:3], render(one, num_frames=3))


def test_a_static_scene_repeats_its_first_frame():
    frames = render(plain(x=5.0, y=-3.0))
    assert (frames == frames[:1]).all()


def test_an_object_has_its_colour_area_and_place():
    frames = render(plain(x=10.0, y=-5.0), num_frames=1)[0].astype(float)
    red = frames[..., 0] - frames[..., 2]
    share = red / (215 - 40)
    assert share.sum() == pytest.approx(np.pi * 12**2, rel=0.01)
    y, x = np.mgrid[:64, :64]
    assert (share * x).sum() / share.sum() == pytest.approx(31.5 + 10, abs=0.05)
    assert (share * y).sum() / share.sum() == pytest.approx(31.5 - 5, abs=0.05)
    assert tuple(frames[26, 41]) == a.COLOURS["red"]


def test_a_texture_darkens_to_its_shade():
    one = plain("square")
    striped = replace(one, objects=(replace(one.objects[0], texture="striped"),))
    values = np.unique(render(striped, num_frames=1)[0, 26:38, 26:38].reshape(-1, 3), axis=0)
    assert values.max(0).tolist() == [215, 40, 40]
    assert values.min(0).tolist() == [97, 18, 18]


def test_nearer_objects_cover_farther_ones():
    far, near = (
        Object(colour, "circle", "plain", "large", "static", None, 0.0)
        for colour in ("red", "blue")
    )
    frames = render(Scene((far, near), Camera(), Plane(80.0, 30.0, 11)), num_frames=1)
    assert tuple(frames[0, 32, 32]) == a.COLOURS["blue"]


@pytest.mark.parametrize("index", [0, 1, 9])
def test_twice_the_size_shows_the_same_clip(index):
    small = render(still(index), size=64, num_frames=3).astype(float)
    large = render(still(index), size=128, num_frames=3).astype(float)
    halved = large.reshape(3, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(small - halved).mean() < 1.0


def test_a_panning_camera_shows_the_plane_shifted():
    plane = Plane(80.0, 30.0, 11)
    frames = render(Scene((), Camera("pan-right"), plane), num_frames=4)
    assert np.abs(frames[3, :, :-3].astype(int) - frames[0, :, 3:].astype(int)).max() <= 1


@pytest.mark.parametrize("arguments", [{"size": 0}, {"num_frames": 0}, {"fps": 0.0}, {"fps": -8.0}])
def test_what_cannot_be_drawn_is_refused(arguments):
    with pytest.raises(ValueError, match="expected all positive"):
        render(scene("train", 0, 0), **arguments)
