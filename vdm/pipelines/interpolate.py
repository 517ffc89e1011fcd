"""Filling in between keyframes with a network, on latents and on clips of the user.

Keyframes are latent frames at equal distances on the time axis of the whole clip, the first one
included. What comes after the last keyframe is the network's to go on with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vdm.metrics.between import Between, flow_warp
from vdm.pipelines import inputs
from vdm.pipelines.clip import Clip, clip_from
from vdm.pipelines.generate import Generator
from vdm.pipelines.given import keeps_given, read_movie
from vdm.pipelines.request import time_grid_for
from vdm.types import Latents
from vdm.utils.rng import derive_seed
from vdm.utils.time_grid import TimeGrid
from vdm.utils.video_io import from_uint8, to_uint8

GivenMask = Float[Tensor, "b 1 t h w"]
Keyframes = Float[Tensor, "b c k h w"]


def place_keyframes(
    keyframes: Keyframes, stride: int, num_latent_frames: int
) -> tuple[Latents, GivenMask]:
    """Keyframes at their places in a longer clip, zero elsewhere, and 1 where they are.

    Args:
        keyframes: Latent frames 0, ``stride``, ``2 * stride``, ... of the clip.
        stride: Latent frames from one to the next.
        num_latent_frames: Latent frames of the clip.

    Raises:
        ValueError: If the clip has another number of keyframes.
    """
    if stride < 1:
        raise ValueError(f"got stride={stride}, expected at least 1")
    expected = -(-num_latent_frames // stride)
    b, c, count, h, w = keyframes.shape
    if count != expected:
        raise ValueError(
            f"got {count} keyframes, expected {expected}: every {stride}. of {num_latent_frames} "
            "latent frames, the first included"
        )
    given = keyframes.new_zeros(b, c, num_latent_frames, h, w)
    given[:, :, ::stride] = keyframes
    mask = keyframes.new_zeros(b, 1, num_latent_frames, h, w)
    mask[:, :, ::stride] = 1
    return given, mask


@torch.no_grad()
def interpolate(
    generator: Generator,
    keyframes: Float[Tensor, "_ c k h w"],
    stride: int,
    prompt: inputs.Prompt | None = None,
    *,
    factors: Sequence[int] | None = None,
    num_frames: int | None = None,
    fps: float | None = None,
    seed: inputs.Seed | None = None,
    known: tuple[Tensor, Tensor] | None = None,
    cond: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Latents:
    """Latents of a whole clip from those of its keyframes, which come back bit for bit.

    A model that makes given latents anew (:class:`vdm.conditioning.given.Repeated`) does so here.

    Args:
        generator: A model that was trained with given keyframes.
        keyframes: Latent frames 0, ``stride``, ``2 * stride``, ... of the clip.
        stride: Latent frames from one to the next.
        prompt: As for the generator.
        factors: The stride as a product, from coarse to fine: with ``(2, 2)`` a stride of 4 is
            halved twice, by the same model at two rates. At once if None.
        num_frames: Frames of the clip; the model's default if None.
        fps: Frames per second of the clip.
        seed: One integer (sample ``k`` uses ``seed + k``) or one per sample; None draws one.
        known: Further latents of the clip that are given, and their mask.
        cond: Further fields of the conditioning, as for the generator.
        settings: Further arguments of the generator: ``steps``, ``guidance_scale``, ...

    Returns:
        Latents of the clip.

    Raises:
        ValueError: If the factors do not make the stride, or the clip has another number of
            keyframes.
    """
    factors = (stride,) if factors is None else tuple(factors)
    if math.prod(factors) != stride or min(factors, default=1) < 1:
        raise ValueError(f"got factors {factors}, expected whole numbers whose product is {stride}")
    _, sh, sw = strides = generator.geometry.strides
    grid = time_grid_for(generator.parts.defaults, strides[0], num_frames, None, fps)
    place_keyframes(keyframes, stride, grid.num_latent_frames)  # refuses another number
    batch = inputs.common_batch(
        keyframes=len(keyframes),
        prompt=inputs.length_of(prompt),
        seed=inputs.length_of(seed),
        known=None if known is None else len(known[0]),
    )
    seeds = inputs.seeds_for(seed, batch)
    latents = inputs.repeat_to(keyframes.float(), batch)
    for factor in factors:
        stride //= factor
        part = grid.every(stride)
        given, mask = place_keyframes(latents, factor, part.num_latent_frames)
        if known is not None:
            given, mask = overlay(given, mask, known, stride)
        if bool(mask.all()):
            latents = given
            continue
        made: Any = generator(
            prompt,
            cond={**(cond or {}), "given": given, "given_mask": mask},
            num_frames=part.num_frames,
            fps=part.fps,
            height=given.shape[3] * sh,
            width=given.shape[4] * sw,
            seed=[derive_seed(one, "interpolate", stride) for one in seeds],
            output="latents",
            **settings,
        )
        latents = made
    return latents


def overlay(
    given: Latents, mask: GivenMask, known: tuple[Tensor, Tensor], stride: int
) -> tuple[Latents, GivenMask]:
    """Given latents and their mask, with those of the user in their place where there are any.

    Args:
        given: Latents at every ``stride``-th frame of the clip.
        mask: 1 where given.
        known: Latents of the whole clip, and 1 where the user gave them.
        stride: Of the latents.
    """
    latents, where = (value[:, :, ::stride].to(given) for value in known)
    return torch.where(where == 1, latents, given), torch.maximum(mask, where.expand_as(mask))


@torch.no_grad()
def interpolate_clip(
    generator: Generator,
    video: str | Path | Tensor,
    factor: int,
    prompt: inputs.Prompt | None = None,
    *,
    fps: float | None = None,
    stride: int = 2,
    before: Between = flow_warp,
    seed: inputs.Seed | None = None,
    progress: bool = True,
    **settings: Any,
) -> Clip:
    """A clip at a higher rate: the frames of the user, and new ones in between.

    A latent frame of an autoencoder that compresses time holds several frames, of which the user
    has at most one. So the clip is first filled in by a rule on pixels and encoded; of its latents
    every ``stride``-th one is a keyframe and the rest is made anew. Without compression the frames
    of the user are the keyframes themselves. In the result they are as they came, unless the model
    makes given latents anew.

    Args:
        generator: A model that was trained with given keyframes.
        video: A path, or frames in [0, 1]: ``(3, t, h, w)`` or ``(b, 3, t, h, w)``.
        factor: Frames in the result for each of the user's after the first.
        prompt: As for the generator.
        fps: Rate of the user's clip; that of the file, or of the model over ``factor``.
        stride: Latent frames from one keyframe to the next, where time is compressed.
        before: How the clip is filled in before it is encoded.
        seed: One integer (sample ``k`` uses ``seed + k``) or one per sample; None draws one.
        progress: Show a progress bar.
        settings: Further arguments of the generator.

    Returns:
        The clip, with ``1 + (t - 1) * factor`` frames.

    Raises:
        ValueError: If there is nothing between the frames, or an argument is refused.
    """
    movie, rate = read_movie(video)
    if factor < 2 or movie.shape[2] < 2:
        raise ValueError(
            f"got factor={factor} and {movie.shape[2]} frames, expected at least 2 of both"
        )
    rate = fps or rate or generator.parts.defaults.fps / factor
    height, width = movie.shape[3:]
    temporal = generator.geometry.strides[0]
    grid = TimeGrid(1 + (movie.shape[2] - 1) * factor, factor * rate, temporal)
    known = np.arange(grid.num_frames) % factor == 0
    filled = _fill_in(movie, known, before)
    if temporal == 1:
        stride = factor
    asked: dict[str, Any] = {"num_frames": grid.num_frames, "fps": grid.fps, "seed": seed}
    keyframes = generator._encode(filled)[:, :, ::stride]
    latents = interpolate(
        generator, keyframes, stride, prompt, progress=progress, **asked, **settings
    )
    frames = generator._decode(latents, grid, None).float()
    if keeps_given(generator.parts.given):
        frames[:, :, ::factor] = movie.to(frames)
    note = {"model": generator.parts.name, "prompt": inputs.text_of(prompt), "factor": factor}
    return clip_from(frames, grid.fps, {**note, "height": height, "width": width})


def _fill_in(
    movie: Float[Tensor, "b 3 _ h w"], known: np.ndarray, before: Between
) -> Float[Tensor, "b 3 t h w"]:
    """A longer clip that holds the frames where they are known, filled in by a rule on pixels."""
    frames = to_uint8(movie.cpu()).numpy()
    spread = np.zeros((len(frames), len(known), *frames.shape[2:]), np.uint8)
    spread[:, known] = frames
    filled = torch.from_numpy(np.stack([before(clip, known) for clip in spread]))
    video = from_uint8(filled)
    video[:, :, torch.from_numpy(known)] = movie.cpu()
    return video
