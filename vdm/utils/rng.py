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
