"""Blocks that attend within frames, then over time."""

import pytest
import torch

from vdm.layers.factorization import SpatialThenTemporal
from vdm.layers.position_rules import SpaceAndTime
from vdm.models.dit_blocks import BlockOptions, init_weights
from vdm.models.two_way_block import TwoWayBlock

OPTIONS = BlockOptions(qk_norm=None, positions=SpaceAndTime())
TOKENS = torch.randn(2, 5, 3, 4, 24, generator=torch.Generator().manual_seed(0))
LEVEL = torch.randn(2, 1, 6 * 24, generator=torch.Generator().manual_seed(1))


def make(is_first):
    torch.manual_seed(0)
    return TwoWayBlock(24, 3, SpatialThenTemporal(), None, OPTIONS, is_first).requires_grad_(False)


def test_a_closed_block_is_the_identity():
    block = make(True)
    init_weights(block)
    torch.testing.assert_close(block(TOKENS, torch.zeros_like(LEVEL), None), TOKENS)


@pytest.mark.parametrize("is_first", [True, False])
def test_the_first_block_alone_tells_frames_apart(is_first):
    block = make(is_first)
    mixed = block(TOKENS, LEVEL, None)
    turned = block(TOKENS.flip(1), LEVEL, None).flip(1)
    assert torch.allclose(mixed, turned, atol=1e-5) != is_first


def test_a_token_hears_of_its_frame_first_and_then_of_its_place():
    block, one = make(False), torch.zeros_like(TOKENS)
    one[0, 1, 2, 3] = torch.randn(24, generator=torch.Generator().manual_seed(2))
    moved = (block(TOKENS + one, LEVEL, None) - block(TOKENS, LEVEL, None)).abs().amax(-1)[0]
    assert (moved > 1e-6).all()  # by way of its frame, every token of every frame
    step = block.factorization(TOKENS + one, block.attention) - block.factorization(
        TOKENS, block.attention
    )
    assert (step.abs().amax(-1)[0] > 1e-6).any(-1).any(-1).tolist() == [False, True] + 3 * [False]


def test_places_are_counted_in_units():
    rule, device = SpaceAndTime(0.5, 2 / 3), torch.device("cpu")
    places = rule.added((5, 3, 4), 16, device)
    frames = rule.within((5, 3, 4), 16, device)
    # By hand: the first quarter holds sines of the width, the third those of the height.
    assert places[0, 0, 1, 0] == pytest.approx(0.9092974)  # sin(1 / 0.5)
    assert places[0, 2, 0, 8] == pytest.approx(-0.7568025)  # sin(2 / 0.5)
    assert places[0, 2, 1, 1] == pytest.approx(0.1986693)  # sin(2 / 10)
    assert frames[1, 0, 0, 0] == pytest.approx(0.9974950)  # sin(1.5)
    assert frames[1, 0, 0, 8] == pytest.approx(0.0707372)  # cos(1.5)
    assert rule.added((5, 3, 4), 16, device, 1) is None
