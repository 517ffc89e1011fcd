"""What does a frame cost, in time and memory, when the clip gets longer?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vdm.pipelines.generate import Generator
from vdm.pipelines.stream import stream

LENGTHS = (8, 16, 32, 64)
"""Frames of the clips that are compared."""


@dataclass(frozen=True)
class Arm:
    """One way to make a clip.

    Args:
        name: What it is called.
        generator: The model.
        is_streamed: Chunk by chunk; otherwise all frames at once.
    """

    name: str
    generator: Generator
    is_streamed: bool = True


@dataclass(frozen=True)
class Cost:
    """What one clip took.

    Args:
        name: The way it was made.
        num_frames: Its length.
        seconds_per_frame: Time for the whole clip, over its frames.
        first_seconds: Time until the first frames were there.
        last_seconds: Time for the last chunk; for a clip made at once, that of the clip.
        cache_bytes: Most bytes that were remembered from one chunk to the next.
    """

    name: str
    num_frames: int
    seconds_per_frame: float
    first_seconds: float
    last_seconds: float
    cache_bytes: int


def is_causal(generator: Generator) -> bool:
    """Whether no frame of a model's clips sees a later one, so that it can stream."""
    return bool(getattr(generator.network, "is_causal", False))


def measure(arm: Arm, num_frames: int, prompt: str | None = None, **arguments: Any) -> Cost:
    """Make one clip and say what it took.

    Args:
        arm: How to make it.
        num_frames: Frames of the clip.
        prompt: What it shows; it changes nothing about the cost.
        arguments: Further ones of :func:`stream`, or of the generator if it is not streamed, e.g.
            ``steps``, ``guidance_scale``, ``seed``.
    """
    marks, cache_bytes = [time.perf_counter()], 0
    if arm.is_streamed:
        made = stream(arm.generator, prompt, num_frames=num_frames, **arguments)
        for _ in made:
            marks.append(time.perf_counter())
            cache_bytes = max(cache_bytes, made.cache_bytes)
    else:
        arm.generator(prompt, num_frames=num_frames, progress=False, **arguments)
        marks.append(time.perf_counter())
    return Cost(
        name=arm.name,
        num_frames=num_frames,
        seconds_per_frame=(marks[-1] - marks[0]) / num_frames,
        first_seconds=marks[1] - marks[0],
        last_seconds=marks[-1] - marks[-2],
        cache_bytes=cache_bytes,
    )


def compare_costs(
    arms: Sequence[Arm],
    lengths: Sequence[int] = LENGTHS,
    prompt: str | None = None,
    **arguments: Any,
) -> list[Cost]:
    """The cost of every arm at every length; each arm makes its shortest clip once before, unseen.

    Args:
        arms: For example a windowed and an unwindowed causal model, and one made at once.
        lengths: Frames per clip.
        prompt: As for :func:`measure`.
        arguments: Further ones, see :func:`measure`.
    """
    costs = []
    for arm in arms:
        measure(arm, min(lengths), prompt, **arguments)
        costs += [measure(arm, length, prompt, **arguments) for length in lengths]
    return costs
