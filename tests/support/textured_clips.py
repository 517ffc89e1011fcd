"""Textured clips that optical flow can follow."""

import cv2
import numpy as np


def smooth_noise(seed: int, h: int, w: int) -> np.ndarray:
    """A texture that flow can follow: noise at three scales, grey in RGB, uint8."""
    rng = np.random.default_rng(seed)
    total = np.zeros((h, w), np.float32)
    for cells in (4, 8, 16):
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        total += cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
    grey = (128 + 30 * total).clip(1, 254).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


def panned(seed: int, steps: np.ndarray, h: int = 48, w: int = 64) -> np.ndarray:
    """A clip that looks at a large texture from the integer positions ``steps`` (t, 2)."""
    big = smooth_noise(seed, 3 * h, 3 * w)
    return np.stack([big[h + y : 2 * h + y, w + x : 2 * w + x] for x, y in steps])
