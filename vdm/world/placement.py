"""Where objects start, so that whole tracks stay in the frame and keep clear of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from vdm.world import attributes as a
from vdm.world.exact import sincos
from vdm.world.philox import Words
from vdm.world.scenes import Camera, Object, Plane, Scene

MIN_ORBIT = 4.0
"""Pixels; a smaller circle could not be told from standing still."""
MIN_COURT = 6.0
"""Pixels that a bouncing object needs between the walls."""
FIRST_HIT = (2.0, 11.0)
"""Frames between which a bouncing object first meets a wall."""
TRIES = 20
"""Positions tried for one choice of attributes."""
_BOUNCES = 200


@dataclass(frozen=True)
class Room:
    """Bounds that keep the outline of an object in the frame at every frame of the clip.

    Args:
        frames: Frames counted at 8 a second.
        low: Smallest position of the centre at every frame, in coordinates of the object's plane.
        high: Largest position.
        slack: Pixels that may be missing: then the track is centred and leaves the frame a little.
    """

    frames: Float[np.ndarray, " t"]
    low: Float[np.ndarray, "t 2"]
    high: Float[np.ndarray, "t 2"]
    slack: float = 0.0


def room_of(thing: Object, camera: Camera, num_frames: int, slack: float = 0.0) -> Room:
    """The room that an object has."""
    frames = np.arange(num_frames, dtype=np.float64)
    scale, shift = Scene((thing,), camera, Plane(0, 0, 0)).to_frame(frames, thing.depth)
    smallest, largest = thing.extent(frames)
    low = (-0.5 - shift) / scale[:, None] - smallest
    high = (a.SIZE - 0.5 - shift) / scale[:, None] - largest
    return Room(frames, low, high, slack)


def place(words: Words, thing: Object, room: Room) -> Object | None:
    """Draw a start such that the whole track stays in the frame; None if there is none."""
    if thing.motion == "bounce":
        return _place_bounce(words, thing, room.low.max(axis=0), room.high.min(axis=0))
    if thing.motion.startswith("circle"):
        width = float((room.high.min(axis=0) - room.low.max(axis=0)).min())
        orbit = min(a.CIRCLE_RADIUS, width / 2)
        thing = replace(thing, orbit=orbit, heading=words.uniform(0, 2 * np.pi))
        if orbit < MIN_ORBIT:
            return None
    pose = thing.pose(room.frames)
    offset = np.stack([pose.x, pose.y], axis=-1)
    low, high = (room.low - offset).max(axis=0), (room.high - offset).min(axis=0)
    if (low - high > room.slack).any():
        return None
    low, high = np.minimum(low, (low + high) / 2), np.maximum(high, (low + high) / 2)
    x, y = words.uniform(low[0], high[0]), words.uniform(low[1], high[1])
    return replace(thing, x=float(x), y=float(y))


def _place_bounce(
    words: Words, thing: Object, low: Float[np.ndarray, " 2"], high: Float[np.ndarray, " 2"]
) -> Object | None:
    """A start and a diagonal whose first hit falls where it can be seen."""
    if (high - low < MIN_COURT).any():
        return None
    pace = a.BOUNCE_SPEED[thing.speed or "slow"]
    walls = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    for _ in range(_BOUNCES):
        heading = np.pi / 2 * words.below(4) + np.pi / 4 + words.uniform(-0.25, 0.25)
        start = (words.uniform(walls[0], walls[1]), words.uniform(walls[2], walls[3]))
        sine, cosine = sincos(heading)
        hits = [
            ((far if way > 0 else near) - at) / (float(way) * pace)
            for near, far, at, way in zip(low, high, start, (cosine, sine), strict=True)
        ]
        if FIRST_HIT[0] <= min(hits) <= FIRST_HIT[1]:
            return replace(thing, x=start[0], y=start[1], heading=heading, box=walls)
    return None


def arrange(
    words: Words,
    scene: Scene,
    num_frames: int,
    is_good: Callable[[Scene], bool],
    slack: float = 0.0,
    tries: int = TRIES,
) -> Scene | None:
    """Draw positions for all objects until they suit each other.

    Args:
        words: Random numbers.
        scene: The scene with its attributes; positions are replaced.
        num_frames: Frames during which the objects stay in the frame.
        is_good: What the objects' positions relative to each other must satisfy.
        slack: Pixels by which a track may be too long for the frame.
        tries: Positions tried.

    Returns:
        The scene, or None if an object has no room or no position was good.
    """
    rooms = [room_of(thing, scene.camera, num_frames, slack) for thing in scene.objects]
    for _ in range(tries):
        drawn = [place(words, *pair) for pair in zip(scene.objects, rooms, strict=True)]
        placed = tuple(thing for thing in drawn if thing is not None)
        if len(placed) < len(drawn):
            return None
        candidate = replace(scene, objects=placed)
        if is_good(candidate):
            return candidate
    return None


def is_clear(scene: Scene, num_frames: int) -> bool:
    """Whether the circles around the objects never meet, so that all are fully visible."""
    frames = np.arange(num_frames, dtype=np.float64)
    circles = [scene.centres(layer, frames) for layer in range(len(scene.objects))]
    for k, (centre, radius) in enumerate(circles):
        for other_centre, other_radius in circles[:k]:
            between, limit = centre - other_centre, radius + other_radius
            if ((between * between).sum(axis=-1) < limit * limit).any():
                return False
    return True
