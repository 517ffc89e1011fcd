"""What is where in a clip, cell by cell of a coarse grid: a target for networks to be taught by."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from vdm.world import attributes as a
from vdm.world.ground_truth import carry, layer_matrices, visible_layer
from vdm.world.scenes import Scene

MAPS_VERSION = 1
"""Raised when what the maps say changes."""
NUM_MAPS = len(a.SHAPES) + 2
"""Maps of :func:`state_maps`."""
SHAPE_SCALE, FLOW_SCALE = 10.0, 2.0
"""Bring maps of training clips to standard deviations of about one."""
_SAMPLES = 2  # along each side of a cell


def state_maps(
    scene: Scene, frames: Float[np.ndarray, " t"], height: int, width: int
) -> Float[np.ndarray, "maps t height width"]:
    """Which share of each cell shows which shape, and how what it shows moves.

    Args:
        scene: The scene.
        frames: Moments, in frames counted at 8 a second.
        height: Cells along y.
        width: Cells along x.

    Returns:
        One map for each of ``SHAPES``, the covered share times ``SHAPE_SCALE``, then the
        displacement along x and y until a frame later, in pixels of a 64-pixel frame times
        ``FLOW_SCALE``.
    """
    rows, columns = (
        (np.arange(size * _SAMPLES) + 0.5) * a.SIZE / (size * _SAMPLES) - 0.5
        for size in (height, width)
    )
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(1, -1, 2)
    pixels = np.repeat(grid, len(frames), axis=0)
    now, later = (layer_matrices(scene, frames + delay) for delay in (0.0, 1.0))
    layer = visible_layer(scene, now, pixels)
    samples = np.zeros((NUM_MAPS, *layer.shape), dtype=np.float32)
    for index, thing in enumerate(scene.objects, start=1):
        samples[a.SHAPES.index(thing.shape)] += SHAPE_SCALE * (layer == index)
    flow = carry(now, later, layer, pixels) - pixels
    samples[-2:] = FLOW_SCALE * np.moveaxis(flow, -1, 0)
    cells = samples.reshape(NUM_MAPS, len(frames), height, _SAMPLES, width, _SAMPLES)
    return cells.mean(axis=(3, 5))
