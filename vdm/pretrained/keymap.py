"""Where each weight of a foreign file belongs in our modules, and the way back: one list for both.

A map is a list of entries that covers every key of ours once. Nothing is guessed: a key of the file
that no entry names, and an entry that the file does not have, are errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from vdm.pretrained.loading import name_some
from vdm.pretrained.tensor_files import LateTensors, name_of, release


@dataclass(frozen=True)
class Entry:
    """One tensor of theirs, and those of ours that hold the same numbers.

    Args:
        theirs: Its key.
        ours: Our keys; with several, theirs is these one after the other along the first axis.
        num_unit_axes: How many axes of size 1 theirs has at the end that ours has not: a 1x1
            convolution is a matrix here.
        is_transposed: Whether it is a matrix with rows for columns.
        shapes: Its shape and that of ours, where the same numbers in the same order have two.
        groups: Sizes (outer, inner) of two nested groups of its rows, which are nested the other
            way round in ours; with a third, that many rows stay together.
        columns: Where the entries of its second axis are found here: ours is theirs in this order.
        is_swapped: Whether the halves of its rows change places.
        sizes: Rows of each of ours, where they have not all the same number.
    """

    theirs: str
    ours: tuple[str, ...]
    num_unit_axes: int = 0
    is_transposed: bool = False
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    groups: tuple[int, ...] | None = None
    columns: tuple[int, ...] = ()
    is_swapped: bool = False
    sizes: tuple[int, ...] = ()


class ForeignWeights(LateTensors):
    """Weights under our names, read from a foreign mapping one by one as they are asked for.

    Args:
        theirs: Tensors by their keys; may itself read them late.
        entries: Where they belong.
        ignored: Keys of theirs that hold nothing to be learned, such as tables of positions.
        where: The file they come from, for messages.

    Raises:
        ValueError: If a key is missing, or one is left over.
    """

    def __init__(
        self,
        theirs: Mapping[str, Tensor],
        entries: Iterable[Entry],
        ignored: Iterable[str] = (),
        where: str = "weights",
    ) -> None:
        self.theirs, self.where = theirs, where
        self._place = {
            key: (entry, part) for entry in entries for part, key in enumerate(entry.ours)
        }
        expected = {entry.theirs for entry, _ in self._place.values()}
        found = set(theirs)
        if missing := sorted(expected - found):
            raise ValueError(f"{where}: misses {name_some(missing)}")
        if surplus := sorted(found - expected - set(ignored)):
            raise ValueError(f"{where}: holds {name_some(surplus)}, for which there is no place")

    def __getitem__(self, key: str) -> Tensor:
        entry, part = self._place[key]
        value = self.theirs[entry.theirs]
        if entry.num_unit_axes:
            tail = value.shape[value.ndim - entry.num_unit_axes :]
            if value.ndim <= entry.num_unit_axes or any(size != 1 for size in tail):
                raise ValueError(
                    f"{self.where}: {entry.theirs} has shape {tuple(value.shape)}, expected "
                    f"{entry.num_unit_axes} axes of size 1 at the end"
                )
            value = value.flatten(value.ndim - entry.num_unit_axes - 1)
        if entry.shapes is not None:
            theirs, ours = entry.shapes
            if tuple(value.shape) != theirs:
                raise ValueError(
                    f"{self.where}: {entry.theirs} has shape {tuple(value.shape)}, "
                    f"expected {theirs}"
                )
            value = value.reshape(ours)
        if entry.groups is not None:
            value = _nest(value, entry.groups, f"{self.where}: {entry.theirs}")
        value = value.T if entry.is_transposed else value
        if entry.columns:
            if value.ndim < 2 or value.shape[1] != len(entry.columns):
                raise ValueError(
                    f"{self.where}: {entry.theirs} has shape {tuple(value.shape)}, expected "
                    f"{len(entry.columns)} in the second place"
                )
            value = value[:, list(entry.columns)]
        value = _swap(value) if entry.is_swapped else value
        if len(entry.ours) == 1:
            return value
        if entry.sizes:
            if len(value) != sum(entry.sizes):
                raise ValueError(
                    f"{self.where}: {entry.theirs} has {len(value)} rows, expected "
                    f"{sum(entry.sizes)}"
                )
            return value.split(entry.sizes)[part]
        if len(value) % len(entry.ours):
            raise ValueError(
                f"{self.where}: {entry.theirs} has {len(value)} rows, expected a multiple of "
                f"{len(entry.ours)}"
            )
        return value.chunk(len(entry.ours))[part]

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def name_of(self, key: str) -> str:
        """What the file calls the tensor that holds a weight."""
        return name_of(self.theirs, self._place[key][0].theirs)

    def release(self) -> None:
        """Let go of their files."""
        release(self.theirs)


def to_foreign(ours: Mapping[str, Tensor], entries: Sequence[Entry]) -> dict[str, Tensor]:
    """Weights under their names and in their shapes: the exact inverse.

    Args:
        ours: Tensors by our keys, each of which some entry names.
        entries: Where they belong.
    """
    found = {}
    for entry in entries:
        parts = [ours[key] for key in entry.ours]
        value = parts[0] if len(parts) == 1 else torch.cat(parts)
        value = _swap(value) if entry.is_swapped else value
        if entry.columns:
            value = value[:, torch.tensor(entry.columns, device="cpu").argsort().tolist()]
        value = value.T if entry.is_transposed else value
        value = value if entry.groups is None else _nest(value, _turned(entry.groups), entry.theirs)
        value = value if entry.shapes is None else value.reshape(entry.shapes[0])
        found[entry.theirs] = value.reshape((*value.shape, *[1] * entry.num_unit_axes))
    return found


def _turned(groups: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of nested groups, nested the other way round."""
    outer, inner, *together = groups
    return (inner, outer, *together)


def renamed(key: str, names: Iterable[tuple[str, str]]) -> str:
    """Their name of one of our keys.

    Args:
        key: The key.
        names: Patterns of how keys of ours begin, and how theirs do; the first that fits counts.

    Raises:
        ValueError: If none fits.
    """
    for ours, theirs in names:
        name, count = re.subn(f"^{ours}", theirs, key)
        if count:
            return name
    raise ValueError(f"got a network with {key}, for which the other layout has no name")


def reworded(key: str, words: Iterable[tuple[str, str]]) -> str:
    """Their name of one of our keys, in which one word after the other is another there.

    Args:
        key: The key.
        words: Patterns of ours, and what stands there instead.
    """
    for ours, theirs in words:
        key = re.sub(ours, theirs, key)
    return key


def _swap(value: Tensor) -> Tensor:
    """Rows with their halves in each other's place."""
    return torch.cat(value.chunk(2)[::-1])


def _nest(value: Tensor, groups: tuple[int, ...], name: str) -> Tensor:
    """Rows in two nested groups, nested the other way round."""
    if len(value) != prod(groups):
        raise ValueError(f"{name} has {len(value)} rows, expected {prod(groups)}")
    return value.unflatten(0, groups).transpose(0, 1).flatten(0, len(groups) - 1)
