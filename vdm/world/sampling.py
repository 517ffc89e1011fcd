"""Which scene an index stands for: splits, constraints and random access."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from vdm.world import attributes as a
from vdm.world.philox import Words
from vdm.world.placement import arrange, is_clear
from vdm.world.scenes import Camera, Object, Plane, Scene
from vdm.world.visibility import visible_fraction

SPLITS: Final[dict[str, int]] = {
    "train": 2**62,
    "val": 2048,
    "test-iid": 10240,
    "test-comp": 2048,
    "test-occlusion": 1024,
    "test-hard": 1024,
    "test-speed": 1024,
    "test-long": 256,
}
"""Splits and their sizes; the indices of different splits never stand for the same scene."""
DEPTHS: Final = {1: (0.9,), 2: (0.9, 0.8), 3: (1.0, 0.9, 0.8)}
"""Depths of the objects with parallax, by their number; without it all are at depth 1."""
LONG: Final = 64
SLACK: Final = 4.0
"""Pixels by which a track of ``test-speed`` may be too long: 3.2 px in 15 steps is 48 of 64."""
_COUNTS: Final = {"test-occlusion": (2,), "test-hard": (3,)}
# What stays in the frame for 64 frames.
_LASTING = ("static", "circle-cw", "circle-ccw", "bounce", "spin-cw", "spin-ccw")
_MOTIONS: Final = {"test-long": _LASTING, "test-speed": tuple(a.DIRECTIONS)}
_CAMERA_STILL: Final = ("test-long", "test-speed")
STILL_SHARE: Final = 0.7


def num_frames_of(split: str) -> int:
    """Frames of the clips of a split."""
    return LONG if split == "test-long" else a.NUM_FRAMES


def scene(
    split: str, seed: int, index: int, num_objects: int | None = None, parallax: bool = False
) -> Scene:
    """The scene that (split, seed, index) stands for; the same everywhere and at any time.

    Args:
        split: One of ``SPLITS``.
        seed: Which world; published numbers use 0.
        index: Position in the split.
        num_objects: Ask for this many objects (1 or 2), where the split leaves a choice.
        parallax: Lift the objects above the plane; ``test-hard`` always does.

    Raises:
        ValueError: If the split is unknown, the index is outside it, or it has no such count.
    """
    if split not in SPLITS:
        raise ValueError(f"got split {split!r}, expected one of {', '.join(SPLITS)}")
    if not 0 <= index < SPLITS[split]:
        raise ValueError(f"got index {index}, expected 0 to {SPLITS[split] - 1} in {split}")
    counts = _COUNTS.get(split, (1, 2))
    if num_objects is not None and num_objects not in counts:
        raise ValueError(f"got num_objects={num_objects}, expected one of {counts} in {split}")
    variant = ("parallax",) if parallax else ()
    words = Words("moving-shapes", a.VERSION, split, seed, index, num_objects or 0, *variant)
    count = num_objects or words.choice(counts)
    may_move = split not in _CAMERA_STILL
    moves = split == "test-hard" or (may_move and words.uniform() >= STILL_SHARE)
    camera = Camera(words.choice(a.CAMERAS[1:]) if moves else "static")
    plane = draw_plane(words)
    depths = DEPTHS[count] if parallax or split == "test-hard" else (1.0,) * count
    slack = SLACK if split == "test-speed" else 0.0
    is_good = _rule(split)
    while True:
        objects = _draw_objects(words, split, depths)
        plan = Scene(objects, camera, plane, split, seed, index)
        found = arrange(words, plan, num_frames_of(split), is_good, slack)
        if found is not None:
            return found


def draw_plane(words: Words) -> Plane:
    """A background."""
    return Plane(words.uniform(55, 110), words.uniform(25, 45), int(words.raw(1)[0]))


def _draw_objects(words: Words, split: str, depths: tuple[float, ...]) -> tuple[Object, ...]:
    """Attributes that obey the constraints of the split, far to near."""
    while True:
        objects: list[Object] = []
        while len(objects) < len(depths):
            motion = words.choice(_MOTIONS.get(split, a.MOTIONS))
            speed = None if motion == "static" else words.choice(a.SPEEDS)
            drawn = Object(
                colour=words.choice(tuple(a.COLOURS)),
                shape=words.choice(a.SHAPES),
                texture=words.choice(a.TEXTURES),
                size=words.choice(a.SIZES),
                motion=motion,
                speed=speed,
                angle=words.uniform(0, 2 * np.pi),
                depth=depths[len(objects)],
                pace=a.UNSEEN_LINE_SPEED[speed] if split == "test-speed" and speed else None,
            )
            is_new = all(drawn.colour != other.colour for other in objects)
            if is_new and a.is_drawable(drawn.shape, drawn.motion, drawn.size):
                objects.append(drawn)
        held_out = any(a.is_held_out(o.colour, o.shape, o.motion) for o in objects)
        if held_out == (split == "test-comp"):
            return tuple(objects)


def _rule(split: str) -> Callable[[Scene], bool]:
    """What the objects' positions relative to each other must satisfy."""
    frames = np.arange(num_frames_of(split), dtype=np.float64)

    def is_overlapping(candidate: Scene) -> bool:
        """One object passes over the other, which still shows for most of the time."""
        if is_clear(candidate, len(frames)):
            return False
        seen = visible_fraction(candidate, frames)
        return bool(seen.min() < 0.9 and seen.mean(0).min() >= 0.5)

    def is_readable(candidate: Scene) -> bool:
        """Objects may pass over each other, never over more than half of one."""
        return bool(visible_fraction(candidate, frames).min() >= 0.5)

    if split == "test-occlusion":
        return is_overlapping
    if split == "test-hard":
        return is_readable
    return lambda candidate: is_clear(candidate, len(frames))
