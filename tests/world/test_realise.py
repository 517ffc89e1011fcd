import numpy as np
import pytest

from vdm.world.captions import caption_of, parse_caption, print_caption
from vdm.world.realise import scene_from_caption
from vdm.world.sampling import scene
from vdm.world.visibility import visible_fraction


def test_a_full_caption_comes_back_word_for_word():
    for index in range(15):
        text = print_caption(scene("test-iid", 0, index))
        assert print_caption(scene_from_caption(text, seed=index)) == text


@pytest.mark.parametrize(
    "text",
    [
        "a red circle moves left",
        "a small blue star spins clockwise and a green ring grows, the camera pans up.",
        "a cyan bar stays still and a pink cross shrinks and a yellow square moves down",
    ],
)
def test_what_is_unsaid_is_drawn_and_what_is_said_holds(text):
    told = parse_caption(text)
    one = scene_from_caption(text)
    shown = caption_of(one)
    assert shown.camera == told.camera
    for said, full in zip(told.objects, shown.objects, strict=True):
        for name in ("colour", "shape", "motion", "size"):
            assert getattr(said, name) in (None, getattr(full, name))
    assert visible_fraction(one, np.arange(16.0)).min() >= 0.99


def test_another_seed_gives_another_scene_and_the_same_seed_the_same():
    text = "a red circle moves left"
    assert scene_from_caption(text, 1) == scene_from_caption(parse_caption(text), 1)
    assert scene_from_caption(text, 1) != scene_from_caption(text, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a red circle spins clockwise", "got a circle with the motion 'spin-cw'"),
        ("a large red bar grows", "got a large bar with the motion 'grow'"),
        ("a red bar grows and a red star grows", "got two red objects"),
        (
            " and ".join(f"a {c} bar grows" for c in ("red", "blue", "pink", "cyan")),
            "got 4 objects",
        ),
        (
            "a large red star moves right quickly, the camera pans left",
            "expected objects that stay in the frame and clear of each other",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        scene_from_caption(text)
