"""Rows at a time give what frames at a time do, in the memory of one frame."""

import pytest
import torch

from vdm.autoencoder.causal_blocks import NormedConv, Piece, ResBlock
from vdm.autoencoder.image_vae import Enlarge
from vdm.autoencoder.row_blocks import RowBlock
from vdm.autoencoder.wan_vae import WanDesign
from vdm.layers import pieces
from vdm.layers.conv import StreamState
from vdm.pipelines.plan import MemoryMeter

B, T, H, W = 2, 3, 7, 4
ROWS = (1, 2, 3, 7)


def by_frames(block):
    """The same weights, computed one whole frame after the other."""
    first, second = (NormedConv(each.norm, each.conv) for each in (block.first, block.second))
    return ResBlock(first, second, block.shortcut)


def clip(channels, height=H):
    video = torch.randn(B, channels, T, height, W)
    return video.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("channels", [(6, 6), (6, 10)])
@pytest.mark.parametrize("rows", ROWS)
@torch.no_grad()
def test_rows_give_the_same_as_frames(channels, rows, monkeypatch):
    monkeypatch.setattr(pieces, "MIN_PIXELS_OF_ROWS", rows * B * W)
    block, x = WanDesign().block(*channels, None), clip(channels[0])
    assert isinstance(block, RowBlock)
    expected = by_frames(block)(x, Piece(StreamState()))
    piece = Piece(StreamState())
    frames = [block(frame.clone(), piece) for frame in x.split([1, 2], dim=2)]
    torch.testing.assert_close(torch.cat(frames, dim=2), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_goes_in_is_written_over_where_channels_stay():
    for channels in (6, 10):
        x = clip(6)
        before, block = x.clone(), WanDesign().block(6, channels, None)
        made = block(x, Piece(StreamState()))
        assert (made.data_ptr() == x.data_ptr()) == (channels == 6)
        assert torch.equal(x, before) == (channels != 6)


@torch.no_grad()
def test_a_block_takes_little_besides_what_goes_in_and_what_it_remembers(monkeypatch):
    monkeypatch.setattr(pieces, "MIN_PIXELS_OF_ROWS", 2 * B * W)
    block, x, piece = WanDesign().block(6, 6, None), clip(6, 64)[:, :, :1], Piece(StreamState())
    with MemoryMeter([*block.parameters(), x]) as meter:
        block(x, piece)
    assert piece.state.num_bytes == 4 * x[:, :, 0].nbytes
    assert meter.peak - piece.state.num_bytes < 0.4 * x[:, :, 0].nbytes


@pytest.mark.parametrize("rows", ROWS)
@torch.no_grad()
def test_frames_enlarged_by_rows_are_the_same(rows, monkeypatch):
    enlarge, x = Enlarge(6, 5), clip(6)
    expected = enlarge(x)
    repeated = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    torch.testing.assert_close(enlarge.conv(repeated), expected, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(pieces, "MIN_PIXELS_OF_ROWS", rows * B * T * W)
    torch.testing.assert_close(enlarge(x), expected, atol=1e-5, rtol=1e-5)
