from dataclasses import dataclass, replace

from vdm.world.agreement import agreement
from vdm.world.captions import Caption, ObjectCaption, parse_caption


@dataclass(frozen=True)
class Read:
    """One object to a reader that knows nothing of size, texture and speed."""

    colour: str
    shape: str | None
    motion: str | None


@dataclass(frozen=True)
class Reading:
    objects: tuple[Read, ...]
    camera: str = "static"


ASKED = parse_caption(
    "a small striped red star moves left quickly and a blue ring stays still, the camera zooms in"
)
STAR, RING = ASKED.objects


def test_a_caption_agrees_with_itself_in_any_order():
    for seen in (ASKED, replace(ASKED, objects=(RING, STAR))):
        result = agreement(ASKED, seen)
        assert result.whole
        assert result.count
        assert result.camera
        assert result.attributes == dict.fromkeys(
            ("colour", "shape", "motion", "size", "texture", "speed"), True
        )


def test_each_wrong_attribute_is_wrong_alone():
    for name, value in {
        "colour": "green",
        "shape": "bar",
        "motion": "right",
        "size": "large",
        "texture": None,
        "speed": "slow",
    }.items():
        seen = replace(ASKED, objects=(RING, replace(STAR, **{name: value})))
        result = agreement(ASKED, seen)
        assert [key for key, right in result.attributes.items() if not right] == [name]
        assert result.whole == (name in ("size", "texture", "speed"))
        assert result.camera
        assert result.pairs[1] == (RING, RING)


def test_a_wrong_camera_does_not_spoil_the_whole_caption():
    result = agreement(ASKED, replace(ASKED, camera="static"))
    assert result.whole
    assert not result.camera


def test_a_missing_or_surplus_object_spoils_every_attribute():
    extra = ObjectCaption("pink", "bar", "up")
    for objects in ((STAR,), (), (STAR, RING, extra)):
        result = agreement(ASKED, Caption(objects, "zoom-in"))
        assert not result.count
        assert not result.whole
        assert not any(result.attributes.values())


def test_what_the_caption_leaves_open_or_the_reader_cannot_read_is_not_judged():
    asked = parse_caption("a red star moves left and a large blue ring stays still")
    seen = Reading((Read("red", "star", "left"), Read("blue", "ring", "static")))
    result = agreement(asked, seen)
    assert result.attributes == {"colour": True, "shape": True, "motion": True}
    assert result.whole


def test_what_could_not_be_read_is_wrong():
    asked = parse_caption("a red star moves left")
    result = agreement(asked, Reading((Read("red", None, "left"),)))
    assert result.attributes == {"colour": True, "shape": False, "motion": True}


def test_swapped_attributes_are_not_excused():
    asked = parse_caption("a red star moves left and a blue ring stays still")
    seen = parse_caption("a red ring moves left and a blue star stays still")
    result = agreement(asked, seen)
    assert result.attributes == {"colour": True, "shape": False, "motion": True}
    assert not result.whole
