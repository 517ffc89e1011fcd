"""Who may attend to whom. A mask is true where a query (row) may attend to a key (column)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int, Num
from torch import Tensor

FrameMask = Bool[Tensor, "n m"]


def visible(
    query_frames: Int[Tensor, " n"],
    key_frames: Int[Tensor, " m"],
    is_causal: bool = False,
    window: int | None = None,
) -> FrameMask:
    """Which keys a query sees, told by the frames that both belong to.

    Args:
        query_frames: Frame of every query.
        key_frames: Frame of every key.
        is_causal: Hide later frames.
        window: See only frames less than ``window`` away: causally the last ``window`` frames, the
            query's own among them.

    Raises:
        ValueError: If the window holds no frame.
    """
    if window is not None and window < 1:
        raise ValueError(f"got window={window}, expected at least 1")
    age = query_frames[:, None] - key_frames[None, :]
    mask = age >= 0 if is_causal else torch.ones_like(age, dtype=torch.bool)
    return mask if window is None else mask & (age.abs() < window)


def causal(num_frames: int, device: torch.device | None = None) -> FrameMask:
    """One token per frame; each sees itself and earlier ones."""
    frames = torch.arange(num_frames, device=device)
    return visible(frames, frames, is_causal=True)


def block_causal(
    num_frames: int, tokens_per_frame: int, device: torch.device | None = None
) -> FrameMask:
    """Tokens in frame order; each sees its whole frame and earlier ones."""
    frames = torch.arange(num_frames, device=device).repeat_interleave(tokens_per_frame)
    return visible(frames, frames, is_causal=True)


def sliding_window(
    num_frames: int, window: int, is_causal: bool = False, device: torch.device | None = None
) -> FrameMask:
    """One token per frame; each sees frames less than ``window`` away."""
    frames = torch.arange(num_frames, device=device)
    return visible(frames, frames, is_causal, window)


def padding(valid: Num[Tensor, "b m"] | Bool[Tensor, "b m"]) -> Bool[Tensor, "b 1 1 m"]:
    """Keys that are not padding, for all heads and queries.

    Args:
        valid: Non-zero where a token is valid.
    """
    return (valid != 0)[:, None, None, :]


def combine(*masks: Bool[Tensor, "*_"] | None) -> Bool[Tensor, "*_"] | None:
    """What all of the masks allow; None allows everything."""
    result: Tensor | None = None
    for mask in masks:
        result = mask if result is None else result if mask is None else result & mask
    return result
