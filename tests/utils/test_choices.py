"""Rules and numbers of frames chosen by uniform numbers."""

import pytest
import torch

from vdm.utils.choices import check_weights, random_count, split_choice


@pytest.mark.parametrize("weights", [[1.0, 2.0, 1.0], [0.1, 0.2, 0.7], [0.0, 3.0, 1.0, 0.0]])
def test_every_sample_has_one_rule_as_often_as_it_weighs(weights):
    u = torch.linspace(0, 1 - 2.0**-24, 4001)[:, None]
    counts, total = dict.fromkeys(range(len(weights)), 0), torch.zeros(len(u), 1)
    for index, mine, left in split_choice(u, weights):
        counts[index] = int(mine.sum())
        total += mine
        assert 0 <= left.min() <= left.max() < 1
        assert left[mine].mean() == pytest.approx(0.5, abs=0.01)
    assert (total == 1).all()
    shares = [weight / sum(weights) for weight in weights]
    assert [count / 4001 for count in counts.values()] == pytest.approx(shares, abs=1e-3)


def test_counts_are_equally_likely_and_leave_one_frame():
    u = torch.linspace(0, 1 - 2.0**-24, 3000)[:, None]
    values, counts = random_count(u, 1, None, 4).unique(return_counts=True)
    assert values.tolist() == [1, 2, 3]
    assert counts.tolist() == pytest.approx([1000] * 3, abs=2)
    assert random_count(u, 2, 9, 3).unique().tolist() == [2]


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, -1.0], [0.0, 0.0]])
def test_weights_that_are_no_distribution_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        check_weights(2, weights)
