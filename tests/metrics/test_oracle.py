import warnings

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vdm import world
from vdm.metrics.captions import score_caption
from vdm.metrics.oracle import ObjectReading, read_camera, read_clip, read_clips
from vdm.metrics.oracle_shapes import colour_labels
from vdm.world import attributes as a
from vdm.world.scenes import Camera, Object, Plane, Scene


def worsened(clip: np.ndarray, seed: int, blur: float = 0.7) -> np.ndarray:
    """Blurred, with noise of 5 of 255."""
    noise = 5 * np.random.default_rng(seed).standard_normal(clip.shape)
    blurred = gaussian_filter(clip.astype(np.float64), (0, blur, blur, 0))
    return np.rint(blurred + noise).clip(0, 255).astype(np.uint8)


def one(camera: str = "static", **changes: object) -> Scene:
    about = {
        "colour": "blue",
        "shape": "triangle",
        "texture": "striped",
        "size": "small",
        "motion": "right",
        "speed": "slow",
        "angle": 0.3,
        "x": -8.0,
        "y": 2.0,
    }
    return Scene((Object(**{**about, **changes}),), Camera(camera), Plane(85.0, 40.0, 7))


@pytest.fixture(scope="module", params=[1, 2])
def clips(request: pytest.FixtureRequest) -> list[tuple[Scene, np.ndarray]]:
    scenes = [world.scene("test-iid", 0, k, request.param) for k in range(12)]
    return [(scene, world.render(scene)) for scene in scenes]


def test_everything_that_a_caption_says_is_read_back_from_the_pixels(clips):
    for scene, clip in clips:
        score = score_caption(read_clip(clip), world.caption_of(scene))
        assert all(score.correct.values()), (scene, score)
        assert score.is_persistent


@pytest.mark.parametrize("blur", [0.7, 1.2])
def test_blur_and_noise_do_not_change_the_whole_caption(clips, blur):
    for k, (scene, clip) in enumerate(clips):
        score = score_caption(read_clip(worsened(clip, k, blur)), world.caption_of(scene))
        assert score.whole, (scene, score)


def test_larger_frames_read_the_same():
    scene = one("zoom-in", motion="circle-ccw", orbit=9.0, x=0.0)
    assert read_clip(world.render(scene, size=96)) == read_clip(world.render(scene))


@pytest.mark.parametrize("camera", a.CAMERAS)
def test_the_camera_is_read_and_taken_out_of_the_motion(camera):
    reading = read_clip(world.render(one(camera, motion="static", speed=None)))
    assert reading.camera == camera
    assert reading.objects[0].motion == "static"
    assert reading.objects[0].size == "small"


def test_the_camera_is_read_without_any_object():
    scene = Scene((), Camera("pan-up"), Plane(85.0, 40.0, 7))
    clip = worsened(world.render(scene), 0)
    assert read_camera(clip, colour_labels(clip)) == "pan-up"
    reading = read_clip(clip)
    assert reading.objects == ()
    assert reading.is_persistent


def test_an_object_that_changes_colour_or_vanishes_does_not_persist():
    red, green = (world.render(one(colour=c)) for c in ("red", "green"))
    assert not read_clip(np.concatenate([red[:8], green[8:]])).is_persistent
    empty = world.render(Scene((), Camera(), Plane(85.0, 40.0, 7)))
    assert not read_clip(np.concatenate([red[:12], empty[12:]])).is_persistent
    assert read_clip(red).is_persistent


def test_an_object_that_changes_shape_does_not_persist():
    first, second = (world.render(one(shape=s, texture="plain")) for s in ("square", "star"))
    assert not read_clip(np.concatenate([first[:10], second[10:]])).is_persistent


def test_a_blot_is_no_shape():
    clip = world.render(Scene((), Camera(), Plane(85.0, 40.0, 7)))
    clip[:, 10:20, 8:18] = clip[:, 40:50, 44:54] = a.COLOURS["red"]
    (found,) = read_clip(clip).objects
    assert found.colour == "red"
    assert found.shape is None


def test_noise_of_any_colour_is_read_without_complaint():
    clip = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reading = read_clip(clip)
        read_clip(clip[:, :16, :16])
    assert not any(thing.motion and thing.shape for thing in reading.objects)


def test_many_clips_read_as_each_alone():
    clips = np.stack([world.render(one(colour=c)) for c in ("red", "pink", "cyan")])
    readings = read_clips(clips)
    assert [reading.objects[0].colour for reading in readings] == ["red", "pink", "cyan"]
    assert readings[0] == read_clip(clips[0])
    assert readings[0].objects[0] == ObjectReading(
        "red", "triangle", "small", "right", "slow", is_persistent=True
    )


@pytest.mark.parametrize("index", range(3))
def test_long_clips_are_read_too(index):
    scene = world.scene("test-long", 0, index, 1)
    clip = world.render(scene)
    assert len(clip) == 64
    score = score_caption(read_clip(clip), world.print_caption(scene))
    assert score.correct["colour"]
    assert score.correct["camera"]


def test_an_object_as_bright_as_the_plane_is_still_seen_to_move():
    frames = np.full((16, 64, 64, 3), 85, np.uint8)
    for t in range(16):
        frames[t, 20:40, 10 + 2 * t : 30 + 2 * t] = (255, 160, 160)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (thing,) = read_clip(frames).objects
    assert thing.motion == "right"


def test_what_is_no_clip_is_refused():
    with pytest.raises(ValueError, match="at least 4"):
        read_clip(np.zeros((3, 64, 64, 3), np.uint8))
    with pytest.raises((TypeError, ValueError)):
        read_clip(np.zeros((5, 64, 64, 3), np.float32))
    with pytest.raises(ValueError, match="square"):
        read_clip(np.zeros((5, 64, 48, 3), np.uint8))
