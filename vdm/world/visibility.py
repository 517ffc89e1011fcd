"""How much of every object can be seen: points of the shape, tested against nearer objects."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float

from vdm.world import attributes as a
from vdm.world.scenes import Scene
from vdm.world.shapes import is_inside, reach

_STEPS = 32


def visible_fraction(
    scene: Scene, frame: Float[np.ndarray, " t"]
) -> Float[np.ndarray, "t objects"]:
    """Share of each object's area that lies in the frame with no nearer object over it.

    Args:
        scene: The scene.
        frame: Frames counted at 8 a second.
    """
    frame = np.asarray(frame, dtype=np.float64)
    count = len(scene.objects)
    matrices = [scene.matrix(layer, frame) for layer in range(count)]
    circles = [scene.centres(layer, frame) for layer in range(count)]
    result = np.empty((len(frame), count))
    for layer, thing in enumerate(scene.objects):
        points = shape_points(thing.shape) * a.RADII[thing.size]
        places = np.einsum("tij,pj->tpi", matrices[layer][:, :2, :2], points)
        places += matrices[layer][:, None, :2, 2]
        seen = ((places >= -0.5) & (places <= a.SIZE - 0.5)).all(-1)
        for nearer in range(layer + 1, count):
            between = circles[layer][0] - circles[nearer][0]
            limit = circles[layer][1] + circles[nearer][1]
            near = (between * between).sum(-1) < limit * limit
            if near.any():
                u, v = to_object(scene, nearer, matrices[nearer][near], places[near])
                seen[near] &= ~is_inside(scene.objects[nearer].shape, u, v)
        result[:, layer] = seen.mean(1)
    return result


@cache
def shape_points(shape: str) -> Float[np.ndarray, "p 2"]:
    """Points spread evenly over a shape, in radii."""
    side = reach(shape)
    line = ((np.arange(_STEPS) + 0.5) / _STEPS * 2 - 1) * side
    u, v = np.meshgrid(line, line)
    inside = is_inside(shape, u, v)
    return np.stack([u[inside], v[inside]], axis=-1)


def to_object(
    scene: Scene,
    layer: int,
    matrices: Float[np.ndarray, "t 3 3"],
    places: Float[np.ndarray, "t p 2"],
) -> tuple[Float[np.ndarray, "t p"], Float[np.ndarray, "t p"]]:
    """Coordinates in radii of an object, of places given in pixels of a 64-pixel frame.

    Args:
        scene: The scene.
        layer: Which object.
        matrices: Its matrices at those times.
        places: Places, for each time.
    """
    cosine, sine = matrices[:, :1, 0], matrices[:, 1:2, 0]
    norm = (cosine * cosine + sine * sine) * a.RADII[scene.objects[layer].size]
    dx, dy = places[..., 0] - matrices[:, :1, 2], places[..., 1] - matrices[:, 1:2, 2]
    return (cosine * dx + sine * dy) / norm, (cosine * dy - sine * dx) / norm
