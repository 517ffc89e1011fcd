"""Clips that move from a picture: what the network is told of it, with and without guidance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vdm.conditioning.given import DrawnInPlace
from vdm.conditioning.picture import FirstFrame, PictureTokens
from vdm.pipelines.given import open_image, read_image
from vdm.pipelines.inputs import repeat_to
from vdm.utils.rng import SampleNoise, derive_seed
from vdm.utils.time_grid import TimeGrid

if TYPE_CHECKING:
    from vdm.pipelines.generate import Generator


def picture_fields(
    generator: Generator,
    image: Any,
    grid: TimeGrid,
    size: tuple[int, int],
    seeds: list[int],
    raw: Mapping[str, Tensor],
    stream: SampleNoise,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a network is told of a picture, and what it is told instead to be led away from.

    Args:
        generator: A model whose ``given`` is one of the rules of :mod:`vdm.conditioning.picture`.
        image: One picture, or one per sample.
        grid: The clip's time axis.
        size: Height and width of the clip in pixels.
        seeds: One per sample, of the noise on the picture.
        raw: What the user says of single fields, which goes first: of ``noise_aug``, the standard
            deviation of the noise, as well.
        stream: What is drawn for each sample before the noise that sampling starts from.

    Raises:
        ValueError: If there is no picture.
    """
    rule = generator.parts.given
    if image is None and not (isinstance(rule, PictureTokens) and "image" in raw):
        raise ValueError(f"got no image, model {generator.parts.name!r} needs one to move from")
    if isinstance(rule, PictureTokens):
        return _token_fields(generator, image, grid, raw)
    if isinstance(rule, FirstFrame):
        pixels = repeat_to(read_image(image, *size), len(seeds))
        count = generator.geometry.num_latent_frames(grid)
        told = {**_first_frame(generator, pixels, count, stream), **raw}
        return told, told
    pixels = read_image(image, *size)
    level = raw.get("noise_aug", torch.tensor([rule.noise_aug])).float()
    noise = SampleNoise([derive_seed(seed, "picture") for seed in seeds])
    noisy = pixels + level.reshape(-1, 1, 1, 1) * noise.draw(pixels.shape[1:])
    with generator._working("autoencoder"):
        clip = noisy.to(generator.device, generator.dtype)[:, :, None]
        mean, _ = generator.autoencoder.encode_moments(clip)
    with generator._working("image_encoder"):
        whole = native(image).to(generator.device, generator.dtype)
        token = generator.image_encoder.encode_image(whole)
    told = {
        "image": token,
        "given": mean.expand(-1, -1, grid.num_latent_frames, -1, -1),
        "fps": torch.tensor([grid.fps + rule.fps_offset]),
        "motion_bucket": torch.tensor([rule.motion_bucket]),
        "noise_aug": level,
        **raw,
    }
    empty = {name: torch.zeros_like(told[name]) for name in ("image", "given")}
    return told, {**told, **empty}


def _first_frame(
    generator: Generator,
    pixels: Float[Tensor, "b 3 h w"],
    num_latent_frames: int,
    stream: SampleNoise,
) -> dict[str, Tensor]:
    """Latents of a picture, and zeros behind them."""
    with generator._working("autoencoder"):
        autoencoder = generator.autoencoder
        mean, logvar = autoencoder.encode_moments(
            pixels[:, :, None].to(generator.device, generator.dtype)
        )
    raw = mean + torch.exp(0.5 * logvar) * stream.draw(mean.shape[1:]).to(mean)
    latents = autoencoder.scale.normalize_given(raw)
    return {"given": F.pad(latents, (0, 0, 0, 0, 0, num_latent_frames - latents.shape[2]))}


