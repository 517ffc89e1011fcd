"""Rules that give every token its place."""

import pytest
import torch

from vdm.layers.position_rules import (
    AddedSinCos,
    CausalSecondsRotary,
    CountedRotary,
    FittedRotary,
    SecondsRotary,
    SpaceThenTime,
    ThirdsRotary,
)
from vdm.layers.positions import forget_tables, rotary_table, sincos

GRID, CPU = (5, 3, 4), torch.device("cpu")


def test_added_positions_have_channels_for_time_width_and_height():
    table = AddedSinCos(space_scale=2.0, time_scale=4.0).added(GRID, 32, CPU)
    assert table.shape == (*GRID, 32)
    t, h, w = (torch.arange(size, dtype=torch.float64) for size in GRID)
    torch.testing.assert_close(table[:, 1, 2, :8], sincos(t / 4, 8))
    torch.testing.assert_close(table[1, 2, :, 8:20], sincos(w / 2, 12))
    torch.testing.assert_close(table[1, :, 2, 20:], sincos(h / 2, 12))


def test_places_come_ahead_of_the_first_block_and_frames_ahead_of_the_second():
    rule = SpaceThenTime(side=6, scale=2.0)
    space, time = (rule.added(GRID, 8, CPU, block) for block in (0, 1))
    w = torch.arange(4, dtype=torch.float64) * 6 / 4 / 2  # four columns cover what six did
    torch.testing.assert_close(space[0, 2, :, :4], sincos(w, 4))
    h = torch.arange(3, dtype=torch.float64) * 6 / 3 / 2
    torch.testing.assert_close(space[0, :, 1, 4:], sincos(h, 4))
    torch.testing.assert_close(time[:, 0, 0], sincos(torch.arange(5, dtype=torch.float64), 8))
    assert rule.added(GRID, 8, CPU, 2) is None
    assert rule.added((1, 3, 4), 8, CPU, 1) is None  # a picture has no time
    assert AddedSinCos().added(GRID, 16, CPU, 1) is None


def test_counted_rotations_are_those_of_whole_numbers():
    table = CountedRotary().rotary(GRID, 16, CPU)
    expected = rotary_table([torch.arange(n).double() for n in GRID], (4, 6, 6))
    assert torch.equal(table.cos, expected.cos)
    assert torch.equal(table.sin, expected.sin)


def test_rotations_may_share_a_head_in_thirds():
    table = ThirdsRotary().rotary(GRID, 20, CPU)
    expected = rotary_table([torch.arange(n).double() for n in GRID], (8, 6, 6))
    assert torch.equal(table.cos, expected.cos)


@pytest.mark.parametrize(
    ("grid", "height", "width"),
    [
        ((2, 30, 45), (0, 29), (0, 44)),  # as in training
        ((2, 15, 45), (8, 8 + 15 - 23 / 15), (0, 44)),  # wide: rows in the middle, 15 of 30
        ((2, 60, 45), (0, 29.5), (12, 12 + 22 - 34 / 45)),  # high: 22 columns of 45
    ],
)
def test_frames_are_fitted_into_the_grid_of_training(grid, height, width):
    _, h, w = FittedRotary(30, 45).coordinates(grid)
    assert (float(h[0]), float(h[-1])) == pytest.approx(height)
    assert (float(w[0]), float(w[-1])) == pytest.approx(width)
    assert len(h) == grid[1]
    assert len(w) == grid[2]


def test_tables_are_made_once_until_they_are_forgotten():
    rule = CountedRotary()
    first = rule.rotary(GRID, 16, CPU)
    assert rule.rotary(GRID, 16, CPU) is first
    forget_tables()
    assert rule.rotary(GRID, 16, CPU) is not first


def test_a_rule_does_one_thing():
    assert AddedSinCos().rotary(GRID, 16, CPU) is None
    assert CountedRotary().added(GRID, 16, CPU) is None


def test_tables_made_without_gradients_serve_training():
    forget_tables()
    with torch.inference_mode():
        added = AddedSinCos().added(GRID, 16, CPU)
        table = CountedRotary().rotary(GRID, 16, CPU)
    assert not added.is_inference()
    assert not table.cos.is_inference()


@pytest.mark.parametrize("rule", [AddedSinCos(), CountedRotary()])
def test_channels_that_cannot_be_shared_out_are_refused(rule):
    use = rule.added if isinstance(rule, AddedSinCos) else rule.rotary
    with pytest.raises(ValueError, match=r"=24, expected a multiple of 16; nearest: 32"):
        use(GRID, 24, CPU)
    with pytest.raises(ValueError, match="got dim=10, expected a multiple of 4; nearest: 8"):
        SpaceThenTime(6).added(GRID, 10, CPU)


def test_seconds_and_pixels_turn_the_channels_of_all_heads():
    rule, fps = SecondsRotary(2, strides=(4, 32, 16), extent=(20, 512, 256)), torch.tensor([8.0, 5])
    table = rule.rotary(GRID, 10, CPU, fps)
    assert table.cos.shape == (2, *GRID, 2, 5)
    angles = torch.atan2(table.sin, table.cos).flatten(-2)
    assert not angles[..., :1].any()  # 20 channels, of which three axes share 18
    t, h, w = 3, 2, 1
    for clip, rate in enumerate(fps.tolist()):
        places = torch.tensor([t * 4 / rate / 20, h * 32 / 512, w * 16 / 256])
        expected = torch.outer(torch.tensor([1.0, 100.0, 1e4]), 2 * places - 1) * torch.pi / 2
        found = angles[clip, t, h, w, 1:]
        torch.testing.assert_close(found.cos(), expected.flatten().cos(), atol=2e-3, rtol=0)
        torch.testing.assert_close(found.sin(), expected.flatten().sin(), atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match="got fps=None and head_dim=10, expected a frame rate"):
        rule.rotary(GRID, 10, CPU)


@pytest.mark.parametrize(("kind", "first"), [(SecondsRotary, 4), (CausalSecondsRotary, 1)])
def test_frames_may_stand_where_they_are_told_to(kind, first):
    rule, fps = kind(2, strides=(4, 32, 16)), torch.tensor([8.0, 5])
    counted = rule.rotary(GRID, 10, CPU, fps)
    begins = torch.tensor([[0.0, first, first + 4, first + 8, first + 12]] * 2)
    told = rule.rotary(GRID, 10, CPU, fps, begins[:, [3, 0, 1]])
    for ours, theirs in ((told.cos, counted.cos), (told.sin, counted.sin)):
        torch.testing.assert_close(ours, theirs[:, [3, 0, 1]], atol=2e-3, rtol=0)
