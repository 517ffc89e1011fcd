"""A scene as pixels: a grey textured plane, and shapes drawn by coverage over it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vdm.world import attributes as a
from vdm.world.philox import Words
from vdm.world.sampling import num_frames_of
from vdm.world.scenes import Plane, Scene
from vdm.world.shapes import is_inside, is_shaded

_PERIOD = 64
_CELLS = (24.0, 12.0, 6.0, 3.0)
_SAMPLES = 4
_STEPS = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5


def render(
    scene: Scene, size: int = a.SIZE, num_frames: int | None = None, fps: float = a.FPS
) -> NDArray[np.uint8]:
    """Draw the clip.

    Args:
        scene: What to draw.
        size: Height and width in pixels.
        num_frames: Frames; by default 16 (64 in the split of long clips).
        fps: Frames per second; motion is the same at any rate.

    Returns:
        ``(t, h, w, 3)`` RGB.

    Raises:
        ValueError: If the size, count or rate is not positive.
    """
    num_frames = num_frames_of(scene.split) if num_frames is None else num_frames
    if size < 1 or num_frames < 1 or not fps > 0:
        raise ValueError(
            f"got size={size}, num_frames={num_frames}, fps={fps}, expected all positive"
        )
    frames = np.arange(num_frames) * (a.FPS / fps)
    grey = _draw_plane(scene, frames, size)
    image = np.empty((num_frames, size, size, 3))
    image[:] = grey[..., None]
    for layer in range(len(scene.objects)):
        _draw_object(image, scene, layer, frames, size)
    return np.rint(image, out=image).astype(np.uint8)


def pixel_centres(size: int) -> np.ndarray:
    """Pixel centres of a frame of ``size`` pixels, in the coordinates of a 64-pixel frame."""
    return (np.arange(size) + 0.5) * (a.SIZE / size) - 0.5


def _noise_tables(plane: Plane) -> np.ndarray:
    """Lattice values in [-1, 1] of the four octaves ``(4, 64, 64)``, periodic."""
    words = Words("plane", plane.key)
    return words.uniforms(len(_CELLS) * _PERIOD**2).reshape(-1, _PERIOD, _PERIOD) * 2 - 1


def _interpolation(coordinates: np.ndarray, cell: float) -> np.ndarray:
    """Smooth-step weights ``(t, n, 64)`` of lattice values at coordinates ``(t, n)``."""
    position = coordinates / cell
    low = np.floor(position)
    share = position - low
    share = share * share * (3 - 2 * share)
    index = low.astype(np.int64) % _PERIOD
    weights = np.zeros((*coordinates.shape, _PERIOD))
    frame, pixel = np.ogrid[: len(weights), : weights.shape[1]]
    weights[frame, pixel, index] = 1 - share
    weights[frame, pixel, (index + 1) % _PERIOD] = share
    return weights


def _draw_plane(scene: Scene, frames: np.ndarray, size: int) -> np.ndarray:
    """Grey values ``(t, h, w)``, or ``(1, h, w)`` if the camera stands still."""
    if scene.camera.motion == "static":
        frames = frames[:1]
    scale, shift = scene.to_frame(frames, 1.0)
    pixels = pixel_centres(size)
    # From pixels back to plane coordinates, moved so that the lattice does not start mid-frame.
    x = (pixels - shift[:, :1]) / scale[:, None] + 1000
    y = (pixels - shift[:, 1:]) / scale[:, None] + 1000
    value = np.zeros((len(frames), size, size))
    for octave, (cell, table) in enumerate(zip(_CELLS, _noise_tables(scene.plane), strict=True)):
        across, down = _interpolation(x, cell), _interpolation(y, cell)
        value += 0.5**octave * (down @ table @ across.transpose(0, 2, 1))
    return scene.plane.mean + scene.plane.amplitude * value / sum(0.5**k for k in range(4))


def _draw_object(
    image: np.ndarray, scene: Scene, layer: int, frames: np.ndarray, size: int
) -> None:
    """Blend an object over the image ``(t, h, w, 3)`` by the mean of 4x4 samples a pixel."""
    thing = scene.objects[layer]
    matrix = scene.matrix(layer, frames)
    if not (matrix[1:] != matrix[:1]).any():
        frames, matrix = frames[:1], matrix[:1]
    zoom = size / a.SIZE
    centre, radius = scene.centres(layer, frames)
    centre, radius = (centre + 0.5) * zoom - 0.5, radius * zoom
    side = min(size, int(np.ceil(2 * radius.max())) + 3)
    corner = np.clip(np.floor(centre - side / 2 + 0.5), 0, size - side).astype(np.int64)

    offsets = (np.arange(side)[:, None] + _STEPS).reshape(-1)
    x = ((corner[:, :1] + offsets + 0.5) / zoom - 0.5 - matrix[:, :1, 2]).astype(np.float32)
    y = ((corner[:, 1:] + offsets + 0.5) / zoom - 0.5 - matrix[:, 1:2, 2]).astype(np.float32)
    # The inverse of a similarity, in units of the radius.
    norm = (matrix[:, 0, 0] ** 2 + matrix[:, 1, 0] ** 2) * a.RADII[thing.size]
    cos = (matrix[:, 0, 0] / norm).astype(np.float32)[:, None, None]
    sin = (matrix[:, 1, 0] / norm).astype(np.float32)[:, None, None]
    u = cos * x[:, None, :] + sin * y[:, :, None]
    v = cos * y[:, :, None] - sin * x[:, None, :]

    inside = is_inside(thing.shape, u, v)
    coverage = light = _count(inside, side) / _SAMPLES**2
    if thing.texture != "plain":
        shaded = _count(inside & is_shaded(thing.texture, u, v), side) / _SAMPLES**2
        light = coverage - (1 - a.TEXTURE_SHADE) * shaded
    colour = np.array(a.COLOURS[thing.colour], dtype=np.float64)
    for t in range(len(image)):
        k = t if len(frames) > 1 else 0
        x0, y0 = corner[k]
        patch = image[t, y0 : y0 + side, x0 : x0 + side]
        patch *= (1 - coverage[k])[..., None]
        patch += light[k][..., None] * colour


def _count(samples: np.ndarray, side: int) -> np.ndarray:
    """How many of the samples of each pixel are true."""
    rows = samples.view(np.uint8).reshape(len(samples), side, _SAMPLES, side * _SAMPLES)
    rows = rows[:, :, 0] + rows[:, :, 1] + rows[:, :, 2] + rows[:, :, 3]
    # Four neighbouring bytes are one word; this product has their sum in its highest byte.
    return rows.view(np.uint32) * np.uint32(0x01010101) >> np.uint32(24)