def drawn_frame(
    generator: Generator, image: Any, grid: TimeGrid, size: tuple[int, int], stream: SampleNoise
) -> tuple[Float[Tensor, "b c t h w"], Float[Tensor, "1 1 t h w"]]:
    """Latents of a picture as the first of a clip, zeros behind them; and 1 where they are.

    Args:
        generator: A model whose ``given`` is :class:`vdm.conditioning.given.DrawnInPlace`, which
            draws from what the autoencoder says of a picture, or
            :class:`vdm.conditioning.picture.SeenFrame`.
        image: One picture, or one per sample.
        grid: The clip's time axis.
        size: Height and width of the clip in pixels.
        stream: Where the draw comes from.
    """
    draws = isinstance(generator.parts.given, DrawnInPlace)
    pixels = repeat_to(read_image(image, *size), len(stream.generators))
    pixels = pixels.to(generator.device, generator.dtype)
    with generator._working("autoencoder"):
        drawn = [
            generator.autoencoder.encode(one, sample=draws, generator=own)
            for one, own in zip(pixels[:, :, None].split(1), stream.generators, strict=True)
        ]
    room = (0, 0, 0, 0, 0, generator.geometry.num_latent_frames(grid) - 1)
    latents = F.pad(torch.cat(drawn).float(), room)
    return latents, F.pad(torch.ones_like(latents[:1, :1, :1]), room)


def in_sight(image: Any) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "1 3 1 1"]]:
    """What is seen while a prompt is read, and while what guidance leads away from is read."""
    return native(image), -torch.ones(1, 3, 1, 1)


def _token_fields(
    generator: Generator, image: Any, grid: TimeGrid, raw: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same where a picture is told in tokens, which the user may have ready."""
    encoder = generator.image_encoder
    pictures = {"grey": torch.zeros(1, 3, encoder.tower.size, encoder.tower.size)}
    if "image" not in raw:
        pictures["image"] = native(image)
    with generator._working("image_encoder"):
        tokens = {
            name: encoder.encode_image(pixels.to(generator.device, generator.dtype))
            for name, pixels in pictures.items()
        }
    grey = tokens.pop("grey")
    rate = generator.parts.defaults.rate_told(grid.fps)
    told = {"fps": torch.tensor([rate]), **tokens, **raw}
    return told, {**told, "image": grey}


def likeness_fields(
    generator: Generator,
    image: Any,
    grid: TimeGrid,
    size: tuple[int, int],
    stream: SampleNoise,
    motion: float | None,
) -> dict[str, Tensor]:
    """What a network is told of a picture that all frames are to be like.

    Args:
        generator: A model whose ``given`` is a :class:`vdm.conditioning.likeness.Likeness`.
        image: One picture, or one per sample.
        grid: The clip's time axis.
        size: Height and width of the clip in pixels.
        stream: Where the draw from the picture's latents comes from, one for each sample.
        motion: How much and what kind of motion, from 0 to 8.

    Raises:
        ValueError: If there is no picture, or there is no such kind of motion.
    """
    if image is None:
        raise ValueError(f"got no image, model {generator.parts.name!r} needs one to move from")
    if motion is not None and motion != int(motion):
        raise ValueError(f"got motion_bucket={motion:g}, expected a whole number")
    mask = generator.parts.given.mask(grid.num_frames, None if motion is None else int(motion))
    pixels = repeat_to(read_image(image, *size), len(stream.generators))
    with generator._working("autoencoder"):
        clips = pixels.to(generator.device, generator.dtype)[:, :, None].split(1)
        latents = torch.cat(
            [
                generator.autoencoder.encode(clip, sample=True, generator=own).float()
                for clip, own in zip(clips, stream.generators, strict=True)
            ]
        )
    given = latents.expand(-1, -1, grid.num_latent_frames, -1, -1)
    where = mask.to(given)[:, None, None].expand(len(given), 1, -1, *given.shape[3:])
    return {"given": given, "given_mask": where}


def count_pictures(image: Any) -> int | None:
    """How many pictures there are; None for a single one, which serves all samples."""
    if isinstance(image, (list, tuple)):
        return len(image)
    return len(image) if isinstance(image, Tensor) and image.ndim == 4 else None


def native(image: Any) -> Tensor:
    """Pictures in [-1, 1] of their own size."""
    if isinstance(image, (list, tuple)):
        return torch.cat([native(item) for item in image])
    if isinstance(image, (str, Path)):
        image = open_image(Path(image))
    if isinstance(image, Image.Image):
        return read_image(image, image.height, image.width)
    return read_image(image, *image.shape[-2:])
