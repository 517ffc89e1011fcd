"""Where pixels go between frames: estimator, warping, occlusion, end-point and warping errors.

Flow is ``(t - 1, h, w, 2)`` in pixels per frame, x before y: ``x_t`` at a pixel shows what
``x_{t+1}`` shows at the pixel plus its flow.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from vdm.metrics.clips import check_clips

if TYPE_CHECKING:
    from types import ModuleType

Flow = Float[np.ndarray, "s h w 2"]
Preset = Literal["ultrafast", "fast", "medium"]
WORKING_SIDE, MIN_SIDE = 256, 32


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "optical flow needs opencv-python-headless: pip install 'vdm[metrics]'"
        ) from error
    return cv2


def resize_flow(flow: Flow, height: int, width: int) -> Float[np.ndarray, "s {height} {width} 2"]:
    """Resample flow and rescale its vectors: by area where it shrinks, else bilinearly."""
    cv2 = _opencv()
    h, w = flow.shape[1:3]
    rule = cv2.INTER_AREA if height <= h and width <= w else cv2.INTER_LINEAR
    resized = np.stack([cv2.resize(field, (width, height), interpolation=rule) for field in flow])
    return resized * np.array([width / w, height / h], np.float32)


@lru_cache(maxsize=3)
def _find(
    preset: Preset, side: int, pixels: bytes, shape: tuple[int, ...], reverse: bool
) -> Float[np.ndarray, "s h w 2"]:
    """Flow at its working size. That of the last clip is remembered: scores share it."""
    cv2 = _opencv()
    frames = np.frombuffer(pixels, np.uint8).reshape(shape)
    h, w = shape[1:3]
    scale = side / min(h, w)
    size = round(w * scale), round(h * scale)
    rule = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    scaled = [cv2.resize(frame, size, interpolation=rule) for frame in grey]
    dis = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))
    pairs = [(b, a) if reverse else (a, b) for a, b in pairwise(scaled)]
    flow = np.stack([dis.calc(a, b, None) for a, b in pairs])
    flow.flags.writeable = False
    return flow


class FlowEstimator:
    """Dense inverse search on grey frames whose short side is brought to one length.

    Args:
        preset: Effort, 8 ms per pair at ``medium``, a fifth at ``fast`` with 1.3 times the error.
        side: That length, in pixels. A shorter one sees less of small motions and of noise.

    Raises:
        ValueError: If the preset is unknown, or the side too short to search.
        ImportError: If OpenCV is not installed.

    Source:
        Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search", arXiv:1603.03590, as in
        OpenCV.
    """

    def __init__(self, preset: Preset = "medium", side: int = WORKING_SIDE) -> None:
        _opencv()
        if preset not in ("ultrafast", "fast", "medium"):
            raise ValueError(f"got preset {preset!r}, expected 'ultrafast', 'fast' or 'medium'")
        if side < MIN_SIDE:
            raise ValueError(f"got side={side}, expected at least {MIN_SIDE}")
        self.id = f"dis-{preset}" if side == WORKING_SIDE else f"dis-{preset}-{side}"
        self._preset: Preset = preset
        self._side = side

    def __call__(
        self,
        frames: UInt8[np.ndarray, "t h w 3"],
        size: tuple[int, int] | None = None,
        reverse: bool = False,
    ) -> Float[np.ndarray, "_ _ _ 2"]:
        """Flow between neighbouring frames of one clip.

        Args:
            frames: The clip.
            size: Height and width of the result, in whose pixels it is measured; the clip's own if
                ``None``.
            reverse: Flow from each frame t + 1 back to frame t.
        """
        check_clips(frames[None], min_frames=2)
        height, width = size or frames.shape[1:3]
        found = _find(self._preset, self._side, frames.tobytes(), frames.shape, reverse)
        return resize_flow(found, height, width)


def warp(
    values: Shaped[np.ndarray, "s h w c"], flow: Flow
) -> tuple[Float[np.ndarray, "s h w c"], Bool[np.ndarray, "s h w"]]:
    """Read images where the flow points, bilinearly.

    Args:
        values: Images of frame t + 1, one per field.
        flow: Flow from frame t to frame t + 1.

    Returns:
        The images seen from frame t, and where the flow stays inside the image.
    """
    s, h, w = flow.shape[:3]
    x = np.arange(w) + flow[..., 0].astype(np.float64)
    y = np.arange(h)[:, None] + flow[..., 1].astype(np.float64)
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    x, y = x.clip(0, w - 1), y.clip(0, h - 1)
    left, top = np.minimum(x.astype(int), max(w - 2, 0)), np.minimum(y.astype(int), max(h - 2, 0))
    right, bottom = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    step = np.arange(s)[:, None, None]
    upper = values[step, top, left] * (1 - fx) + values[step, top, right] * fx
    lower = values[step, bottom, left] * (1 - fx) + values[step, bottom, right] * fx
    return upper * (1 - fy) + lower * fy, inside


def visible_mask(forward: Flow, backward: Flow) -> Bool[np.ndarray, "s h w"]:
    """Pixels of frame t seen in frame t + 1 too: inside, consistent, off motion boundaries.

    Args:
        forward: Flow from frame t to frame t + 1.
        backward: Flow from frame t + 1 to frame t.

    Source:
        Ruder et al. 2016, "Artistic Style Transfer for Videos", arXiv:1604.08610, eqs. 5 and 6; the
        boundary test is made on the forward flow, in whose frame the mask lives.
    """
    back, inside = warp(backward, forward)
    square = (forward**2).sum(-1)
    disagreement = ((forward + back) ** 2).sum(-1)
    consistent = disagreement <= 0.01 * (square + (back**2).sum(-1)) + 0.5
    dy, dx = np.gradient(forward, axis=(1, 2))
    smooth = (dx**2 + dy**2).sum(-1) <= 0.01 * square + 0.002
    return inside & consistent & smooth


def warping_error(
    frames: UInt8[np.ndarray, "t h w 3"], flow: Flow, visible: Bool[np.ndarray, "s h w"]
) -> float:
    """Mean squared difference between each frame and the next one warped back, values in [0, 1].

    Args:
        frames: The clip.
        flow: Forward flow, estimated on the clip itself (protocol ``warp/self``) or given
            (``warp/cond``).
        visible: Pixels that count.

    Raises:
        ValueError: If the flow does not fit the clip.

    Source:
        Lai et al. 2018, "Learning Blind Video Temporal Consistency", arXiv:1808.00449, eqs. 10 and
        11.
    """
    _check_fit(frames, flow)
    scaled = frames / 255.0
    warped, inside = warp(scaled[1:], flow)
    count = visible & inside
    square = ((scaled[:-1] - warped) ** 2).mean(-1)
    return float(np.mean((square * count).sum((1, 2)) / np.maximum(count.sum((1, 2)), 1)))


def end_point_error(
    estimated: Flow,
    true: Flow,
    visible: Bool[np.ndarray, "s h w"] | None = None,
    moving_only: bool = False,
) -> dict[str, float]:
    """How far an estimated flow ends from the true one.

    Args:
        estimated: Flow to judge.
        true: Flow to judge it by.
        visible: Pixels that count; all if ``None``.
        moving_only: Count only pixels whose true flow is longer than 0.3 pixels.

    Returns:
        ``mean`` distance in pixels, and the shares ``over_1px`` and ``over_3px``; zeros where no
        pixel counts.

    Raises:
        ValueError: If the shapes differ.
    """
    if estimated.shape != true.shape:
        raise ValueError(f"got flow of shape {estimated.shape}, expected {true.shape}")
    count = np.ones(true.shape[:3], bool) if visible is None else visible.astype(bool)
    if moving_only:
        count = count & (np.linalg.norm(true, axis=-1) > 0.3)
    error = np.linalg.norm(estimated - true, axis=-1)[count]
    if not error.size:
        return {"mean": 0.0, "over_1px": 0.0, "over_3px": 0.0}
    return {
        "mean": float(error.mean()),
        "over_1px": float((error > 1).mean()),
        "over_3px": float((error > 3).mean()),
    }


def _check_fit(frames: np.ndarray, flow: np.ndarray) -> None:
    check_clips(frames[None], min_frames=2)
    expected = (len(frames) - 1, *frames.shape[1:3], 2)
    if flow.shape != expected:
        raise ValueError(f"got flow of shape {flow.shape}, expected {expected} for this clip")
