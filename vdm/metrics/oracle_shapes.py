"""Which colour a pixel has and which shape a mask is: by hue and by turned templates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int8, UInt8

from vdm.world.attributes import COLOURS, SHAPES
from vdm.world.shapes import is_inside

GREY = -1
MIN_SATURATION = 0.35  # of the strongest channel
MIN_CHROMA = 24  # strongest minus weakest channel: what noise on dark grey hardly reaches
_BITS = 6

GRID = 32  # side of a normalised mask
_HALF_WIDTH = 1.75  # of the grid, in radii of the circle of equal area; the bar reaches 1.62
STEP = 3  # degrees between templates
PERIODS = {
    "circle": STEP,
    "square": 90,
    "triangle": 120,
    "star": 72,
    "ring": STEP,
    "cross": 90,
    "bar": 180,
}
"""Degrees after which a shape looks the same; round ones have a single template."""


def _hue(rgb: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
    red, green, blue = np.moveaxis(rgb, -1, 0)
    return np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)


@cache
def _colour_table() -> Int8[np.ndarray, " n"]:
    """Colour index by the upper bits of red, green and blue."""
    levels = (np.arange(2**_BITS) + 0.5) * 2 ** (8 - _BITS)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    strongest, weakest = rgb.max(-1), rgb.min(-1)
    palette = _hue(np.array(list(COLOURS.values()), np.float64))
    difference = np.abs(np.angle(np.exp(1j * (_hue(rgb)[..., None] - palette))))
    colour = difference.argmin(-1)
    chroma = strongest - weakest
    is_grey = (chroma < MIN_CHROMA) | (chroma < MIN_SATURATION * strongest)
    return np.where(is_grey, GREY, colour).astype(np.int8).ravel()


def colour_labels(frames: UInt8[np.ndarray, "*n 3"]) -> Int8[np.ndarray, "*n"]:
    """Index into the world's colours of every pixel, or -1 where it is grey.

    A pixel that is partly object and partly plane keeps the object's hue: the plane has none.
    """
    red, green, blue = (frames[..., k].astype(np.int32) >> (8 - _BITS) for k in range(3))
    return _colour_table()[(red << 2 * _BITS) | (green << _BITS) | blue]


@cache
def grey_part(colour: int) -> Float[np.ndarray, " 3"]:
    """Weights of red, green and blue that read how much grey is mixed into a colour."""
    pure = np.array(list(COLOURS.values())[colour], np.float64)
    return np.linalg.pinv(np.stack([pure, np.ones(3)], 1))[1].astype(np.float32)


@dataclass(frozen=True)
class _Templates:
    """Turned shapes on the normalised grid: masks ``(n, GRID * GRID)`` and what each stands for."""

    masks: Float[np.ndarray, "n p"]
    norms: Float[np.ndarray, " n"]
    spans: dict[str, slice]


@cache
def equal_area_radius(shape: str) -> float:
    """Radius of the circle with the shape's area, in radii of the shape."""
    unit = np.linspace(-1.2, 1.2, 1201)
    area = is_inside(shape, *np.meshgrid(unit, unit)).mean() * 2.4**2
    return float(np.sqrt(area / np.pi))


@cache
def _templates() -> _Templates:
    fine = 4  # samples per cell and axis
    steps = ((np.arange(GRID * fine) + 0.5) / (GRID * fine) * 2 - 1) * _HALF_WIDTH
    x, y = np.meshgrid(steps, steps)
    masks: list[np.ndarray] = []
    spans: dict[str, slice] = {}
    for shape in SHAPES:
        radius = equal_area_radius(shape)
        start = len(masks)
        for degrees in range(0, PERIODS[shape], STEP):
            cos, sin = np.cos(np.radians(degrees)) * radius, np.sin(np.radians(degrees)) * radius
            inside = is_inside(shape, cos * x + sin * y, cos * y - sin * x)
            masks.append(inside.reshape(GRID, fine, GRID, fine).mean((1, 3)).ravel())
        spans[shape] = slice(start, len(masks))
    stacked = np.array(masks, np.float32)
    return _Templates(stacked, (stacked**2).sum(1), spans)


def normalise_masks(
    masks: Float[np.ndarray, "t h w"],
    centres: Float[np.ndarray, "t 2"],
    areas: Float[np.ndarray, " t"],
) -> Float[np.ndarray, "t p"]:
    """Resample masks so that all have the same centre and area, bilinearly.

    Args:
        masks: Share of each pixel that the object covers.
        centres: Centre of each mask (x, y), pixels.
        areas: Area of each mask, square pixels, positive.
    """
    t, h, w = masks.shape
    steps = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * _HALF_WIDTH
    reach = steps * np.sqrt(areas / np.pi)[:, None] + 1  # one pixel of margin is added below
    padded = np.zeros((t, h + 3, w + 3), np.float32)
    padded[:, 1 : h + 1, 1 : w + 1] = masks
    x, y = centres[:, :1] + reach, centres[:, 1:] + reach
    x, y = x.clip(0, w + 1), y.clip(0, h + 1)
    left, top = x.astype(int), y.astype(int)
    fx, fy = (x - left).astype(np.float32), (y - top).astype(np.float32)
    frame, step = np.arange(t)[:, None], np.arange(GRID)
    # Bilinear interpolation is one small matrix per axis.
    across, down = np.zeros((t, GRID, w + 3), np.float32), np.zeros((t, GRID, h + 3), np.float32)
    across[frame, step, left], across[frame, step, left + 1] = 1 - fx, fx
    down[frame, step, top], down[frame, step, top + 1] = 1 - fy, fy
    return (down @ padded @ across.transpose(0, 2, 1)).reshape(t, GRID * GRID)


def template_overlaps(normalised: Float[np.ndarray, "t p"]) -> dict[str, np.ndarray]:
    """Overlap of every mask with every turned template, by shape: ``(t, angles)``, 1 is equal.

    The overlap is intersection over union; for soft masks, products take the place of minima.

    Source:
        Tanimoto's coefficient for real vectors, Willett et al. 1998, "Chemical Similarity
        Searching", J. Chem. Inf. Comput. Sci. 38(6), table 1.
    """
    templates = _templates()
    inner = normalised @ templates.masks.T
    union = (normalised**2).sum(1, keepdims=True) + templates.norms - inner
    overlaps = inner / union
    return {shape: overlaps[:, span] for shape, span in templates.spans.items()}
