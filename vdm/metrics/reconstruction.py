"""How close a reconstruction is to its input: PSNR and SSIM, per frame, then per video."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vdm.metrics.clips import Clips, check_clips

MAX_PSNR = 100.0  # dB, for equal frames
WINDOW, WINDOW_SIGMA = 11, 1.5  # Wang et al. 2004, section III-B
K1, K2 = 0.01, 0.03


def _pair(real: Clips, reconstructed: Clips) -> tuple[Tensor, Tensor]:
    check_clips(real)
    check_clips(reconstructed)
    if real.shape != reconstructed.shape:
        raise ValueError(
            f"got reconstruction of shape {reconstructed.shape}, expected {real.shape}"
        )
    return torch.from_numpy(real), torch.from_numpy(reconstructed)


def psnr_per_frame(real: Clips, reconstructed: Clips) -> Float[np.ndarray, "b t"]:
    """Peak signal-to-noise ratio of every frame in dB, at most 100.

    Args:
        real: uint8 input clips.
        reconstructed: uint8 reconstructions of the same shape.

    Raises:
        ValueError: If the shapes differ.
    """
    x, y = _pair(real, reconstructed)
    mse = (x.double() - y.double()).square().mean((2, 3, 4))
    return (10 * torch.log10(255**2 / mse)).clamp(max=MAX_PSNR).numpy()


def psnr(real: Clips, reconstructed: Clips) -> Float[np.ndarray, " b"]:
    """PSNR of every video: the mean over its frames, as in :func:`psnr_per_frame`."""
    return psnr_per_frame(real, reconstructed).mean(1)


def _window(dtype: torch.dtype) -> Float[Tensor, " k"]:
    offsets = torch.arange(WINDOW, dtype=dtype) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    return weights / weights.sum()


def _blur(images: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h2 w2"]:
    window = _window(images.dtype)
    return F.conv2d(F.conv2d(images, window.reshape(1, 1, 1, -1)), window.reshape(1, 1, -1, 1))


def ssim_per_frame(real: Clips, reconstructed: Clips) -> Float[np.ndarray, "b t"]:
    """Structural similarity of every frame: per RGB channel, over the valid region, data range 255.

    Args:
        real: uint8 input clips, at least 11 pixels high and wide.
        reconstructed: uint8 reconstructions of the same shape.

    Raises:
        ValueError: If the shapes differ or frames are smaller than the window.

    Source:
        Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural
        Similarity", eq. 13.
    """
    x, y = _pair(real, reconstructed)
    b, t, h, w, c = x.shape
    if min(h, w) < WINDOW:
        raise ValueError(f"got frames of {h}x{w}, expected at least {WINDOW}x{WINDOW}")
    # Float64 on [0, 1]: variances are differences of large numbers.
    x, y = (v.permute(0, 1, 4, 2, 3).reshape(b * t * c, 1, h, w).double() / 255 for v in (x, y))
    mx, my = _blur(x), _blur(y)
    vx, vy, cov = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
    c1, c2 = K1**2, K2**2
    index = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return index.mean((1, 2, 3)).reshape(b, t, c).mean(2).numpy()


def ssim(real: Clips, reconstructed: Clips) -> Float[np.ndarray, " b"]:
    """SSIM of every video: the mean over its frames, as in :func:`ssim_per_frame`."""
    return ssim_per_frame(real, reconstructed).mean(1)
