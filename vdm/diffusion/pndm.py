"""The sampler that Stable Diffusion 1 was published with."""

from __future__ import annotations

from torch import Tensor

from vdm.diffusion.levels import Level
from vdm.diffusion.schedules import NoiseSchedule
from vdm.diffusion.walk import Callback, Grid, Noise, Walk, eps_of
from vdm.types import Denoise

WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Of the latest predictions, the last one first: Adams-Bashforth of order one to four."""


def pndm(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Linear multistep: each step follows the noise that the last four predictions extrapolate to.

    The first step is taken twice, the second time with the mean of the noise at both of its ends;
    so there is one evaluation more than there are steps. On grids of unequal steps, as published
    ones are in the noise level, the order is two.

    Args:
        denoise: The denoiser.
        schedule: The noise schedule.
        x: Noise at ``times[0]``.
        times: Decreasing times.
        noise: Not used.
        callback: Told of every step.

    Source:
        Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds",
        arXiv:2202.09778, eq. 11 and 12, without its Runge-Kutta steps, as in the sampler of
        Rombach et al. 2022 (``PNDMScheduler`` with ``skip_prk_steps`` in diffusers).
    """
    walk = Walk(denoise, schedule, x, times, callback)
    x = walk.start
    past: list[Tensor] = []
    for k, (a, b) in enumerate(walk):
        eps = eps_of(x, walk.x0(x, a), a)
        past = [eps, *past[:3]]
        if k == 0 and len(walk.steps) > 1:
            ahead = _transfer(x, eps, a, b)
            eps = (eps + eps_of(ahead, walk.x0(ahead, b), b)) / 2
        else:
            terms = zip(WEIGHTS[len(past) - 1], past, strict=True)
            eps = sum((weight * one for weight, one in terms), start=x.new_zeros(()))
        x = _transfer(x, eps, a, b)
        walk.report(x)
    return x.to(walk.dtype)


def _transfer(x: Tensor, eps: Tensor, a: Level, b: Level) -> Tensor:
    """The sample at ``b`` if the noise stays (eq. 11)."""
    return b.alpha / a.alpha * (x - a.sigma * eps) + b.sigma * eps
