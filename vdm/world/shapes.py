"""The outlines and textures of objects, in units of the radius, attached to the object."""

from __future__ import annotations

from functools import cache

import numpy as np

from vdm.world.exact import sincos

_STAR_INNER = 0.5
_REACH = {"circle": 1.0, "ring": 1.0, "triangle": 1.1, "star": 1.1}
_SQUARE, _CROSS, _BAR = 0.78, (1.05, 0.36), (1.1, 1.1 / 3)
_RING_HOLE = 0.55


def is_inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether points of the object's own plane belong to the shape.

    Args:
        shape: One of the seven shapes.
        u: Coordinate to the right, in radii.
        v: Coordinate downwards, in radii.
    """
    if shape == "circle":
        return u * u + v * v < 1
    if shape == "ring":
        squared = u * u + v * v
        return (squared < 1) & (squared > _RING_HOLE * _RING_HOLE)
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) < _SQUARE
    if shape == "bar":
        return (np.abs(u) < _BAR[0]) & (np.abs(v) < _BAR[1])
    if shape == "cross":
        long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
        return (long < _CROSS[0]) & (short < _CROSS[1])
    if shape == "triangle":
        reach = _REACH["triangle"]
        side = np.sqrt(3.0) / 2
        flank = side * np.abs(u) - 0.5 * v
        return (v < reach / 2) & (flank < reach / 2)
    return _is_in_star(u, v)


def _is_in_star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Mirror every point into the half of the top point on the right, whose outline is a line."""
    (sine,), (cosine,) = sincos([np.pi / 5])
    sine, cosine = u.dtype.type(sine), u.dtype.type(cosine)
    across, along = np.abs(u), -v
    for _ in range(2):
        beyond = 2 * np.maximum(across * cosine - along * sine, 0)
        across, along = np.abs(across - beyond * cosine), along + beyond * sine
    tip = _REACH["star"]
    x, y = _STAR_INNER * tip * cosine, _STAR_INNER * tip * sine
    return (tip - along) * y - (tip - x) * across > 0


def is_shaded(texture: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether points of the object's own plane have the darker colour of the texture."""
    if texture == "striped":
        return _is_even(2.5 * v + 0.25)
    if texture == "checkered":
        return _is_even(2 * u) == _is_even(2 * v)
    if texture == "dotted":
        du, dv = 1.5 * u, 1.5 * v
        du, dv = du - np.floor(du) - 0.5, dv - np.floor(dv) - 0.5
        return du * du + dv * dv < 0.09
    return np.zeros(np.broadcast(u, v).shape, dtype=bool)


def _is_even(position: np.ndarray) -> np.ndarray:
    return np.floor(position).astype(np.int32) & 1 == 0


@cache
def outline(shape: str) -> np.ndarray:
    """Points ``(n, 2)`` whose convex hull holds the shape, in radii."""
    if shape in ("circle", "ring"):
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return np.stack(sincos(angles)[::-1], axis=1) / sincos(np.pi / 48)[1]
    if shape in ("triangle", "star"):
        count = 3 if shape == "triangle" else 5
        angles = -np.pi / 2 + 2 * np.pi * np.arange(count) / count
        return _REACH[shape] * np.stack(sincos(angles)[::-1], axis=1)
    corners = {"square": [(_SQUARE, _SQUARE)], "bar": [_BAR], "cross": [_CROSS, _CROSS[::-1]]}
    signs = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)], dtype=float)
    return np.concatenate([signs * np.array(corner) for corner in corners[shape]])


@cache
def reach(shape: str) -> float:
    """The largest distance of the shape from its centre, in radii."""
    return float(np.sqrt((outline(shape) ** 2).sum(axis=1)).max())
