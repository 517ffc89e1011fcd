"""How a number per sample or frame meets a batch: broadcasting, and means per sample."""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor


def expand_as(values: Shaped[Tensor, " b *frames"], like: Shaped[Tensor, "b ..."]) -> Tensor:
    """Insert singleton axes so that numbers per sample or frame broadcast over ``like``.

    Args:
        values: One number per sample ``(b,)``, or one per frame ``(b, t)``.
        like: ``(b, ...)``, or ``(b, c, t, ...)`` where there is one per frame.
    """
    frames = (1, *values.shape[1:]) if values.ndim == 2 else ()
    return values.reshape(values.shape[0], *frames, *(1,) * (like.ndim - 1 - len(frames)))


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Float[Tensor, " b"]:
    """Mean per sample over all other axes, over the entries where ``mask`` is 1.

    Args:
        values: ``(b, ...)``.
        mask: Broadcastable to ``values``; no mask means everything counts.
    """
    if mask is None:
        return values.flatten(1).mean(1)
    mask = mask.expand_as(values).to(values.dtype)
    total = mask.flatten(1).sum(1).clamp_min(1)
    return (values * mask).flatten(1).sum(1) / total


def fold_frames(x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b_t c h w"]:
    """The frames of clips as a batch of pictures; of channels-last clips a view.

    A single frame keeps the strides by which the library knows that its channels come last: with
    those of a merged axis of size 1, convolutions move them to the front and back again.
    """
    return x[:, :, 0] if x.shape[2] == 1 else x.transpose(1, 2).flatten(0, 1)


def unfold_frames(frames: Float[Tensor, "b_t c h w"], b: int) -> Float[Tensor, "b c t h w"]:
    """Clips of the pictures that :func:`fold_frames` gives, as it takes them, strides included.

    Args:
        frames: The frames of one clip after those of another.
        b: How many clips.
    """
    if len(frames) == b:
        return frames.unsqueeze(2)
    return frames.unflatten(0, (b, -1)).transpose(1, 2)
