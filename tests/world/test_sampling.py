import numpy as np
import pytest

from vdm.world import attributes as a
from vdm.world.captions import print_caption
from vdm.world.render import render
from vdm.world.sampling import SPLITS, num_frames_of, scene
from vdm.world.shapes import reach
from vdm.world.visibility import visible_fraction

FRAMES = np.arange(16.0)


@pytest.fixture(scope="module")
def train():
    return [scene("train", 0, index) for index in range(300)]


def is_held_out(thing):
    return a.is_held_out(thing.colour, thing.shape, thing.motion)


def test_a_scene_is_the_same_at_any_time_and_in_any_order():
    forward = [scene("val", 3, index) for index in range(5)]
    backward = [scene("val", 3, index) for index in reversed(range(5))]
    assert forward == backward[::-1]


def test_split_seed_and_index_all_matter():
    scenes = [scene(*which) for which in [("train", 0, 1), ("val", 0, 1), ("train", 1, 1)]]
    scenes.append(scene("train", 0, 2))
    assert len({one.plane.key for one in scenes}) == 4


@pytest.mark.parametrize("split", ["train", "val", "test-iid", "test-occlusion", "test-hard"])
def test_no_held_out_pair_outside_the_compositional_split(split):
    count = 8 if split == "test-hard" else 40
    objects = [thing for index in range(count) for thing in scene(split, 0, index).objects]
    assert not any(is_held_out(thing) for thing in objects)


def test_every_compositional_clip_has_a_held_out_pair():
    scenes = [scene("test-comp", 0, index) for index in range(40)]
    assert all(any(is_held_out(thing) for thing in one.objects) for one in scenes)
    assert {len(one.objects) for one in scenes} == {1, 2}


def test_every_value_appears_in_training(train):
    objects = [thing for one in train for thing in one.objects]
    for name, values in {
        "colour": a.COLOURS,
        "shape": a.SHAPES,
        "texture": a.TEXTURES,
        "size": a.SIZES,
        "motion": a.MOTIONS,
        "speed": (None, *a.SPEEDS),
    }.items():
        assert {getattr(thing, name) for thing in objects} == set(values)
    assert {one.camera.motion for one in train} == set(a.CAMERAS)


def test_counts_and_cameras_are_drawn_in_their_shares(train):
    assert 0.4 < np.mean([len(one.objects) == 2 for one in train]) < 0.6
    assert 0.62 < np.mean([one.camera.motion == "static" for one in train]) < 0.78


def test_colours_differ_within_a_scene_and_impossible_objects_never_occur(train):
    for one in train:
        assert len({thing.colour for thing in one.objects}) == len(one.objects)
        for thing in one.objects:
            assert a.is_drawable(thing.shape, thing.motion, thing.size)
            assert (thing.speed is None) == (thing.motion == "static")
            assert thing.depth == 1.0


def test_every_object_is_visible_in_all_frames(train):
    for one in train[:100]:
        assert visible_fraction(one, FRAMES).min() >= 0.99


def test_bouncing_objects_meet_a_wall_between_frames_2_and_11(train):
    balls = [thing for one in train for thing in one.objects if thing.motion == "bounce"]
    assert len(balls) > 10
    time = np.linspace(0, 15, 1501)
    for ball in balls:
        pose = ball.pose(time)
        turns = [np.flatnonzero(np.diff(np.sign(np.diff(path)))) for path in (pose.x, pose.y)]
        first = min(time[hits[0] + 1] for hits in turns if len(hits))
        assert 1.98 <= first <= 11.02


def test_orbits_are_readable_and_bounded(train):
    orbits = [thing.orbit for one in train for thing in one.objects if "circle-" in thing.motion]
    assert min(orbits) >= 4
    assert max(orbits) == a.CIRCLE_RADIUS


def test_the_number_of_objects_can_be_asked_for():
    for count in (1, 2):
        scenes = [scene("test-iid", 0, index, num_objects=count) for index in range(20)]
        assert {len(one.objects) for one in scenes} == {count}


def test_parallax_lifts_the_objects_without_changing_their_size_in_words():
    flat, lifted = scene("train", 0, 8, 2), scene("train", 0, 8, 2, parallax=True)
    assert [thing.depth for thing in flat.objects] == [1.0, 1.0]
    assert [thing.depth for thing in lifted.objects] == [0.9, 0.8]
    for layer, thing in enumerate(lifted.objects):
        radius = lifted.centres(layer, FRAMES[:1])[1][0]
        assert radius == pytest.approx(a.RADII[thing.size] * reach(thing.shape))
    assert visible_fraction(lifted, FRAMES).min() >= 0.99


def test_occlusion_clips_hide_part_of_the_far_object_only():
    for index in range(8):
        visible = visible_fraction(scene("test-occlusion", 0, index), FRAMES)
        assert visible.shape == (16, 2)
        assert visible[:, 0].min() < 0.9
        assert visible[:, 0].mean() >= 0.5
        assert visible[:, 1].min() >= 0.99


def test_hard_clips_have_three_objects_at_three_depths_and_a_moving_camera():
    for index in range(5):
        one = scene("test-hard", 0, index)
        assert [thing.depth for thing in one.objects] == [1.0, 0.9, 0.8]
        assert one.camera.motion != "static"
        assert visible_fraction(one, FRAMES).min() >= 0.5


def test_speed_clips_move_at_speeds_never_trained():
    scenes = [scene("test-speed", 0, index) for index in range(40)]
    paces = {thing.pace for one in scenes for thing in one.objects}
    assert paces == {1.6, 3.2}
    for one in scenes:
        assert one.camera.motion == "static"
        assert "ly" not in print_caption(one)
        for layer, thing in enumerate(one.objects):
            centre, _ = one.centres(layer, FRAMES)
            steps = np.linalg.norm(np.diff(centre, axis=0), axis=1)
            np.testing.assert_allclose(steps, thing.pace)
        assert visible_fraction(one, FRAMES).min() > 0.85


def test_long_clips_stay_in_the_frame_for_64_frames():
    assert num_frames_of("test-long") == 64
    for index in range(6):
        one = scene("test-long", 0, index)
        assert visible_fraction(one, np.arange(64.0)).min() >= 0.99
    assert render(scene("test-long", 0, 0), size=16).shape == (64, 16, 16, 3)


def test_splits_have_their_sizes():
    assert {name: size for name, size in SPLITS.items() if name != "train"} == {
        "val": 2048,
        "test-iid": 10240,
        "test-comp": 2048,
        "test-occlusion": 1024,
        "test-hard": 1024,
        "test-speed": 1024,
        "test-long": 256,
    }


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (("tset-iid", 0, 0), "expected one of train, val, test-iid"),
        (("val", 0, 2048), "got index 2048, expected 0 to 2047 in val"),
        (("train", 0, -1), "got index -1"),
        (("test-hard", 0, 0, 2), r"got num_objects=2, expected one of \(3,\) in test-hard"),
    ],
)
def test_what_does_not_exist_is_refused(which, message):
    with pytest.raises(ValueError, match=message):
        scene(*which)
