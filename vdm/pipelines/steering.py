"""Given frames that steer, or stand beside the noise: what a network is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vdm.conditioning.given import GivenApart, InPlace
from vdm.conditioning.picture import FramesOnGrey
from vdm.pipelines.given import given_clip, given_latents
from vdm.pipelines.inputs import repeat_to
from vdm.pipelines.pictures import native
from vdm.utils.time_grid import TimeGrid

if TYPE_CHECKING:
    from vdm.pipelines.generate import Generator


def steering_fields(
    generator: Generator,
    images: tuple[Any, Any],
    video: Any,
    mask: Any,
    grid: TimeGrid,
    size: tuple[int, int],
    raw: dict[str, Tensor],
) -> dict[str, Tensor]:
    """The given frames as the network sees them; nothing, if none are given and none are needed.

    Args:
        generator: A model whose ``given`` is :class:`vdm.conditioning.sparse.SparseFrames` or
            :class:`vdm.conditioning.picture.FramesOnGrey`.
        images: The first frame and the last.
        video: Given frames.
        mask: Which frames they are.
        grid: The clip's time axis.
        size: Height and width of the clip in pixels.
        raw: What the user says of single fields, which goes first.

    Raises:
        ValueError: If they contradict each other or the clip's length, or are fewer than needed.
    """
    image, last_image = images
    found = given_clip(image, video, mask, grid, *size, last_image)
    if isinstance(generator.parts.given, FramesOnGrey):
        return _on_grey(generator, images, found, raw)
    if found is None:
        return {}
    movie, pixels = found
    if generator.parts.given.sees == "pixels":
        return {"given": (movie + 1) / 2 * pixels, "given_mask": pixels}
    where = given_latents(pixels, generator.geometry.strides)
    latents = generator._encode(movie)
    return {"given": latents * where.to(latents), "given_mask": where}


def _on_grey(
    generator: Generator,
    images: tuple[Any, Any],
    found: tuple[Tensor, Tensor] | None,
    raw: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Latents of a grey clip with the given frames, their masks, and the frames as tokens."""
    fields = ("given", "given_mask", "image")
    own = {name: raw.pop(name) for name in fields if name in raw}
    told: dict[str, Tensor] = {}
    if found is not None:
        movie, pixels = found
        masks = frame_masks(pixels, generator.geometry.strides)
        told = {"given": generator._encode(movie * pixels), "given_mask": masks}
    elif not {"given", "given_mask"} <= set(own):
        raise ValueError(f"got no image, model {generator.parts.name!r} needs one to move from")
    if generator.image_encoder is not None and "image" not in own:
        told["image"] = _tokens(generator, images, found)
    return told | own


def frame_masks(
    pixels: Float[Tensor, "b 1 frames height width"], strides: tuple[int, int, int]
) -> Float[Tensor, "b stride t h w"]:
    """For every latent frame one mask for each frame of pixels that it stands for, 1 where given.

    The first latent frame stands for one frame alone, which counts as often as those of others; so
    does the last where frames are missing behind it.

    Args:
        pixels: 1 where given.
        strides: Of the autoencoder.
    """
    st, sh, sw = strides
    cells = -F.max_pool3d(-pixels, (1, sh, sw))
    missing = TimeGrid(cells.shape[2], stride=st).padded_frames - cells.shape[2]
    parts = [cells[:, :, :1]] * (st - 1) + [cells] + [cells[:, :, -1:]] * missing
    return rearrange(torch.cat(parts, dim=2), "b 1 (t stride) h w -> b stride t h w", stride=st)


def _tokens(
    generator: Generator, images: tuple[Any, Any], found: tuple[Tensor, Tensor] | None
) -> Float[Tensor, "b n d"]:
    """States of the given frames, one picture after the other."""
    pictures = [native(image) for image in images if image is not None]
    if not pictures and found is not None:
        movie, pixels = found
        whole = pixels.amin((0, 1, 3, 4)).nonzero()[:, 0].tolist()
        pictures = [movie[:, :, frame] for frame in whole]
    expected = generator.parts.given.num_told
    if len(pictures) != expected:
        raise ValueError(
            f"got {len(pictures)} given frames, model {generator.parts.name!r} is told "
            f"{expected}: {'the first' if expected == 1 else 'the first and the last'}"
        )
    with generator._working("image_encoder"):
        encode = generator.image_encoder.encode_image
        states = [encode(picture.to(generator.device)) for picture in pictures]
    batch = max(len(state) for state in states)
    return torch.cat([repeat_to(state, batch) for state in states], dim=1)


