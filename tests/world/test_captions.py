import re

import pytest

from vdm.world import attributes as a
from vdm.world.captions import (
    CAMERA_WORDS,
    VERBS,
    WORDS,
    Caption,
    ObjectCaption,
    caption_of,
    parse_caption,
    print_caption,
)
from vdm.world.philox import Words
from vdm.world.sampling import scene


@pytest.fixture(scope="module")
def scenes():
    return [scene(split, 0, index) for split in ("train", "test-comp") for index in range(90)]


def test_the_parser_inverts_the_printer(scenes):
    for one in scenes:
        assert parse_caption(print_caption(one)) == caption_of(one)


def test_a_caption_names_what_the_scene_holds(scenes):
    for one in scenes[:50]:
        told = parse_caption(print_caption(one))
        assert told.camera == one.camera.motion
        for said, thing in zip(told.objects, one.objects, strict=True):
            assert (said.colour, said.shape, said.motion) == (
                thing.colour,
                thing.shape,
                thing.motion,
            )
            assert (said.size, said.speed) == (thing.size, thing.speed)
            assert (said.texture or "plain") == thing.texture


def test_paraphrases_say_the_same_and_drop_only_what_may_be_dropped(scenes):
    dropped = dict.fromkeys(("size", "texture", "speed"), 0)
    said = dict.fromkeys(dropped, 0)
    verbs = set()
    for number, one in enumerate(scenes):
        text = print_caption(one, Words("test", number))
        told, full = parse_caption(text), caption_of(one)
        assert told.camera == full.camera
        for some, every in zip(told.objects, full.objects, strict=True):
            verbs |= {verb for verb in VERBS[every.motion] if verb in text}
            assert (some.colour, some.shape, some.motion) == (
                every.colour,
                every.shape,
                every.motion,
            )
            for name in dropped:
                assert getattr(some, name) in (None, getattr(every, name))
                said[name] += getattr(every, name) is not None
                dropped[name] += getattr(some, name) != getattr(every, name)
    assert verbs == {verb for alternatives in VERBS.values() for verb in alternatives}
    for name in dropped:
        assert 0.2 < dropped[name] / said[name] < 0.4


def test_a_paraphrase_is_decided_by_its_words_alone(scenes):
    assert print_caption(scenes[0], Words(1)) == print_caption(scenes[0], Words(1))
    assert len({print_caption(scenes[0], Words(k)) for k in range(20)}) > 5


@pytest.mark.parametrize("motion", a.MOTIONS)
def test_every_way_to_say_a_motion_is_understood(motion):
    for verb in VERBS[motion]:
        for camera, words in {
            "static": "",
            **{k: f", {v}" for k, v in CAMERA_WORDS.items()},
        }.items():
            told = parse_caption(f"a pink bar {verb}{words}.")
            assert told == Caption((ObjectCaption("pink", "bar", motion),), camera)


def test_case_spaces_and_the_last_period_do_not_matter():
    expected = parse_caption("a small red ring moves left slowly, the camera zooms in.")
    assert parse_caption("A small  RED ring moves left slowly , the camera zooms in") == expected


def test_the_vocabulary_is_fixed_and_complete(scenes):
    assert tuple(sorted(set(WORDS))) == WORDS
    used = {word for one in scenes for word in re.findall(r"[a-z]+|[,.]", print_caption(one))}
    assert used <= set(WORDS)
    assert {",", ".", "and", "orbits", "smaller"} <= set(WORDS)
    assert 50 <= len(WORDS) <= 70


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a rde circle grows", r"got the unknown word 'rde', expected one like 'red'"),
        ("an orange ring grows", r"got the unknown word 'an', expected one like 'a'"),
        ("a red circle moves leftwards", r"unknown word 'leftwards', expected one like 'left'"),
        ("", r"got the end as word 1, expected a$"),
        ("red circle grows", r"got 'red' as word 1, expected a$"),
        ("a red moves left", r"got 'moves' as word 3, expected circle, square"),
        ("a red circle moves", r"got the end as word 5, expected left, right, up, down, in$"),
        ("a red circle stays still slowly", r"got 'slowly' as word 6, expected 'and'"),
        ("a red circle grows, the camera left", r"got 'left' as word 8, expected pans, zooms$"),
        ("a red circle grows a blue bar grows", r"got 'a' as word 5, expected 'and'"),
        ("a red circle grows. a blue bar grows", r"got '\.' as word 5"),
    ],
)
def test_what_is_outside_the_grammar_is_pointed_at(text, message):
    with pytest.raises(ValueError, match=message):
        parse_caption(text)
