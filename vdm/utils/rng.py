"""Where randomness comes from: generators keyed by (seed, purpose, position).

A draw depends on its key alone, so it is the same whatever the batch size, the number of workers or
ranks, and whether the run was interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def derive_seed(seed: int, *path: int | str) -> int:
    """A 63-bit seed for a purpose and position, e.g. ``derive_seed(0, "train", step, rank)``."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *path: int | str) -> torch.Generator:
    """A CPU generator for ``derive_seed(seed, *path)``."""
    return torch.Generator("cpu").manual_seed(derive_seed(seed, *path))


class SampleNoise:
    """Standard normal noise, one independent stream per sample of a batch.

    Sample ``k`` draws from its own generator, so it gets the same noise alone and in any batch.
    Draws are made on the CPU in float32 and then moved, so they are the same on every device.

    Args:
        seeds: One seed per sample.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def draw(self, shape: Sequence[int]) -> Tensor:
        """Noise of shape ``(len(seeds), *shape)``, float32 on the CPU."""
        draws = [
            torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")
            for generator in self.generators
        ]
        return torch.stack(draws)

    def __call__(self, like: Tensor) -> Tensor:
        """Noise with the shape, dtype and device of ``like`` ``(b, ...)``.

        Raises:
            ValueError: If the batch is not the number of seeds.
        """
        if len(like) != len(self.generators):
            raise ValueError(
                f"got a batch of {len(like)}, expected {len(self.generators)}: one seed per sample"
            )
        return self.draw(like.shape[1:]).to(like)


class FrameNoise:
    """Standard normal noise for some frames of a clip, one independent stream per sample and frame.

    The noise of a frame depends on the seed of its sample and on its number in the clip alone: not
    on how long the clip is, or on which frames are made together.

    Args:
        seeds: One seed per sample.
        frames: Numbers of the frames.
    """

    def __init__(self, seeds: Sequence[int], frames: Sequence[int]) -> None:
        self.streams = [
            SampleNoise([derive_seed(seed, "frame", frame) for frame in frames]) for seed in seeds
        ]

    def draw(self, shape: Sequence[int]) -> Tensor:
        """Noise ``(b, c, t, h, w)`` for frames of shape ``(c, h, w)``, float32 on the CPU."""
        return torch.stack([stream.draw(shape) for stream in self.streams]).transpose(1, 2)

    def __call__(self, like: Tensor) -> Tensor:
        """Noise with the shape, dtype and device of ``like`` ``(b, c, t, h, w)``.

        Raises:
            ValueError: If the batch or the frames are others than those of this noise.
        """
        b, c, t, h, w = like.shape
        expected = (len(self.streams), len(self.streams[0].generators))
        if (b, t) != expected:
            raise ValueError(
                f"got {b} samples of {t} frames, expected {expected[0]} of {expected[1]}"
            )
        return self.draw((c, h, w)).to(like)
