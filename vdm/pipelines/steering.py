"""Given frames that steer, or stand beside the noise: what a network is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

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
