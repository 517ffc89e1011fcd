"""How old code resized frames, on another grid than today's, for the numbers that it gave."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def resize_as_tf1(x: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n c {side} {side}"]:
    """Bilinearly, on the grid of TensorFlow 1: position ``k`` is ``k * size / side``.

    The corners of the first pixels fall on each other there, not the outlines of both pictures.
    """
    for axis in (-2, -1):
        size = x.shape[axis]
        place = torch.arange(side, device=x.device) * (size / side)
        low = place.long()
        high = (low + 1).clamp(max=size - 1)
        share = (place - low).reshape(-1, 1) if axis == -2 else place - low
        x = torch.lerp(x.index_select(axis, low), x.index_select(axis, high), share.to(x))
    return x
