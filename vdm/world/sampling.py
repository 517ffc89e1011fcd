"""Which scene an index stands for: splits, constraints and random access."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from vdm.world import attributes as a
from vdm.world.philox import Words
from vdm.world.scenes import Camera, Object, Plane, Scene

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
PARALLAX: Final = (0.9, 0.8, 0.8)
LONG: Final = 64
_LASTING = ("static", "circle-cw", "circle-ccw", "bounce", "spin-cw", "spin-ccw")
_TRIES = 200


def num_frames_of(split: str) -> int:
    """Frames of the clips of a split."""
    return LONG if split == "test-long" else a.NUM_FRAMES


def scene(split: str, seed: int, index: int, num_objects: int | None = None) -> Scene:
    """The scene that (split, seed, index) stands for; the same everywhere and at any time.

    Args:
        split: One of ``SPLITS``.
        seed: Which world; published numbers use 0.
        index: Position in the split.
        num_objects: Ask for this many objects (1 or 2), where the split leaves a choice.

    Raises:
        ValueError: If the split is unknown, the index is outside it, or it has no such count.
    """
    if split not in SPLITS:
        raise ValueError(f"got split {split!r}, expected one of {', '.join(SPLITS)}")
    if not 0 <= index < SPLITS[split]:
        raise ValueError(f"got index {index}, expected 0 to {SPLITS[split] - 1} in {split}")
    counts = {"test-occlusion": (2,), "test-hard": (3,)}.get(split, (1, 2))
    if num_objects is not None and num_objects not in counts:
        raise ValueError(f"got num_objects={num_objects}, expected one of {counts} in {split}")
    words = Words("moving-shapes", a.VERSION, split, seed, index, num_objects or 0)
    count = num_objects or words.choice(counts)
    moving_camera = split == "test-hard" or (split != "test-long" and words.uniform() >= 0.7)
    camera = Camera(words.choice(a.CAMERAS[1:]) if moving_camera else "static")
    plane = Plane(words.uniform(55, 110), words.uniform(25, 45), int(words.raw(1)[0]))
    depths = PARALLAX[:count] if split == "test-hard" else (1.0,) * count
    while True:
        objects = _draw_objects(words, split, count)
        objects = tuple(replace(o, depth=d) for o, d in zip(objects, depths, strict=True))
        for _ in range(_TRIES // 10):
            placed = tuple(_place(words, o, camera, split) for o in objects)
            if None in placed:
                break
            candidate = Scene(placed, camera, plane, split, seed, index)  # type: ignore[arg-type]
            if split in ("test-occlusion", "test-hard") or not _overlap(candidate):
                return candidate


def _draw_objects(words: Words, split: str, count: int) -> tuple[Object, ...]:
    """Attributes that obey the constraints of the split."""
    while True:
        objects: list[Object] = []
        while len(objects) < count:
            motions = {"test-long": _LASTING, "test-speed": tuple(a.DIRECTIONS)}.get(
                split, a.MOTIONS
            )
            motion = words.choice(motions)
            speed = None if motion == "static" else words.choice(a.SPEEDS)
            drawn = Object(
                colour=words.choice(tuple(a.COLOURS)),
                shape=words.choice(a.SHAPES),
                texture=words.choice(a.TEXTURES),
                size=words.choice(a.SIZES),
                motion=motion,
                speed=speed,
                angle=words.uniform(0, 2 * np.pi),
                pace=a.UNSEEN_LINE_SPEED[speed] if split == "test-speed" and speed else None,
            )
            is_new = all(drawn.colour != other.colour for other in objects)
            if is_new and a.is_drawable(drawn.shape, drawn.motion, drawn.size):
                objects.append(drawn)
        held_out = [a.is_held_out(o.colour, o.shape, o.motion) for o in objects]
        if any(held_out) == (split == "test-comp") or split.startswith(("test-h", "test-o")):
            return tuple(objects)


def _room(thing: Object, camera: Camera, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Bounds ``(t, 2)`` on the centre, in plane coordinates, that keep the outline in the frame."""
    frames = np.arange(num_frames_of(split), dtype=np.float64)
    probe = Scene((thing,), camera, Plane(0, 0, 0))
    scale, shift = probe.to_frame(frames, thing.depth)
    smallest, largest = thing.extent(frames)
    if split == "test-speed":  # at 3.2 pixels a frame the larger shapes cannot stay inside
        smallest, largest = 0.5 * smallest, 0.5 * largest
    low = (-0.5 - shift) / scale[:, None] - smallest
    high = (a.SIZE - 0.5 - shift) / scale[:, None] - largest
    return low, high


def _place(words: Words, thing: Object, camera: Camera, split: str) -> Object | None:
    """Choose a start such that the whole track stays in the frame; None if there is none."""
    frames = np.arange(num_frames_of(split), dtype=np.float64)
    low, high = _room(thing, camera, split)
    if thing.motion == "bounce":
        return _place_bounce(words, thing, low.max(axis=0), high.min(axis=0))
    if thing.motion.startswith("circle"):
        room = float((high.min(axis=0) - low.max(axis=0)).min()) / 2
        thing = replace(
            thing, orbit=min(a.CIRCLE_RADIUS, room), heading=words.uniform(0, 2 * np.pi)
        )
        if thing.orbit < 4:
            return None
    pose = thing.pose(frames)
    offset = np.stack([pose.x, pose.y], axis=-1)
    low, high = (low - offset).max(axis=0), (high - offset).min(axis=0)
    if (low > high).any():
        return None
    x, y = words.uniform(low[0], high[0]), words.uniform(low[1], high[1])
    return replace(thing, x=x, y=y)


def _place_bounce(words: Words, thing: Object, low: np.ndarray, high: np.ndarray) -> Object | None:
    """A start and a diagonal whose first hit falls between frames 2 and 11."""
    if (high - low < 6).any():
        return None
    pace = a.BOUNCE_SPEED[thing.speed or "slow"]
    box = (low[0], high[0], low[1], high[1])
    for _ in range(_TRIES):
        heading = np.pi / 2 * words.below(4) + np.pi / 4 + words.uniform(-0.25, 0.25)
        start = np.array([words.uniform(low[0], high[0]), words.uniform(low[1], high[1])])
        way = np.array([np.cos(heading), np.sin(heading)]) * pace
        hit = float((np.where(way > 0, high - start, low - start) / way).min())
        if 2 <= hit <= 11:
            walls = tuple(float(wall) for wall in box)
            return replace(
                thing,
                x=float(start[0]),
                y=float(start[1]),
                heading=float(heading),
                box=walls,  # type: ignore[arg-type]
            )
    return None


def _overlap(candidate: Scene) -> bool:
    """Whether the bounding circles of two objects meet in any frame."""
    frames = np.arange(num_frames_of(candidate.split), dtype=np.float64)
    circles = [candidate.centres(k, frames) for k in range(len(candidate.objects))]
    for k, (centre, radius) in enumerate(circles):
        for other_centre, other_radius in circles[:k]:
            distance = np.linalg.norm(centre - other_centre, axis=-1)
            if (distance < radius + other_radius).any():
                return True
    return False
