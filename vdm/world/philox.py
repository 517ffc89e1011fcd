"""Random numbers that are the same on every machine and in every version: raw Philox words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Words:
    """A stream of raw 64-bit words of Philox 4x64, keyed by a path.

    NumPy promises stability for raw bit streams, not for the methods of ``Generator``, so integers
    and floats are made here.

    Args:
        path: What the numbers are for, for instance ``("train", 0, 17)``.

    Source:
        Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3".
    """

    def __init__(self, *path: int | str) -> None:
        name = "/".join(str(part) for part in path).encode()
        key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
        self._bits = np.random.Philox(key=key)

    def raw(self, count: int) -> np.ndarray:
        """The next words, uint64."""
        return self._bits.random_raw(count)

    def below(self, count: int) -> int:
        """An integer in [0, count)."""
        return int(self._bits.random_raw()) % count

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.below(len(options))]

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A float in [low, high)."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def uniforms(self, count: int) -> np.ndarray:
        """Floats in [0, 1), float64."""
        return (self.raw(count) >> np.uint64(11)) * 2.0**-53
