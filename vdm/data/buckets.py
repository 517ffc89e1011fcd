"""Batches of one shape each, out of clips of many: a clip's shape, and the order of batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch.utils.data import Sampler

from vdm.data.sampler import ShuffledBatches, permute
from vdm.utils.rng import derive_seed


@dataclass(frozen=True)
class Bucket:
    """A shape of samples.

    Args:
        num_frames: Frames.
        height: In pixels.
        width: In pixels.

    Raises:
        ValueError: If one of them is not positive.
    """

    num_frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.num_frames, self.height, self.width) < 1:
            raise ValueError(f"got bucket {self}, expected at least 1 of everything")

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.height}x{self.width}"


def choose_bucket(
    buckets: Sequence[Bucket], num_frames: int, height: int, width: int
) -> int | None:
    """The bucket in which least of a clip is lost.

    Among those for which it is long enough: the nearest aspect ratio, then one to which it need not
    be enlarged, then the one with most pixels in all.

    Args:
        buckets: To choose from.
        num_frames: Of the clip.
        height: Of the clip.
        width: Of the clip.

    Returns:
        Its number; None if the clip is too short for all.
    """

    def loss(bucket: Bucket) -> tuple[float, bool, int]:
        ratio = math.log(bucket.width * height / (bucket.height * width))
        is_enlarged = bucket.height > height or bucket.width > width
        volume = bucket.num_frames * bucket.height * bucket.width
        return round(abs(ratio), 6), is_enlarged, -volume

    fitting = [n for n, one in enumerate(buckets) if num_frames >= one.num_frames]
    return min(fitting, key=lambda n: (loss(buckets[n]), n), default=None)


class BucketedBatches(Sampler[list[int]]):
    """Endless shuffled batches, each out of one group of items; otherwise as `ShuffledBatches`.

    Groups take turns in an order of its own for every round. In a round a group has as many batches
    as come nearest to its size, at least one, so that items of all groups are seen equally often up
    to that rounding. All ranks take the same group at the same time, and no other samples.

    Args:
        groups: Numbers of the items of every group; each item is in one.
        batch_size: Samples per batch and rank.
        seed: Chooses the order.
        start: Called when iteration begins, returns the number of batches already used.
        rank: Of this process.
        num_ranks: Processes that train together.

    Raises:
        ValueError: If there is no item, a count is not positive or the rank does not exist.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        batch_size: int,
        seed: int = 0,
        start: Callable[[], int] | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.groups = [list(group) for group in groups if group]
        if not self.groups:
            raise ValueError("got no item in any group, expected at least 1")
        self.num_items = sum(map(len, self.groups))
        self.seed, self.start = seed, start or (lambda: 0)
        self.streams = [
            ShuffledBatches(
                len(group),
                batch_size,
                derive_seed(seed, "bucket", number),
                rank=rank,
                num_ranks=num_ranks,
            )
            for number, group in enumerate(self.groups)
        ]
        together = batch_size * num_ranks
        self.counts = [max(1, round(len(group) / together)) for group in self.groups]

    def batch(self, number: int) -> list[int]:
        """Sample keys of batch ``number``."""
        turn, place = divmod(number, sum(self.counts))
        place = permute(place, sum(self.counts), derive_seed(self.seed, "buckets", turn))
        ends = list(accumulate(self.counts))
        chosen = next(n for n, end in enumerate(ends) if place < end)
        group, count = self.groups[chosen], self.counts[chosen]
        within = turn * count + place - (ends[chosen] - count)
        keys = (divmod(key, len(group)) for key in self.streams[chosen].batch(within))
        return [epoch * self.num_items + group[item] for epoch, item in keys]

    def __iter__(self) -> Iterator[list[int]]:
        number = self.start()
        while True:
            yield self.batch(number)
            number += 1


class BatchesInOrder(Sampler[list[int]]):
    """Every item once, group by group; the last batch of each possibly smaller.

    Args:
        groups: Numbers of the items of every group.
        batch_size: Samples per batch.
    """

    def __init__(self, groups: Sequence[Sequence[int]], batch_size: int) -> None:
        self.batches = [
            list(group[first : first + batch_size])
            for group in groups
            for first in range(0, len(group), batch_size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
