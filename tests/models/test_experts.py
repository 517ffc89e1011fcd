"""Two networks as one: each sample is read by the one for its noise level."""

import pytest
import torch
from torch import nn

from vdm.models.experts import Experts
from vdm.types import Conditioning

B, C, T, H, W = 3, 4, 2, 5, 6


class Times(nn.Module):
    """Multiplies, and remembers which samples it was asked for."""

    def __init__(self, factor, channels=C):
        super().__init__()
        self.factor, self.asked = factor, []
        self.in_channels, self.patch_size = channels, (1, 1, 1)
        self.reads, self.needs = {"label"}, set()

    def forward(self, x, c_noise, cond):
        self.asked.append(cond.label.tolist())
        return self.factor * x


def run(levels):
    """What comes out of ones, and which samples either network was asked for."""
    both = Experts(Times(2.0), Times(3.0), 875.0)
    cond = Conditioning(label=torch.arange(B))
    out = both(torch.ones(B, C, T, H, W), torch.tensor(levels), cond)
    return out[:, 0, 0, 0, 0].tolist(), both.high.asked, both.low.asked


def test_every_sample_is_read_by_one_alone():
    assert run([874.0, 875.0, 3.0]) == ([3.0, 2.0, 3.0], [[1]], [[0, 2]])


def test_the_other_one_rests_where_all_levels_are_on_one_side():
    assert run([900.0] * B) == ([2.0] * B, [[0, 1, 2]], [])
    assert run([800.0] * B) == ([3.0] * B, [], [[0, 1, 2]])


def test_of_levels_that_vary_over_frames_the_highest_counts():
    levels = [[0.0, 900.0], [0.0, 800.0], [900.0, 0.0]]
    assert run(levels) == ([2.0, 3.0, 2.0], [[0, 2]], [[1]])


def test_networks_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="got experts with in_channels 4 and 5, expected the same"):
        Experts(Times(1.0), Times(1.0, 5), 875.0)
