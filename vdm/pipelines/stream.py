"""Clips of any length from a causal model: frames are handed out while the rest is yet to be made.

With a window of attention time and memory per frame do not depend on how long the clip gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vdm.diffusion import samplers
from vdm.diffusion.rollout import Rollout
from vdm.layers.conv import StreamState
from vdm.pipelines import inputs
from vdm.pipelines.clip import Clip, clip_from
from vdm.pipelines.generate import Generator
from vdm.pipelines.given import given_clip, given_latents
from vdm.pipelines.progress import sampling_bar
from vdm.pipelines.request import check_scale, named, time_grid_for
from vdm.pipelines.walk import TimeGridAsked, read_walk
from vdm.types import Conditioning, Latents, Video
from vdm.utils.rng import FrameNoise
from vdm.utils.time_grid import TimeGrid

FRAME_AXIS = ("given", "given_mask", "token_times", "flow", "camera")
"""Fields of the conditioning that are about single frames, which a stream cannot know ahead."""


class Stream(Iterator[Clip]):
    """A clip in the making: every item is the clip of the next frames.

    Made by :func:`stream`.

    Args:
        generator: The model.
        rollout: Makes the latents.
        grid: The time axis of the whole clip.
        shape: Channels, height and width of a latent frame.
        chunk: Latent frames made together.
        seeds: One per sample.
        note: Where the clip comes from.
        given: The first latent frames, which need not be made.
    """

    def __init__(
        self,
        generator: Generator,
        rollout: Rollout,
        grid: TimeGrid,
        shape: tuple[int, int, int],
        chunk: int,
        seeds: Sequence[int],
        note: Mapping[str, Any],
        given: Latents | None = None,
    ) -> None:
        self.generator, self.rollout, self.grid = generator, rollout, grid
        self.shape, self.chunk, self.seeds = shape, chunk, list(seeds)
        self.note = {**note, "chunk": chunk, "context_time": rollout.context_time}
        self._given = given
        self._decoder = StreamState()
        self._made = 0
        self._last: tuple[Tensor, FrameNoise] | None = None

    def __next__(self) -> Clip:
        frames = self._next_frames()
        if not frames:
            raise StopIteration
        with torch.no_grad():
            x0 = self._latents(frames)
            first = self._pixels(frames.start)
            video = self._decode(x0)[:, :, : self.grid.num_frames - first]
        self._made = frames.stop
        return clip_from(video, self.grid.fps, {**self.note, "first_frame": first})

    @property
    def num_chunks(self) -> int:
        """Items of the whole clip."""
        given = 0 if self._given is None else self._given.shape[2]
        made = self.grid.num_latent_frames - given
        return -(-given // self.chunk) + -(-made // self.chunk)

    @property
    def cache_bytes(self) -> int:
        """Bytes that are remembered from one chunk to the next, by network and decoder."""
        return self.rollout.cache_bytes + self._decoder.num_bytes

    def _next_frames(self) -> range:
        """Numbers of the latent frames of the next chunk; a chunk is either given or made."""
        given = 0 if self._given is None else self._given.shape[2]
        end = given if self._made < given else self.grid.num_latent_frames
        return range(self._made, min(self._made + self.chunk, end))

    def _pixels(self, latent_frame: int) -> int:
        """The number of the first frame that a latent frame stands for."""
        return 0 if latent_frame == 0 else 1 + (latent_frame - 1) * self.grid.stride

    def _latents(self, frames: range) -> Latents:
        """The next latent frames; those before are remembered only now that they are needed."""
        noise = FrameNoise(self.seeds, frames)
        with self.generator._working("network"):
            if self._last is not None:
                self.rollout.remember(*self._last)
            if self._given is not None and frames.start < self._given.shape[2]:
                x0 = self._given[:, :, frames.start : frames.stop]
            else:
                x0 = self.rollout.sample(noise.draw(self.shape).to(self.generator.device), noise)
        self._last = x0, noise
        return x0

    def _decode(self, x0: Latents) -> Video:
        generator = self.generator
        if generator.autoencoder is None:
            return x0
        with generator._working("autoencoder"):
            return generator.autoencoder.decode_next(x0.to(generator.dtype), self._decoder)


@torch.no_grad()
def stream(
    generator: Generator,
    prompt: inputs.Prompt | None = None,
    *,
    negative_prompt: inputs.Prompt | None = None,
    image: Any = None,
    video: Any = None,
    cond: Conditioning | Mapping[str, Any] | None = None,
    num_frames: int | None = None,
    seconds: float | None = None,
    fps: float | None = None,
    height: int | None = None,
    width: int | None = None,
    chunk: int = 1,
    context_time: float = 0.0,
    steps: int | None = None,
    guidance_scale: float | Sequence[float] | None = None,
    sampler: str | None = None,
    time_grid: TimeGridAsked | None = None,
    seed: inputs.Seed | None = None,
) -> Stream:
    """Generate clips chunk by chunk. What is not given is the model's own default.

    The first frames are the same however long the clip is: the noise of a latent frame depends on
    the seed of its sample and on its number alone, and no frame sees later ones. Nothing is made
    before it is asked for, so a stream may be left at any time.

    A clip may be longer than those of training. A network whose ``is_endless`` says that it makes
    no difference (windows of attention, rotary positions alone over time) does so without a
    warning.

    Args:
        generator: A model with a causal network.
        prompt: Text, a list of texts, or ready-made encoder states ``(b, n, d)``.
        negative_prompt: What guidance leads away from; the empty prompt by default.
        image: The first frame: a path, a PIL image, or a tensor in [0, 1].
        video: The first frames: a path or a tensor in [0, 1]; those that fill whole latent frames
            are gone on from.
        cond: Fills or overrides single fields of the conditioning.
        num_frames: Frames per clip.
        seconds: Length of a clip, instead of ``num_frames`` or of ``fps``.
        fps: Frames per second.
        height: Pixels.
        width: Pixels.
        chunk: Latent frames made together: fewer are handed out sooner, more cost fewer calls.
        context_time: Noise time at which finished frames are remembered, see :class:`Rollout`.
        steps: Sampling steps per chunk.
        guidance_scale: 1 is no guidance; one number, as a ramp would end at an unknown frame.
        sampler: Name of a function of ``vdm.diffusion.samplers``.
        time_grid: As for a call of the generator.
        seed: One integer (sample ``k`` uses ``seed + k``) or one per sample; None draws one.

    Returns:
        An iterator over clips of a few frames each.

    Raises:
        ValueError: If the model is not causal, or an argument is outside what it can do.
    """
    _check_causal(generator)
    defaults, geometry = generator.parts.defaults, generator.geometry
    height = defaults.height if height is None else height
    width = defaults.width if width is None else width
    geometry.check_pixels(height=height, width=width)
    grid = time_grid_for(defaults, geometry.strides[0], num_frames, seconds, fps)
    geometry.check_frames(grid)
    _check_chunk(chunk, geometry.patch_size[0])
    walk = read_walk(time_grid, steps, defaults)
    scale = check_scale(defaults.guidance_scale if guidance_scale is None else guidance_scale)
    if isinstance(scale, tuple):
        raise ValueError(
            f"got guidance_scale={scale}, expected one number: a ramp needs to know the last frame"
        )
    sampler = defaults.sampler if sampler is None else sampler
    sample = named(samplers, sampler, "sampler")
    _warn_outside(generator, grid, height, width)

    raw = inputs.as_fields(cond)
    if known := [name for name in FRAME_AXIS if name in raw]:
        raise ValueError(f"got cond.{known[0]}, expected no field that is about single frames")
    given = _given(generator, image, video, grid, height, width)
    batch = inputs.common_batch(
        prompt=inputs.length_of(prompt),
        negative_prompt=inputs.length_of(negative_prompt),
        seed=inputs.length_of(seed),
        given=None if given is None else len(given),
        **{f"cond.{name}": len(value) for name, value in raw.items() if len(value) != 1},
    )
    seeds = inputs.seeds_for(seed, batch)
    told = generator._told(raw, Conditioning(), grid, seeds, (height, width))
    positive, negative = generator._conditioning(prompt, raw, told, batch), None
    if scale != 1.0:
        negative = generator._unwanted(negative_prompt, raw, told, batch)
    asked = {
        "prompt": inputs.text_of(prompt),
        "negative_prompt": inputs.text_of(negative_prompt),
        "seed": seeds,
        **walk.notes(),
        "guidance_scale": scale,
        "sampler": sampler,
        "given": "image" if image is not None else "video" if video is not None else "nothing",
    }

    def step(x: Tensor, c_noise: Tensor, cond: Conditioning, cache: Any) -> tuple[Tensor, Any]:
        pred, cache = generator.network.step(x.to(generator.dtype), c_noise, cond, cache)
        return pred.float(), cache

    channels, _, rows, columns = generator._latent_shape(grid, height, width)
    rollout = Rollout(
        step,
        generator.schedule,
        generator.target,
        generator.parts.preconditioning,
        sample,
        walk.times(generator, (grid.num_latent_frames, rows, columns)),
        positive,
        negative,
        scale,
        context_time,
    )
    return Stream(
        generator,
        rollout,
        grid,
        (channels, rows, columns),
        chunk,
        seeds,
        generator._note(grid, height, width, asked),
        None if given is None else inputs.repeat_to(given, batch),
    )


def stream_clip(
    generator: Generator,
    prompt: inputs.Prompt | None = None,
    *,
    progress: bool = True,
    **arguments: Any,
) -> Clip:
    """The whole clip of a stream.

    Args:
        generator: A model with a causal network.
        prompt: As for :func:`stream`.
        progress: Show a progress bar.
        arguments: Further arguments of :func:`stream`.
    """
    chunks = list(with_bar(stream(generator, prompt, **arguments), progress))
    lengths = [part.frames.shape[2] for part in chunks]
    clamped = [part.metadata["clamped_share"] for part in chunks]
    share = sum(n * value for n, value in zip(lengths, clamped, strict=True)) / sum(lengths)
    note = {k: v for k, v in chunks[0].metadata.items() if k != "first_frame"}
    frames = torch.cat([part.frames for part in chunks], dim=2)
    return Clip(frames, chunks[0].fps, {**note, "clamped_share": share})


def with_bar(made: Stream, shown: bool) -> Iterator[Clip]:
    """The same stream, with a bar of its chunks."""
    with sampling_bar(len(made.seeds), made.num_chunks, shown, unit="chunks") as callback:
        for number, part in enumerate(made):
            callback(number, made.num_chunks, part.frames)
            yield part


def _check_causal(generator: Generator) -> None:
    """Refuse a model of which some part sees later frames."""
    name = generator.parts.name
    if not getattr(generator.network, "is_causal", False):
        raise ValueError(
            f"got model {name!r}, whose network sees later frames, expected a causal one, "
            "e.g. with factorization [Spatial(), Temporal(is_causal=True, window=4)]"
        )
    if generator.autoencoder is not None and not hasattr(generator.autoencoder, "decode_next"):
        raise ValueError(
            f"got model {name!r}, whose autoencoder decodes whole clips alone, expected one with "
            "decode_next"
        )


def _check_chunk(chunk: int, patch: int) -> None:
    if chunk < 1 or chunk % patch:
        nearest = max(1, round(chunk / patch)) * patch
        raise ValueError(f"got chunk={chunk}, expected a multiple of {patch}; nearest: {nearest}")


def _warn_outside(generator: Generator, grid: TimeGrid, height: int, width: int) -> None:
    """Say once that the model was not trained on what is asked.

    A shorter clip is the beginning of a longer one; a longer one is no news to an endless network.
    """
    longest = generator.envelope.num_frames[1]
    endless = getattr(generator.network, "is_endless", False)
    frames = longest if endless else max(longest, grid.num_frames)
    generator._warn_outside(replace(grid, num_frames=frames), height, width)


def _given(
    generator: Generator, image: Any, video: Any, grid: TimeGrid, height: int, width: int
) -> Latents | None:
    """Latents of the frames to go on from."""
    found = given_clip(image, video, None, grid, height, width)
    if found is None:
        return None
    movie, pixels = found
    where = given_latents(pixels, generator.geometry.strides)
    count = int(where.amin(dim=(0, 1, 3, 4)).sum())
    if count == grid.num_latent_frames:
        raise ValueError(
            f"got all {grid.num_frames} frames given, expected some left: raise num_frames"
        )
    return generator._encode(movie[:, :, : 1 + (count - 1) * grid.stride])
