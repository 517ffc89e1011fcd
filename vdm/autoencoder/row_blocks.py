"""Blocks of causal VAEs that take a frame a few rows at a time.

For norms of single places, and convolutions that see zeros before the first frame. Where nothing is
differentiated, rows go through both convolutions of a block before the next ones, so what is in
between is never there as a whole, and convolutions remember sums instead of frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F

from vdm.autoencoder.causal_blocks import NormedConv, Piece, ResBlock
from vdm.layers.conv import CausalConv3dFromZero, Frame, Volume, empty_frames
from vdm.layers.pieces import num_rows


class RowConv(NormedConv):
    """Norm of single places, SiLU, causal convolution."""

    conv: CausalConv3dFromZero

    def forward(self, x: Volume, piece: Piece, out: Volume | None = None) -> Volume:
        """Transform a piece."""
        if torch.is_grad_enabled():
            return super().forward(x, piece, out)
        out = empty_frames(x, x.shape[2], self.conv.out_channels) if out is None else out
        for frame, onto in zip(x.unbind(2), out.unbind(2), strict=True):
            rows = self.rows(frame.split(num_rows(frame), dim=2), frame.shape[2], piece)
            for part, made in _at_height(onto, rows):
                part.copy_(made)
        piece.state.leave(self.conv)
        return out

    def rows(self, parts: Iterable[Frame], height: int, piece: Piece) -> Iterator[Frame]:
        """Rows of the result at the next frame, from the top: as many as can be made so far.

        Args:
            parts: Rows of the frame, from the top.
            height: How many there are in all.
            piece: What is known besides.
        """
        reach, left, start = self.conv.kernel_size[1] // 2, height, 0
        seen: Frame | None = None
        for rows in parts:
            b, c, count, w = rows.shape
            left -= count
            above, below = reach if seen is None else seen.shape[2], 0 if left else reach
            window = empty_frames(rows.new_empty(b, 0, 0, above + count + below, w), 1, c)[:, :, 0]
            top, new, bottom = window.split((above, count, below), dim=2)
            top.zero_() if seen is None else top.copy_(seen)
            F.silu(self.norm.rule(rows[:, :, None], piece)(0, out=new), inplace=True)
            bottom.zero_()
            sums = self.conv.sums(rows, height, piece.state)
            del rows, top, new, bottom  # nothing keeps rows while the next are on their way
            seen, size = window, window.shape[2] - 2 * reach
            if size > 0:
                made = self.conv.rows(window, sums, start)
                seen, start = window[:, :, size:].clone(), start + size
                del window
                yield made
                del made


class RowBlock(ResBlock):
    """Two convolutions with a shortcut; what goes in is written over where channels stay."""

    first: RowConv
    second: RowConv

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        if torch.is_grad_enabled():
            return super().forward(x, piece)
        out = x if self.shortcut is None else self.shortcut(x)
        for frame, onto in zip(x.unbind(2), out.unbind(2), strict=True):
            height = frame.shape[2]
            rows = self.first.rows(frame.split(num_rows(frame), dim=2), height, piece)
            # Behind what has been read: a convolution gives no row before it has seen the next.
            for part, made in _at_height(onto, self.second.rows(rows, height, piece)):
                part.add_(made)
        piece.state.leave(self.first.conv)
        piece.state.leave(self.second.conv)
        return out


def _at_height(frame: Frame, rows: Iterable[Frame]) -> Iterator[tuple[Frame, Frame]]:
    """Rows, and the part of a frame where they belong."""
    start = 0
    for made in rows:
        part = frame.narrow(2, start, made.shape[2])
        start += made.shape[2]
        yield part, made
        del made
