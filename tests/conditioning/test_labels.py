import pytest

from vdm.conditioning.labels import CaptionLabels, Labels
from vdm.layers.embeddings import LabelEmbedding
from vdm.world import attributes as a


def test_names_have_the_numbers_of_their_places():
    labels = Labels(["left", "right", "up"])
    assert labels(["up", "left", ""]).tolist() == [2, 0, 3]
    assert labels.null == LabelEmbedding(len(labels), 4).null


def test_an_unknown_name_is_reported_with_the_nearest():
    with pytest.raises(ValueError, match="unknown label 'rihgt', did you mean 'right'"):
        Labels(["left", "right"])(["rihgt"])


@pytest.mark.parametrize(
    ("names", "problem"), [([], "got no names"), (["a", "b", "a"], "got the name 'a' twice")]
)
def test_names_that_cannot_serve_are_refused(names, problem):
    with pytest.raises(ValueError, match=problem):
        Labels(names)


CAPTION = "a small red star moves left and a blue bar grows, the camera pans up"


@pytest.mark.parametrize(
    ("kind", "name", "count"),
    [("motion", "left", 12), ("shape", "star", 7), ("shape_motion", "star left", 80)],
)
def test_a_caption_has_the_class_of_its_first_object(kind, name, count):
    encoder = CaptionLabels(kind)
    assert encoder.null == count
    states = encoder.encode([CAPTION, "", name])
    first, nothing, named = states.label.tolist()
    assert first == named == encoder.labels.names.index(name)
    assert nothing == count


def test_labels_are_the_numbers_that_the_world_says():
    assert CaptionLabels("shape_motion")(["bar up"]).label.item() == a.DRAWABLE_PAIRS.index(
        ("bar", "up")
    )
    with pytest.raises(ValueError, match="unknown label 'lefft', did you mean 'left'"):
        CaptionLabels()(["lefft"])
    with pytest.raises(ValueError, match="got the end as word 4"):
        CaptionLabels()(["a red star"])
