"""Given frames that steer: what a network is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from vdm.pipelines.given import given_clip, given_latents
from vdm.utils.time_grid import TimeGrid

if TYPE_CHECKING:
    from vdm.pipelines.generate import Generator


def steering_fields(
    generator: Generator,
    image: Any,
    video: Any,
    mask: Any,
    grid: TimeGrid,
    size: tuple[int, int],
) -> dict[str, Tensor]:
    """The given frames as the network sees them; nothing, if none are given.

    Args:
        generator: A model whose ``given`` is :class:`vdm.conditioning.sparse.SparseFrames`.
        image: The first frame.
        video: Given frames.
        mask: Which frames they are.
        grid: The clip's time axis.
        size: Height and width of the clip in pixels.

    Raises:
        ValueError: If they contradict each other or the clip's length.
    """
    found = given_clip(image, video, mask, grid, *size)
    if found is None:
        return {}
    movie, pixels = found
    if generator.parts.given.sees == "pixels":
        return {"given": (movie + 1) / 2 * pixels, "given_mask": pixels}
    where = given_latents(pixels, generator.geometry.strides)
    latents = generator._encode(movie)
    return {"given": latents * where.to(latents), "given_mask": where}
