"""What a scene of the world is made of, and which combinations are never shown in training."""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
FPS: Final = 8.0
NUM_FRAMES: Final = 16
SIZE: Final = 64
"""Lengths below are pixels of a frame of this height and width; they scale with the frame."""

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (215, 40, 40),
    "orange": (245, 130, 25),
    "yellow": (245, 222, 45),
    "green": (45, 175, 65),
    "cyan": (45, 195, 205),
    "blue": (45, 90, 220),
    "purple": (140, 65, 200),
    "pink": (240, 105, 175),
}
SHAPES: Final = ("circle", "square", "triangle", "star", "ring", "cross", "bar")
TEXTURES: Final = ("plain", "striped", "dotted", "checkered")
TEXTURE_SHADE: Final = 0.45
RADII: Final[dict[str, float]] = {"small": 9.0, "large": 12.0}
SIZES: Final = tuple(RADII)

MOTIONS: Final = (
    "static",
    "left",
    "right",
    "up",
    "down",
    "circle-cw",
    "circle-ccw",
    "bounce",
    "spin-cw",
    "spin-ccw",
    "grow",
    "shrink",
)
SPEEDS: Final = ("slow", "fast")
DIRECTIONS: Final[dict[str, tuple[int, int]]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
"""x to the right, y down."""
LINE_SPEED: Final = {"slow": 0.8, "fast": 2.4}
"""Pixels per frame."""
BOUNCE_SPEED: Final = {"slow": 2.7, "fast": 3.6}
"""Pixels per frame along the diagonal."""
CIRCLE_TURNS: Final = {"slow": 0.85, "fast": 1.3}
"""Turns in 16 frames."""
CIRCLE_RADIUS: Final = 0.17 * SIZE
SPIN_ANGLE: Final = {"slow": 1.2, "fast": 2.4}
"""Radians in 16 frames."""
GROWTH: Final = {"slow": 1.5, "fast": 1.9}
"""Factor of the radius in 16 frames; shrinking is the inverse."""
LOG_GROWTH: Final = {"slow": 0.4054651081081644, "fast": 0.6418538861723947}
"""Logarithms of ``GROWTH``, as literals: libraries differ in their last bit."""
UNSEEN_LINE_SPEED: Final = {"slow": 1.6, "fast": 3.2}
"""Pixels per frame in the split ``test-speed``."""

CAMERAS: Final = (
    "static",
    "pan-left",
    "pan-right",
    "pan-up",
    "pan-down",
    "zoom-in",
    "zoom-out",
)
PAN_SPEED: Final = 1.0
"""Pixels per frame, at the plane."""
ZOOM_SPEED: Final = 0.016
"""Depth per frame; the plane is at depth 1."""


def is_drawable(shape: str, motion: str, size: str) -> bool:
    """Whether the motion could be seen: round shapes do not spin, growing starts small."""
    if motion.startswith("spin") and shape in ("circle", "ring"):
        return False
    return not ((motion == "grow" and size != "small") or (motion == "shrink" and size != "large"))


def is_held_out(colour: str, shape: str, motion: str) -> bool:
    """Whether the object shows a pair (shape, motion) or (colour, shape) kept out of training.

    12 of the 84 pairs of shape and motion and 7 of the 56 pairs of colour and shape are held out;
    every single value still appears in training.
    """
    s, m, c = SHAPES.index(shape), MOTIONS.index(motion), tuple(COLOURS).index(colour)
    return (s + m) % 7 == 0 or (c + s) % 8 == 0


DRAWABLE_PAIRS: Final = tuple(
    (shape, motion)
    for shape in SHAPES
    for motion in MOTIONS
    if any(is_drawable(shape, motion, size) for size in SIZES)
)
"""The 80 pairs of shape and motion that exist: their index is the label ``shape x motion``."""
