"""Which sample comes next: order as a pure function of (seed, position), so runs go on exactly.

Positions count samples from the start of a run, 0, 1, 2, ... Position ``p`` lies in pass ``p // n``
over the data, and every pass visits every item once in an order of its own. Nothing is remembered:
an integer says where a run is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch.utils.data import Sampler

from vdm.utils.rng import derive_seed

_ROUNDS = 6


def permute(position: int, size: int, key: int) -> int:
    """Where a keyed permutation of ``range(size)`` sends ``position``, without tabulating it.

    A Feistel network over the next power of four is a bijection whatever its round function is; a
    result outside the range is sent through again until it falls inside ("cycle walking"), which
    keeps it a bijection of the range.

    Args:
        position: In ``range(size)``.
        size: Number of items.
        key: 64 bits that choose the permutation.

    Returns:
        An item in ``range(size)``.

    Raises:
        ValueError: If the position is outside the range.

    Source:
        Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains", section 3 (cycle walking) and
        5 (Feistel).
    """
    if not 0 <= position < size:
        raise ValueError(f"got position {position}, expected one of range({size})")
    half = ((size - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for step in range(_ROUNDS):
            left, right = right, left ^ (_mix(right ^ key, step) & mask)
        position = (left << half) | right
        if position < size:
            return position


def _mix(value: int, step: int) -> int:
    """Scatter 64 bits.

    Source:
        Stafford 2011, "Better Bit Mixing", variant 13, as used by splitmix64.
    """
    value = (value + (step + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


class ShuffledBatches(Sampler[list[int]]):
    """Endless shuffled batches that can start at any batch.

    Yields lists of sample keys ``pass * num_items + item``: datasets of this package take a key
    beyond their length as the same item in a later pass, which lets augmentation differ between
    passes. A batch may span two passes. Batch ``k`` of rank ``r`` holds the positions ``(k *
    num_ranks + r) * batch_size`` onwards, so ranks share one sequence.

    Args:
        num_items: Items in the data.
        batch_size: Samples per batch and rank.
        seed: Chooses the order.
        start: Called when iteration begins, returns the number of batches already used.
        rank: Of this process.
        num_ranks: Processes that train together.

    Raises:
        ValueError: If a count is not positive or the rank does not exist.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        seed: int = 0,
        start: Callable[[], int] | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        if num_items < 1 or batch_size < 1:
            raise ValueError(
                f"got {num_items} items and batch_size={batch_size}, expected at least 1 of both"
            )
        if not 0 <= rank < num_ranks:
            raise ValueError(f"got rank {rank}, expected one of range({num_ranks})")
        self.num_items = num_items
        self.batch_size = batch_size
        self.seed = seed
        self.start = start or (lambda: 0)
        self.rank = rank
        self.num_ranks = num_ranks

    def key(self, position: int) -> int:
        """The sample key at a position of the endless sequence."""
        epoch, offset = divmod(position, self.num_items)
        item = permute(offset, self.num_items, derive_seed(self.seed, "order", epoch))
        return epoch * self.num_items + item

    def batch(self, number: int) -> list[int]:
        """Sample keys of batch ``number``."""
        first = (number * self.num_ranks + self.rank) * self.batch_size
        return [self.key(position) for position in range(first, first + self.batch_size)]

    def __iter__(self) -> Iterator[list[int]]:
        number = self.start()
        while True:
            yield self.batch(number)
            number += 1
