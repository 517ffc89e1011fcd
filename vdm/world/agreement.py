"""Which parts of a caption a clip gets right, given what was read out of the clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final, Protocol, runtime_checkable

from vdm.world.captions import Caption, ObjectCaption

ATTRIBUTES: Final = ("colour", "shape", "motion", "size", "texture", "speed")
WHOLE: Final = ("colour", "shape", "motion")
"""What, with the number of objects, makes a whole caption right."""


@runtime_checkable
class Seen(Protocol):
    """What was read out of a clip: a ``Caption`` or anything with the same attributes."""

    @property
    def objects(self) -> Sequence[Any]:
        """Objects, each with (some of) ``ATTRIBUTES``; None is what could not be read."""

    @property
    def camera(self) -> str:
        """Motion of the camera."""


@dataclass(frozen=True)
class Agreement:
    """What a clip gets right.

    Args:
        count: Whether it shows as many objects.
        attributes: For each attribute that the caption mentions: whether all objects have it.
            What the caption leaves open is not judged.
        camera: Whether the camera moves so.
        whole: Whether count, colours, shapes and motions are all right.
        pairs: Each object asked for with what was seen in its place, or None.
    """

    count: bool
    attributes: dict[str, bool]
    camera: bool
    whole: bool
    pairs: tuple[tuple[ObjectCaption, Any], ...]


def agreement(asked: Caption, seen: Seen) -> Agreement:
    """Compare what was asked for with what was seen, objects in their best pairing.

    Args:
        asked: What the caption says.
        seen: What was read out of the clip. An attribute that its objects lack is not judged.
    """
    count = len(asked.objects) == len(seen.objects)
    pairs = _pair(asked.objects, seen.objects)
    attributes = {}
    for name in ATTRIBUTES:
        judged = [_is_right(thing, got, name) for thing, got in pairs]
        if any(verdict is not None for verdict in judged):
            attributes[name] = count and all(verdict is not False for verdict in judged)
    whole = count and all(attributes[name] for name in WHOLE)
    return Agreement(count, attributes, asked.camera == seen.camera, whole, pairs)


def _is_right(thing: ObjectCaption, got: Any, name: str) -> bool | None:
    """Whether an attribute is right; None where there is nothing to judge."""
    want = getattr(thing, name)
    if want is None or (got is not None and not hasattr(got, name)):
        return None
    return got is not None and getattr(got, name) == want


def _pair(
    asked: Sequence[ObjectCaption], seen: Sequence[Any]
) -> tuple[tuple[ObjectCaption, Any], ...]:
    """The pairing with the most colours, shapes and motions right, colours counting most."""

    def score(order: Sequence[Any]) -> list[int]:
        rights = [
            [bool(_is_right(thing, got, name)) for name in WHOLE]
            for thing, got in zip(asked, order, strict=True)
        ]
        return [sum(column) for column in zip(*rights, strict=True)]

    # Eight colours bound what a reader can find; the largest objects come first.
    pool = [*seen[: len(asked) + 2], *[None] * len(asked)]
    best = max(permutations(pool, len(asked)), key=score)
    return tuple(zip(asked, best, strict=True))
