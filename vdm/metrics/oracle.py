"""What a clip of the world shows, read out of its pixels by a program without anything learnt.

Colour by hue, shape by overlap with templates, motion by fitted paths on the plane, the camera by
which of seven motions explains the background. Reads 64x64 clips faster than they are rendered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int8, UInt8

from vdm.metrics import oracle_shapes as shapes
from vdm.metrics.clips import Clips, check_clips, luma
from vdm.metrics.oracle_motion import Motion, read_motion
from vdm.world import attributes as a
from vdm.world.scenes import NEAREST, Camera, Plane, Scene

MIN_AREA = 25.0  # pixels of a 64-pixel frame: smaller spots are no objects
MIN_OVERLAP = 0.6  # with the best template: less is none of the shapes
SHAPE_MARGIN = 0.05  # by which another shape must win a frame before the shape has changed
CAMERA_GAP = 5  # frames between compared frames
CAMERA_MARGIN = 0.9  # of the difference without any motion, below which the camera moves
SIZE_LIMIT = float(np.sqrt(np.prod(list(a.RADII.values()))))


@dataclass(frozen=True)
class ObjectReading:
    """One object: a value of each attribute, ``None`` where it is none of the world's.

    Args:
        colour: Colour.
        shape: Shape over all frames.
        size: Small or large, at the first frame.
        motion: Motion on the plane, the camera's taken out.
        speed: Slow or fast; ``None`` for what stands still.
        is_persistent: Whether it is there in every frame and never takes another shape.
    """

    colour: str
    shape: str | None
    size: str | None
    motion: str | None
    speed: str | None
    is_persistent: bool


@dataclass(frozen=True)
class Reading:
    """What a clip shows.

    Args:
        objects: Objects, largest first.
        camera: Motion of the camera.
        is_persistent: Whether every object persists and their number never changes.
    """

    objects: tuple[ObjectReading, ...]
    camera: str
    is_persistent: bool


def read_clip(frames: UInt8[np.ndarray, "t h w 3"]) -> Reading:
    """Read one clip at 8 frames per second.

    Args:
        frames: The clip; lengths scale with its height.

    Raises:
        TypeError: If the clip is not uint8.
        ValueError: If it is not ``(t, h, w, 3)``, not square or shorter than 4 frames.
    """
    check_clips(frames[None], min_frames=4)
    height, width = frames.shape[1:3]
    if height != width:
        raise ValueError(f"got frames of {height}x{width}, expected square ones: {height}x{height}")
    zoom = height / a.SIZE
    labels = shapes.colour_labels(frames)
    camera = read_camera(frames, labels)
    least = MIN_AREA * zoom**2
    seen = np.flatnonzero(_areas(labels).max(0) >= least)
    spots = {colour: _without_specks(labels == colour) for colour in seen}
    areas = {colour: spot.sum((1, 2)) for colour, spot in spots.items()}
    present = [colour for colour, area in areas.items() if np.median(area) >= least]
    masks = [spots[colour] for colour in present]
    found = []
    for k, colour in enumerate(present):
        others = np.any(masks[:k] + masks[k + 1 :], 0) if len(masks) > 1 else None
        weights = _coverage(frames, labels, int(colour), masks[k])
        if (weights.sum((1, 2))[areas[colour] >= least] < 1).any():
            weights = masks[k].astype(np.float32)  # as bright as the plane: no shares to tell
        found.append(_read_object(int(colour), masks[k], weights, others, camera, zoom))
    found.sort(key=lambda pair: -pair[0])
    objects = tuple(reading for _, reading in found)
    counts = sum((area >= least for area in areas.values()), np.zeros(len(frames), int))
    is_persistent = bool((counts == counts[0]).all()) and all(o.is_persistent for o in objects)
    return Reading(objects, camera, is_persistent)


def read_clips(clips: Clips) -> list[Reading]:
    """Read many clips, one by one."""
    check_clips(clips, min_frames=4)
    return [read_clip(clip) for clip in clips]


def _areas(labels: Int8[np.ndarray, "t h w"]) -> Float[np.ndarray, "t colours"]:
    """Pixels of each colour in each frame."""
    count = len(a.COLOURS) + 1
    flat = labels.reshape(len(labels), -1) + 1 + count * np.arange(len(labels))[:, None]
    totals = np.bincount(flat.ravel(), minlength=count * len(labels))
    return totals.reshape(len(labels), count)[:, 1:].astype(np.float64)


def _coverage(
    frames: UInt8[np.ndarray, "t h w 3"],
    labels: Int8[np.ndarray, "t h w"],
    colour: int,
    mask: Bool[np.ndarray, "t h w"],
) -> Float[np.ndarray, "t h w"]:
    """Share of each pixel that the object covers, whatever the shade of its texture.

    A pixel is a shade of the colour plus what is seen of the grey plane beside it; the grey part,
    relative to the plane around the object, is what the object does not cover.
    """
    near = _dilate(mask)
    around = _dilate(_dilate(near)) & ~near & (labels == shapes.GREY)
    count = np.maximum(around.sum((1, 2)), 1)
    plane = np.maximum((luma(frames) * around).sum((1, 2)) / count, 30.0)
    grey = frames @ shapes.grey_part(colour)
    share = (1 - grey / plane[:, None, None]).clip(0, 1)
    share = np.where(near & ((labels == colour) | (labels == shapes.GREY)), share, 0)
    full = np.quantile(share[mask], 0.8) if mask.any() else 1.0
    return (share / max(float(full), 0.5)).clip(0, 1).astype(np.float32)


def _read_object(
    colour: int,
    mask: Bool[np.ndarray, "t h w"],
    weights: Float[np.ndarray, "t h w"],
    other: Bool[np.ndarray, "t h w"] | None,
    camera: str,
    zoom: float,
) -> tuple[float, ObjectReading]:
    """Median area and reading of the object whose pixels are ``mask``."""
    is_there = mask.sum((1, 2)) >= MIN_AREA * zoom**2
    h, w = mask.shape[1:]
    area = weights.sum((1, 2), dtype=np.float64)
    total = np.maximum(area, 1)
    centre = np.stack(
        [weights.sum(1) @ np.arange(w) / total, weights.sum(2) @ np.arange(h) / total], 1
    )
    is_whole = is_there
    if other is not None:  # frames in which it is next to another object do not count
        is_whole = is_there & ~(_dilate(mask) & other).any((1, 2))
    in_frame = is_whole & ~_at_border(mask)
    use = next((x for x in (in_frame, is_whole) if x.sum() >= 4), is_there)

    normalised = shapes.normalise_masks(weights, centre, np.maximum(area, 1.0))
    overlaps = shapes.template_overlaps(normalised)
    best = {shape: values.max(1) for shape, values in overlaps.items()}
    mean = {shape: float(values[use].mean()) for shape, values in best.items()}
    shape = max(mean, key=lambda name: mean[name])
    rival = np.max(list(best.values()), 0)
    changes = (rival - best[shape] > SHAPE_MARGIN) & in_frame

    track = is_whole if is_whole.sum() >= 4 else is_there
    frames = np.flatnonzero(track).astype(np.float64)
    scale, shift = _camera_pose(camera, frames)
    pixels = (centre[track] + 0.5) / zoom - 0.5
    path = (pixels - shift) / scale[:, None]
    log_radius = np.log(np.sqrt(area[track] / np.pi) / zoom / scale)
    motion = read_motion(frames, path, log_radius, overlaps[shape][track])
    reading = ObjectReading(
        colour=list(a.COLOURS)[colour],
        shape=shape if mean[shape] >= MIN_OVERLAP else None,
        size=_size(shape, frames, log_radius, motion),
        motion=motion.name,
        speed=motion.speed,
        is_persistent=bool(is_there.all() and not changes.any()),
    )
    return float(np.median(area)), reading


def _size(
    shape: str, frames: Float[np.ndarray, " t"], log_radius: Float[np.ndarray, " t"], motion: Motion
) -> str:
    """Small or large, from the radius at frame 0."""
    start = log_radius.mean()
    if motion.name in ("grow", "shrink"):
        start = np.polyfit(frames, log_radius, 1)[1]
    radius = float(np.exp(start)) / shapes.equal_area_radius(shape)
    return "large" if radius > SIZE_LIMIT else "small"


def _at_border(mask: Bool[np.ndarray, "t h w"]) -> Bool[np.ndarray, " t"]:
    edges = (mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1])
    return np.any([edge.any(1) for edge in edges], 0)


def _without_specks(
    mask: Bool[np.ndarray, "t h w"], neighbours: int = 3
) -> Bool[np.ndarray, "t h w"]:
    """The mask without pixels that have fewer of their 8 neighbours in it."""
    padded = np.pad(mask, [(0, 0), (1, 1), (1, 1)]).astype(np.uint8)
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return mask & (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] > neighbours)


def _dilate(mask: Bool[np.ndarray, "t h w"]) -> Bool[np.ndarray, "t h w"]:
    """The mask and its neighbours, diagonals included."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    result = wide.copy()
    result[:, :, 1:] |= wide[:, :, :-1]
    result[:, :, :-1] |= wide[:, :, 1:]
    return result


