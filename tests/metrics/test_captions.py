import numpy as np
import pytest

from vdm import world
from vdm.metrics.captions import (
    caption_accuracy,
    failures_by_pair,
    score_caption,
    shuffled_frames,
    static_copy,
    swapped,
)
from vdm.metrics.oracle import ObjectReading, Reading, read_clips


def seen(colour="red", shape="circle", motion="left", size="small", speed="slow", holds=True):
    return ObjectReading(colour, shape, size, motion, speed, holds)


def reading(*objects: ObjectReading, camera: str = "static") -> Reading:
    return Reading(objects, camera, all(thing.is_persistent for thing in objects))


CAPTION = "a small red circle moves left slowly."


def test_a_right_clip_is_right_in_everything():
    score = score_caption(reading(seen()), CAPTION)
    assert score.whole
    assert all(score.correct.values())
    assert set(score.correct) == {
        "count",
        "colour",
        "shape",
        "motion",
        "size",
        "speed",
        "camera",
    }


@pytest.mark.parametrize(
    ("attribute", "value", "is_whole"),
    [
        ("colour", "blue", False),
        ("shape", None, False),
        ("motion", None, False),
        ("size", "large", True),
        ("speed", "fast", True),
    ],
)
def test_each_attribute_is_judged_alone(attribute, value, is_whole):
    score = score_caption(reading(seen(**{attribute: value})), CAPTION)
    assert [name for name, right in score.correct.items() if not right] == [attribute]
    assert score.whole == is_whole


def test_a_camera_that_moves_unasked_is_wrong():
    score = score_caption(reading(seen(), camera="zoom-in"), CAPTION)
    assert not score.correct["camera"]
    assert score.whole
    asked = "a red circle moves left, the camera zooms in."
    assert score_caption(reading(seen(), camera="zoom-in"), asked).correct["camera"]


def test_what_a_caption_leaves_open_is_not_judged():
    score = score_caption(reading(seen(size="large")), "a red circle moves left")
    assert "size" not in score.correct
    assert "speed" not in score.correct
    assert score.whole


def test_objects_are_matched_whatever_their_order():
    both = "a red circle moves left and a blue star grows"
    blue = seen("blue", "star", "grow")
    for order in ([seen(), blue], [blue, seen()]):
        score = score_caption(reading(*order), both)
        assert score.whole
        assert [found for _, found in score.pairs] == [seen(), blue]


def test_a_missing_or_surplus_object_is_a_wrong_count():
    both = "a red circle moves left and a blue star grows"
    missing = score_caption(reading(seen()), both)
    assert [found for _, found in missing.pairs] == [seen(), None]
    assert not missing.correct["count"]
    assert not missing.correct["colour"]
    surplus = score_caption(reading(seen("blue"), seen()), CAPTION)
    assert [found for _, found in surplus.pairs] == [seen()]
    assert not surplus.correct["count"]
    assert not surplus.whole


def test_more_objects_than_the_world_has_room_for_are_refused():
    told = " and ".join(f"a {colour} circle moves left" for colour in world.attributes.COLOURS)
    with pytest.raises(ValueError, match="8 objects, expected at most 3"):
        score_caption(reading(seen()), told)


def test_nothing_and_blots_do_not_persist():
    caption = "a red circle moves left"
    assert not score_caption(Reading((), "static", True), caption).is_persistent
    blot = ObjectReading("red", None, "small", "left", "slow", is_persistent=True)
    assert not score_caption(Reading((blot,), "static", True), caption).is_persistent


def test_shares_have_protocols_intervals_and_ceilings():
    scores = [score_caption(reading(seen()), CAPTION) for _ in range(9)]
    scores.append(score_caption(reading(seen(shape="star", holds=False)), "a red circle moves up"))
    shares = caption_accuracy(scores, "caption-accuracy/{part}/r1", {"whole": 99.5})
    assert shares["whole"].value == 90
    assert shares["whole"].protocol == "caption-accuracy/whole/r1"
    assert shares["whole"].ceiling == 99.5
    assert shares["speed"].n_gen == 9
    assert shares["persistence"].value == 90
    low, high = shares["whole"].interval
    assert 55 < low < 90 < high < 99
    with pytest.raises(ValueError, match="no clips"):
        caption_accuracy([], "caption-accuracy/{part}")


def test_failures_are_listed_by_pair_the_most_frequent_first():
    right = score_caption(reading(seen()), CAPTION)
    wrong = score_caption(reading(seen(motion="right")), CAPTION)
    worse = score_caption(reading(), "a blue star grows")
    rows = failures_by_pair([right, wrong, worse, worse])
    assert (rows[0].failures, rows[0].total) == (2, 2)
    assert {row.values for row in rows[:3]} == {
        ("star", "grow"),
        ("blue", "star"),
        ("blue", "grow"),
    }
    assert {(row.values, row.failures, row.total) for row in rows[3:]} == {
        (("circle", "left"), 1, 2),
        (("red", "left"), 1, 2),
    }


def test_the_baselines_fail_where_real_clips_pass():
    scenes = [world.scene("test-iid", 0, k, 1) for k in range(24)]
    captions = [world.print_caption(scene) for scene in scenes]
    clips = np.stack([world.render(scene) for scene in scenes])

    def whole(clips: np.ndarray, captions: list[str]) -> float:
        pairs = zip(read_clips(clips), captions, strict=True)
        return float(np.mean([score_caption(*pair).whole for pair in pairs]))

    still = float(np.mean([scene.objects[0].motion == "static" for scene in scenes]))
    assert whole(clips, captions) == 1
    assert whole(static_copy(clips), captions) == still < 0.3
    assert whole(shuffled_frames(clips), captions) <= still + 0.05
    assert whole(clips, swapped(captions)) < 0.1


def test_baselines_change_what_they_say_and_nothing_else():
    clips = np.arange(2 * 5 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 5, 3, 4, 3)
    assert (static_copy(clips) == clips[:, :1]).all()
    mixed = shuffled_frames(clips)
    assert (mixed == shuffled_frames(clips)).all()
    assert not (mixed == clips).all()
    assert (np.sort(mixed, 1) == np.sort(clips, 1)).all()
    assert swapped(["a", "b", "c"]) == ["b", "c", "a"]
