import pytest

from vdm.conditioning.labels import Labels
from vdm.layers.embeddings import LabelEmbedding


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