def _camera_pose(
    camera: str, frames: Float[np.ndarray, " t"]
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, "t 2"]]:
    """Scale and shift from the plane to pixels of a 64-pixel frame."""
    return Scene((), Camera(camera), Plane(0, 0, 0)).to_frame(frames, 1.0)


def _cameras(num_frames: int) -> list[str]:
    """The cameras that so long a clip can have: zooming in ends at the plane."""
    ends_before_plane = (num_frames - 1) * a.ZOOM_SPEED <= 1 - NEAREST
    return [camera for camera in a.CAMERAS if ends_before_plane or camera != "zoom-in"]


@cache
def _camera_maps(num_frames: int, size: int) -> list[tuple[int, int, list[tuple[np.ndarray, ...]]]]:
    """For pairs of frames and every camera: where the pixels of the first lie in the second."""
    gap = min(CAMERA_GAP, num_frames - 1)
    starts = sorted({round(s) for s in np.linspace(0, num_frames - 1 - gap, 5)})
    pixels = (np.arange(size) + 0.5) * (a.SIZE / size) - 0.5
    result = []
    for start in starts:
        maps = []
        for camera in _cameras(num_frames):
            scale, shift = _camera_pose(camera, np.array([start, start + gap], np.float64))
            moved = [(pixels - shift[0, k]) / scale[0] * scale[1] + shift[1, k] for k in range(2)]
            maps.append(tuple((m + 0.5) * (size / a.SIZE) - 0.5 for m in moved))
        result.append((start, start + gap, maps))
    return result


