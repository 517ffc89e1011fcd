"""Sampling that starts from a clip: noise is added as of a later step, and the rest is sampled.

And noise at the very end, for autoencoders that take the last of it out while they decode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.conditioning.picture import SeenFrame
from vdm.pipelines.given import load_movie
from vdm.pipelines.inputs import repeat_to
from vdm.types import Latents
from vdm.utils.rng import SampleNoise

if TYPE_CHECKING:
    from vdm.pipelines.generate import Generator


def first_step(strength: float, steps: int) -> int:
    """How many steps of a grid are left out.

    Args:
        strength: Share of the steps that are taken, rounded down.
        steps: Steps of the whole grid.

    Raises:
        ValueError: If no step is left, or the share is more than all.

    Source:
        Meng et al. 2021, "SDEdit", arXiv:2108.01073, algorithm 1, on a grid of single steps; with
        the rounding of diffusers.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"got strength={strength:g}, expected more than 0 and at most 1")
    taken = int(steps * strength)
    if not taken:
        raise ValueError(
            f"got strength={strength:g} of {steps} steps, which leaves none, expected at least "
            f"{1 / steps:.3g}"
        )
    return steps - taken


def read_start(
    video: Any, num_frames: int | None, height: int, width: int
) -> Float[Tensor, "b 3 t {height} {width}"]:
    """The clip to start from, in [-1, 1].

    Args:
        video: A path or a tensor in [0, 1].
        num_frames: Frames that are asked for, if they are.
        height: Pixels.
        width: Pixels.

    Raises:
        ValueError: If there is none, or it has another number of frames.
    """
    if video is None:
        raise ValueError("got strength without video, expected both")
    movie = load_movie(video, height, width)
    if num_frames not in (None, movie.shape[2]):
        raise ValueError(
            f"got a video of {movie.shape[2]} frames to start from and num_frames={num_frames}, "
            "expected the same"
        )
    return movie


def noisy_start(
    generator: Generator, movie: Tensor, stream: SampleNoise, eps: Tensor | None, time: float
) -> Latents:
    """Latents of a clip at the noise time of the first step that is taken.

    Args:
        generator: The model.
        movie: One clip in [-1, 1], or one per sample.
        stream: What is drawn for each sample: its latents, which the autoencoder is not sure of,
            and then the noise of each frame, as published pipelines draw them.
        eps: The noise, if the user has it.
        time: Noise time.
    """
    batch = len(stream.generators)
    movie = repeat_to(movie, batch).to(generator.device, generator.dtype)
    latents = movie
    if generator.autoencoder is not None:
        with generator._working("autoencoder"):
            one_by_one = [
                generator.autoencoder.encode(clip, sample=True, generator=own)
                for clip, own in zip(movie.split(1), stream.generators, strict=True)
            ]
        latents = torch.cat(one_by_one)
    latents = latents.float()
    if eps is None:
        frames = latents.transpose(1, 2).shape[1:]
        eps = stream.draw(frames).transpose(1, 2)
    t = torch.full((batch,), time, device=latents.device, dtype=torch.float64)
    return generator.schedule.add_noise(latents, eps.to(latents), t)


def noise_start(
    generator: Generator,
    stream: SampleNoise,
    shape: tuple[int, int, int, int],
    eps: Tensor | None,
    given: Tensor | None,
    time: float,
) -> Latents:
    """What sampling starts from, where it starts from noise: for some models not from it alone.

    Args:
        generator: The model.
        stream: What is drawn for each sample, in the published order.
        shape: Channels, frames, height and width of latents.
        eps: The noise, if the user has it.
        given: Latents of given frames, the first in its place, if there are any.
        time: Noise time of the first step.
    """
    schedule, rule = generator.schedule, generator.parts.given
    if eps is None and generator.parts.defaults.frames_first:
        c, t, h, w = shape
        eps = stream.draw((t, c, h, w)).transpose(1, 2)
    elif eps is None:
        eps = stream.draw(shape)
    x = eps.to(generator.device, torch.float32)
    if isinstance(rule, SeenFrame) and given is not None:
        still = given[:, :, :1].expand_as(x).to(x)
        x = schedule.add_noise(still, x, torch.full((len(x),), rule.start, device=x.device))
    return x * schedule.start_std(time)


def roughened(generator: Generator, latents: Latents, stream: SampleNoise) -> Latents:
    """Latents with the noise that the autoencoder is made to take out, if it is.

    Args:
        generator: The model.
        latents: In the scale that its network was trained with.
        stream: What is drawn for each sample after all else.
    """
    share = generator.parts.defaults.decode_noise
    if not share:
        return latents
    with generator._working("autoencoder"):
        scale = generator.autoencoder.scale
        raw = scale.denormalize(latents)
        return scale.normalize(torch.lerp(raw, stream(raw), share))
