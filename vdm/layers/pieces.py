"""Branches computed piece by piece where no gradient needs what is in between.

A piece stays in the caches of a core, and of what is in between only one piece is in memory at a
time. What has been read for the last time is written over. With gradients, everything is computed
at once and kept, so a model calls the same functions in training and in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Branch = Callable[..., Tensor]

FRAMES: Final = 2
"""Axis of a volume along which layers of single frames are cut."""
HEIGHT: Final = 3
"""Axis of a volume along which layers that look over time alone are cut."""

PIECE = 2**18
"""Numbers of a piece of tokens on a CPU: 1 MB in float32."""
MIN_TOKENS = 512
"""Tokens of a piece at least: for every piece all the weights are read again."""
PIECE_OF_VOLUME = 2**20
"""Numbers of a piece of a volume on a CPU."""
MIN_PIXELS = 2**14
"""Pixels of a piece at least: convolutions of few take a fifth longer."""
MIN_PIXELS_OF_ROWS = 2**12
"""Pixels of the rows of a frame that convolutions read once for all frames that they go into."""
MOST_LATENTS_AT_ONCE = 2**8
"""Places of clips up to which frames are not decoded one by one: for each, weights are read again.
"""
MOST_IN_PLANS = 2
PIECE_ON_DEVICE = 2**27
"""On other devices a piece must be large enough to fill them."""


def may_overwrite() -> bool:
    """Whether nothing remembers what operations have read."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def silu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The nonlinearity of what nobody else reads, written over it where possible."""
    return F.silu(x, inplace=may_overwrite())


def plus(x: Float[Tensor, "*shape"], other: Float[Tensor, "*_"]) -> Float[Tensor, "*shape"]:
    """``x + other``, written over ``x``, which nobody else reads, where possible."""
    return x.add_(other) if may_overwrite() else x + other


def times(x: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``x * other``, likewise."""
    return x.mul_(other) if may_overwrite() else x * other


def _length(x: Tensor, axis: int, numbers: int) -> int:
    """How long a piece of so many numbers on a CPU is along an axis."""
    target = PIECE_ON_DEVICE if x.is_cuda else numbers
    if x.is_meta:  # a plan counts every operation, and a few pieces tell as much as a thousand
        target = max(target, x.numel() // MOST_IN_PLANS)
    return max(1, target * x.shape[axis] // x.numel())


def add_branch(x: Float[Tensor, "... d"], branch: Branch, axis: int) -> Float[Tensor, "... d"]:
    """``x + branch(x)``, written over ``x``, which nobody else reads, where possible.

    Args:
        x: Tokens.
        branch: From some tokens to as many.
        axis: Along which it does not look.
    """
    if not may_overwrite():
        return x + branch(x)
    numbers = max(PIECE, MIN_TOKENS * x.shape[-1])
    for piece in x.split(_length(x, axis, numbers), dim=axis):
        piece.add_(branch(piece))
    return x


def add_to_each(x: Float[Tensor, "b *grid d"], branch: Branch) -> Float[Tensor, "b *grid d"]:
    """As :func:`add_branch`, for a branch that treats every token of a sample by itself.

    Args:
        x: Tokens.
        branch: From some tokens ``b n d`` of every sample to as many.
    """
    x = x if x.is_contiguous() else x.contiguous()
    return add_branch(x.view(len(x), -1, x.shape[-1]), branch, 1).view_as(x)


def add_gated(
    x: Float[Tensor, "b n d"], gate: Float[Tensor, "b 1 d"], branch: Branch
) -> Float[Tensor, "b n d"]:
    """``x + gate * branch(x)``, written over ``x``, which nobody else reads, where possible.

    Args:
        x: Tokens.
        gate: What the branch is multiplied by.
        branch: From some tokens of every sample to as many; none of them looks at others.
    """
    if not may_overwrite():
        return torch.addcmul(x, gate, branch(x))
    x = x if x.is_contiguous() else x.contiguous()
    for piece in x.split(_length(x, 1, max(PIECE, MIN_TOKENS * x.shape[-1])), dim=1):
        piece.addcmul_(gate, branch(piece))
    return x


def _length_of_volume(x: Tensor, axis: int) -> int:
    return _length(x, axis, max(PIECE_OF_VOLUME, MIN_PIXELS * x.shape[1]))


def is_short(latents: Float[Tensor, "b c t h w"]) -> bool:
    """Whether latents are so few that their frames are decoded at once."""
    return latents[:, 0].numel() <= MOST_LATENTS_AT_ONCE


def num_frames(x: Float[Tensor, "b c t h w"]) -> int:
    """How many frames are computed at a time: with gradients, all."""
    return _length_of_volume(x, FRAMES) if may_overwrite() else x.shape[FRAMES]


def num_rows(frame: Float[Tensor, "b c h w"], pixels: int | None = None) -> int:
    """How many rows of a frame are convolved at a time: with gradients, all.

    Args:
        frame: Frames.
        pixels: Of the rows at least; ``MIN_PIXELS_OF_ROWS`` if not given.
    """
    if not may_overwrite():
        return frame.shape[HEIGHT - 1]
    return _length(frame, HEIGHT - 1, (pixels or MIN_PIXELS_OF_ROWS) * frame.shape[1])


def is_one_piece(x: Float[Tensor, "b c t h w"], axis: int) -> bool:
    """Whether a volume is computed at once."""
    return not may_overwrite() or _length_of_volume(x, axis) >= x.shape[axis]


def map_pieces(
    function: Branch, *inputs: Tensor, axis: int | None, into: Tensor | None = None
) -> Tensor:
    """A function of volumes, computed piece by piece where no gradient is needed.

    Args:
        function: From pieces to a volume that is as long along the axis.
        inputs: What it takes; volumes that are one slice long along the axis go into every piece.
        axis: Along which it does not look; None if it looks along all.
        into: What the result is written over where possible; nobody else reads it, and no piece of
            the result needs another piece of it.
    """
    x = inputs[0]
    if axis is None or is_one_piece(x, axis):
        return function(*inputs)
    length, step = x.shape[axis], _length_of_volume(x, axis)
    for start in range(0, length, step):
        size = min(step, length - start)
        piece = function(
            *(v if v.shape[axis] == 1 else v.narrow(axis, start, size) for v in inputs)
        )
        if into is None:
            shape = [*piece.shape[:axis], length, *piece.shape[axis + 1 :]]
            into = torch.empty(
                shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d
            )
        into.narrow(axis, start, size).copy_(piece)
    assert into is not None
    return into
