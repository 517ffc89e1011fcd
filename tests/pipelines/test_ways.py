"""Which way given frames take into a clip, by the rule that a model has for them."""

from types import SimpleNamespace

import pytest
import torch

from vdm.conditioning.given import DrawnInPlace, GivenAhead, GivenApart, InPlace, Showing
from vdm.conditioning.likeness import Likeness
from vdm.conditioning.picture import FirstFrame, Picture, PictureTokens, SeenFrame
from vdm.conditioning.sparse import SparseFrames
from vdm.pipelines.ways import Ahead, Alike, Apart, Asked, Drawn, InClip, InSight, Moved, Steering
from vdm.pipelines.ways import way_of as find
from vdm.utils.time_grid import TimeGrid

GIVEN = torch.zeros(1, 2, 3, 4, 6)
RULES = {
    InClip: (None, Showing(), InPlace()),
    Apart: (GivenApart(),),
    Drawn: (DrawnInPlace(),),
    InSight: (SeenFrame(), SeenFrame(is_ahead=True)),
    Moved: (Picture(), FirstFrame(), PictureTokens()),
    Alike: (Likeness(),),
    Steering: (SparseFrames(),),
    Ahead: (GivenAhead(),),
}
PAIRS = [(way, rule) for way, rules in RULES.items() for rule in rules]


def way_of(rule, **frames):
    generator = SimpleNamespace(parts=SimpleNamespace(name="tiny", given=rule))
    fields = {"image": None, "last_image": None, "video": None, "mask": None, "motion": None}
    asked = {**fields, "raw": {}, "grid": TimeGrid(9), "size": (4, 6), **frames}
    return find(generator, Asked(**asked))


@pytest.mark.parametrize(("way", "rule"), PAIRS)
def test_every_rule_has_its_way(way, rule):
    needed = {"image": "boat.jpg"} if way is InSight else {}
    assert type(way_of(rule, **needed)) is way


@pytest.mark.parametrize(("way", "rule"), PAIRS)
def test_a_last_frame_is_refused_where_no_single_one_is_read(way, rule):
    if way in (Apart, Steering, Ahead):
        assert way.reads_last
        return
    with pytest.raises(ValueError, match="got last_image, model 'tiny' reads no single frame"):
        way_of(rule, image="boat.jpg", last_image="shore.jpg")


@pytest.mark.parametrize("rule", [*RULES[Moved], *RULES[Alike], *RULES[InSight]])
@pytest.mark.parametrize(
    "frames", [{"video": "boat.mp4"}, {"mask": [1, 0]}, {"raw": {"given": GIVEN}}]
)
def test_where_a_picture_moves_there_are_no_frames_of_the_clip(rule, frames):
    with pytest.raises(ValueError, match="got given frames, model 'tiny' moves a picture"):
        way_of(rule, image="boat.jpg", **frames)


def test_words_are_read_in_sight_of_something():
    with pytest.raises(ValueError, match="got no image, model 'tiny' needs one to move from"):
        way_of(SeenFrame())