def given_in_clip(
    generator: Generator,
    images: tuple[Any, Any],
    video: Any,
    mask: Any,
    grid: TimeGrid,
    size: tuple[int, int],
) -> tuple[Float[Tensor, "b c t h w"], Float[Tensor, "b 1 t h w"]] | None:
    """Latents of given frames in their places, and 1 where they are; None if nothing is given.

    Args:
        generator: A model that makes the others beside them.
        images: The first frame and the last.
        video: Given frames.
        mask: Which frames or regions of the clip they are.
        grid: The clip's time axis.
        size: Height and width of the clip in pixels.

    Raises:
        ValueError: If they contradict each other or the clip's length, or fill no latent or all.
    """
    image, last_image = images
    found = given_clip(image, video, mask, grid, *size, last_image)
    if found is None:
        return None
    movie, pixels = found
    if isinstance(generator.parts.given, GivenApart):
        return _apart(generator, movie, pixels, grid)
    where = given_latents(pixels, generator.geometry.strides, grid.piece)
    if not where.any():
        raise ValueError("got given pixels that fill no whole latent, expected at least one")
    if where.all():
        raise ValueError(
            f"got all {grid.num_frames} frames given, expected some left: raise num_frames"
        )
    if not isinstance(generator.parts.given, InPlace):
        return generator._encode(movie), where
    # Nothing is shown of what comes behind, and causal autoencoders do not look there.
    last = int(where.amax((0, 1, 3, 4)).nonzero().max())
    latents = generator._encode(movie[:, :, : sum(grid.groups[: last + 1])])
    return F.pad(latents, (0, 0, 0, 0, 0, where.shape[2] - last - 1)), where


def _apart(
    generator: Generator, movie: Tensor, pixels: Tensor, grid: TimeGrid
) -> tuple[Tensor, Tensor]:
    """The same of frames at both ends, each end a clip of its own."""
    head, tail = _ends(pixels, grid.stride)
    shape = generator._latent_shape(grid, movie.shape[3], movie.shape[4])
    count, latents = shape[1], movie.new_zeros(len(movie), *shape)
    where = torch.zeros_like(latents[:, :1])
    first, last = (-(-size // grid.stride) for size in (head, tail))
    if first + last >= count:
        raise ValueError(
            f"got {head + tail} frames of {grid.num_frames} given, expected some left: raise "
            "num_frames"
        )
    for size, frames, place in (
        (head, movie[:, :, :head], slice(first)),
        (tail, movie[:, :, movie.shape[2] - tail :], slice(count - last, count)),
    ):
        if size:
            latents[:, :, place] = generator._encode(frames).to(latents)
            where[:, :, place] = 1
    return latents, where


def _ends(pixels: Float[Tensor, "b 1 t h w"], stride: int) -> tuple[int, int]:
    """How many frames are given at the beginning, and how many at the end.

    Raises:
        ValueError: If there are others, or an end fills no whole latents as a clip of its own.
    """
    known = pixels.amin((0, 1, 3, 4)).bool().tolist()
    if pixels.amax((0, 1, 3, 4)).bool().tolist() != known:
        raise ValueError("got a mask of regions, expected one of whole frames, alike for all clips")
    head, tail = ([*row, False].index(False) for row in (known, known[::-1]))
    tail = 0 if head == len(known) else tail
    if head + tail != sum(known):
        raise ValueError("got frames in the middle, expected them at the beginning or the end")
    for count in (head, tail):
        if count and (count - 1) % stride:
            nearest = 1 + round((count - 1) / stride) * stride
            raise ValueError(
                f"got {count} given frames side by side, expected 1 more than a multiple of "
                f"{stride}; nearest: {nearest}"
            )
    return head, tail
