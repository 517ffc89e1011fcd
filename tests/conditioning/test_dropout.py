import pytest
import torch

from vdm.conditioning.dropout import ConditionDropout

U = torch.tensor([0.05, 0.9, 0.2])


def test_captions_are_dropped_below_the_probability():
    assert ConditionDropout(0.1).prompts(["a", "b", "c"], U) == ["", "b", "c"]
    assert ConditionDropout(0.0).prompts(["a", "b", "c"], U) == ["a", "b", "c"]
    assert ConditionDropout(1.0).prompts(["a", "b", "c"], U) == ["", "", ""]


def test_labels_are_dropped_below_the_probability():
    labels = torch.tensor([4, 5, 6])
    assert ConditionDropout(0.5).labels(labels, U, null=9).tolist() == [9, 5, 9]
    assert labels.tolist() == [4, 5, 6]


def test_misuse_is_refused():
    with pytest.raises(ValueError, match=r"got probability=1\.5, expected a number in \[0, 1\]"):
        ConditionDropout(1.5)
    with pytest.raises(ValueError, match="got 3 uniform numbers, expected 2"):
        ConditionDropout().prompts(["a", "b"], U)