def read_camera(frames: UInt8[np.ndarray, "t h w 3"], labels: Int8[np.ndarray, "t h w"]) -> str:
    """The motion of the camera that explains the background best.

    Args:
        frames: The clip, square.
        labels: Colour of every pixel, -1 for the plane.
    """
    size = frames.shape[1]
    pairs = _camera_maps(len(frames), size)
    used = sorted({frame for first, second, _ in pairs for frame in (first, second)})
    plane = ~_dilate(_dilate(_without_specks(labels[used] != shapes.GREY, 5)))
    # Smooth first: otherwise interpolation would remove noise and win where nothing moves.
    grey = dict(zip(used, _smooth(luma(frames[used]), plane), strict=True))
    known = dict(zip(used, plane, strict=True))
    cameras = _cameras(len(frames))
    totals = np.zeros(len(cameras))
    for first, second, maps in pairs:
        for k, (x, y) in enumerate(maps):
            moved, is_known = _resample(grey[second], known[second], x, y)
            error = np.abs(moved - grey[first])[is_known & known[first]]
            totals[k] += error.mean() if error.size else np.inf
    best = int(totals.argmin())
    return cameras[best] if totals[best] < CAMERA_MARGIN * totals[0] else cameras[0]


def _smooth(
    images: Float[np.ndarray, "t h w"], known: Bool[np.ndarray, "t h w"]
) -> Float[np.ndarray, "t h w"]:
    """Images blurred by the binomial filter of order 4, over the known pixels only."""
    result = []
    for values in (images * known, known.astype(np.float32)):
        for axis in (1, 2):
            padded = np.pad(values, [(2, 2) if k == axis else (0, 0) for k in range(3)])
            shifted = [padded.take(range(k, k + values.shape[axis]), axis) for k in range(5)]
            values = sum(w * s for w, s in zip((1, 4, 6, 4, 1), shifted, strict=True))
        result.append(values)
    return result[0] / np.maximum(result[1], 1e-6)


def _resample(
    image: Float[np.ndarray, "h w"],
    known: Bool[np.ndarray, "h w"],
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, "n n"], Bool[np.ndarray, "n n"]]:
    """The image on the grid of rows ``y`` and columns ``x``, bilinearly, and where it is known."""
    size = len(image)
    inside = (x >= 0) & (x <= size - 1), (y >= 0) & (y <= size - 1)
    x, y = x.clip(0, size - 1), y.clip(0, size - 1)
    left, top = np.minimum(x.astype(int), size - 2), np.minimum(y.astype(int), size - 2)
    fx, fy = (x - left).astype(np.float32), (y - top).astype(np.float32)[:, None]
    rows = image[top] * (1 - fy) + image[top + 1] * fy
    result = rows[:, left] * (1 - fx) + rows[:, left + 1] * fx
    nearest = known[np.ix_(np.rint(y).astype(int), np.rint(x).astype(int))]
    return result, nearest & inside[0] & inside[1][:, None]
