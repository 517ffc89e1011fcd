"""One step of UniPC: the prediction of the next sample, and its correction.

Source:
    Zhao et al. 2023, "UniPC", arXiv:2302.04867, in its data-prediction form, order 2.
"""

from __future__ import annotations

import math

from torch import Tensor

from vdm.diffusion.levels import Level

Evaluation = tuple[Tensor, Tensor, Level]
"""A sample, the denoiser's estimate there, and its level."""


def _unipc_b(h: float, kind: str) -> float:
    # an infinite step (from pure noise) has no finite B1, so it takes B2
    return -h if kind == "bh1" and math.isfinite(h) else math.expm1(-h)


def predict(past: list[Evaluation], b: Level, kind: str) -> Tensor:
    """The sample at the next level.

    Args:
        past: The last evaluations, newest last; only two count.
        b: The next level.
        kind: Which ``B(h)``.
    """
    x, x0, a = past[-1]
    h = (b.log_snr - a.log_snr) / 2
    x = (b.sigma / a.sigma) * x - b.alpha * math.expm1(-h) * x0
    if len(past) < 2 or b.sigma == 0 or h == 0:
        return x
    _, x0_last, last = past[-2]
    r = (last.log_snr - a.log_snr) / 2 / h
    return x - b.alpha * _unipc_b(h, kind) * (x0_last - x0) / (2 * r)


def correct(past: list[Evaluation], x0_next: Tensor, b: Level, kind: str) -> Tensor:
    """The sample at a level, now that the denoiser was evaluated there.

    Args:
        past: The evaluations before, newest last; only two count.
        x0_next: The denoiser's estimate at this level.
        b: The level.
        kind: Which ``B(h)``.
    """
    x, x0, a = past[-1]
    h = (b.log_snr - a.log_snr) / 2
    x = (b.sigma / a.sigma) * x - b.alpha * math.expm1(-h) * x0
    scale = _unipc_b(h, kind)
    if len(past) < 2:
        return x - b.alpha * scale * (x0_next - x0) / 2
    _, x0_last, last = past[-2]
    r = (last.log_snr - a.log_snr) / 2 / h
    # the two equations that make the corrector exact for x0 linear and quadratic in log-SNR
    phi_1 = -math.expm1(-h) / h - 1
    phi_2 = -phi_1 / h - 1 / 2
    rho_last = (phi_1 - 2 * phi_2) / scale / (1 - r)
    rho_next = phi_1 / scale - rho_last
    return x - b.alpha * scale * (rho_last * (x0_last - x0) / r + rho_next * (x0_next - x0))
