"""One clip as parameters: which objects, where, how they and the camera move, as closed forms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vdm.world import attributes as a
from vdm.world.exact import exp, sincos
from vdm.world.shapes import outline, reach

CENTRE = (a.SIZE - 1) / 2
NEAREST = 0.1
"""Distance from the camera below which nothing is drawn."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above the plane that pans or zooms at constant speed."""

    motion: str = "static"

    def position(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position (x, y) in pixels of the plane and depth z, at frames counted at 8 a second."""
        still = np.zeros_like(frame)
        if self.motion == "static":
            return still, still, still
        kind, way = self.motion.split("-")
        if kind == "zoom":
            return still, still, a.ZOOM_SPEED * frame * (1 if way == "in" else -1)
        dx, dy = a.DIRECTIONS[way]
        return a.PAN_SPEED * dx * frame, a.PAN_SPEED * dy * frame, still


@dataclass(frozen=True)
class Pose:
    """Centre in pixels of the plane from the middle of the frame, angle in radians, radius."""

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    radius: np.ndarray


@dataclass(frozen=True)
class Object:
    """A coloured shape on a plane parallel to the frame, with its motion.

    ``x``, ``y`` is where it starts (for circles: the middle of the orbit), in pixels from the
    middle of the frame; ``heading`` is the direction of a bounce or the phase of an orbit; ``box``
    holds the walls that its centre bounces between (left, right, top, bottom).
    """

    colour: str
    shape: str
    texture: str
    size: str
    motion: str
    speed: str | None
    angle: float
    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0
    orbit: float = 0.0
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    depth: float = 1.0
    pace: float | None = None
    """Pixels per frame of a straight motion, where it is not that of ``speed``."""

    def pose(self, frame: np.ndarray) -> Pose:
        """Where the object is at frames counted at 8 a second; any real number is a frame."""
        frame = np.asarray(frame, dtype=np.float64)
        still = np.zeros_like(frame)
        x, y, angle = self.x + still, self.y + still, self.angle + still
        radius = a.RADII[self.size] + still
        share = frame / a.NUM_FRAMES
        speed = self.speed or "slow"
        if self.motion in a.DIRECTIONS:
            dx, dy = a.DIRECTIONS[self.motion]
            pace = self.pace if self.pace is not None else a.LINE_SPEED[speed]
            x, y = x + dx * pace * frame, y + dy * pace * frame
        elif self.motion.startswith("circle"):
            turn = 2 * np.pi * a.CIRCLE_TURNS[speed] * share * self._sense
            sine, cosine = sincos(self.heading + turn)
            x, y = x + self.orbit * cosine, y + self.orbit * sine
        elif self.motion == "bounce":
            step = a.BOUNCE_SPEED[speed] * frame
            sine, cosine = sincos(self.heading)
            x = _reflect(x + cosine * step, self.box[0], self.box[1])
            y = _reflect(y + sine * step, self.box[2], self.box[3])
        elif self.motion.startswith("spin"):
            angle = angle + a.SPIN_ANGLE[speed] * share * self._sense
        elif self.motion in ("grow", "shrink"):
            power = 1.0 if self.motion == "grow" else -1.0
            radius = radius * exp(power * share * a.LOG_GROWTH[speed])
        return Pose(x, y, angle, radius)

    @property
    def _sense(self) -> int:
        """1 clockwise, -1 counterclockwise: y points down."""
        return 1 if self.motion.endswith("-cw") else -1

    def extent(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest offset ``(t, 2)`` of the outline from the centre, in pixels."""
        pose = self.pose(frame)
        sin, cos = (value[:, None] for value in sincos(pose.angle))
        u, v = outline(self.shape).T
        points = np.stack([cos * u - sin * v, sin * u + cos * v], axis=-1)
        points = points * pose.radius[:, None, None]
        return points.min(axis=1), points.max(axis=1)


@dataclass(frozen=True)
class Plane:
    """The grey background: mean and amplitude of its grey values and the key of its noise."""

    mean: float
    amplitude: float
    key: int


@dataclass(frozen=True)
class Scene:
    """A clip: objects far to near, camera, background."""

    objects: tuple[Object, ...]
    camera: Camera
    plane: Plane
    split: str = "train"
    seed: int = 0
    index: int = 0

    def to_frame(self, frame: np.ndarray, depth: float) -> tuple[np.ndarray, np.ndarray]:
        """Scale ``(t,)`` and shift ``(t, 2)`` from coordinates of a plane to pixels.

        Args:
            frame: Frames counted at 8 a second.
            depth: Depth of the plane. Its coordinates are pixels as seen at frame 0, so sizes in
                words mean the same at every depth.

        Raises:
            ValueError: If the camera has reached the plane by then.
        """
        frame = np.asarray(frame, dtype=np.float64)
        cx, cy, cz = self.camera.position(frame)
        distance = depth - cz
        if (distance < NEAREST).any():
            last = int((depth - NEAREST) / a.ZOOM_SPEED)
            raise ValueError(
                f"got frame {frame.max():g}, expected at most {last}: "
                f"the camera zooms in and has then reached depth {depth}"
            )
        scale = 1 / distance
        return depth * scale, np.stack([CENTRE - cx * scale, CENTRE - cy * scale], axis=-1)

    def matrix(self, layer: int | None, frame: np.ndarray) -> np.ndarray:
        """Matrices ``(t, 3, 3)`` from a layer's own coordinates (pixels) to pixels of the frame.

        Args:
            layer: Index of the object, or None for the background plane.
            frame: Frames counted at 8 a second.
        """
        frame = np.asarray(frame, dtype=np.float64)
        matrix = np.zeros((len(frame), 3, 3))
        matrix[:, 2, 2] = 1
        if layer is None:
            scale, shift = self.to_frame(frame, 1.0)
            matrix[:, 0, 0] = matrix[:, 1, 1] = scale
            matrix[:, :2, 2] = shift
            return matrix
        thing = self.objects[layer]
        scale, shift = self.to_frame(frame, thing.depth)
        pose = thing.pose(frame)
        size = scale * pose.radius / a.RADII[thing.size]
        sine, cosine = sincos(pose.angle)
        matrix[:, 0, 0] = matrix[:, 1, 1] = size * cosine
        matrix[:, 1, 0] = size * sine
        matrix[:, 0, 1] = -matrix[:, 1, 0]
        matrix[:, 0, 2] = shift[:, 0] + scale * pose.x
        matrix[:, 1, 2] = shift[:, 1] + scale * pose.y
        return matrix

    def centres(self, layer: int, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centre ``(t, 2)`` in pixels and bounding radius ``(t,)`` of an object."""
        thing = self.objects[layer]
        scale, shift = self.to_frame(frame, thing.depth)
        pose = thing.pose(frame)
        centre = shift + scale[:, None] * np.stack([pose.x, pose.y], axis=-1)
        return centre, scale * pose.radius * reach(thing.shape)


def _reflect(position: np.ndarray, low: float, high: float) -> np.ndarray:
    """Fold a straight path between two walls."""
    width = high - low
    if width <= 0:
        return np.clip(position, low, low)
    phase = (position - low) % (2 * width)
    return low + width - np.abs(phase - width)
