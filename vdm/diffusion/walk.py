"""What do all samplers share? The grid as numbers, precision, calling the denoiser, reporting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.levels import Level, levels_of
from vdm.diffusion.schedules import NoiseSchedule, at_least_float32
from vdm.types import Denoise

Grid = Float[Tensor, " points"]
Noise = Callable[[Tensor], Tensor]
Callback = Callable[[int, int, Tensor], None]


class Walk:
    """The steps of a sampler along a grid.

    Args:
        denoise: The denoiser.
        schedule: The noise schedule.
        x: The sample at ``times[0]``.
        times: Decreasing times.
        callback: Told of every step.
        next_times: Where each step goes, if not to the next time of the grid.

    Raises:
        ValueError: If the grid has no step, or there is not one next time for each.
    """

    def __init__(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        x: Tensor,
        times: Grid,
        callback: Callback | None,
        next_times: Float[Tensor, " steps"] | None = None,
    ) -> None:
        self.denoise, self.callback, self.dtype = denoise, callback, x.dtype
        self.start = at_least_float32(x)
        self.levels = levels_of(schedule, times)
        if len(self.levels) < 2:
            raise ValueError(f"got times of shape {tuple(times.shape)}, expected (n + 1,), n >= 1")
        self.steps = list(pairwise(self.levels))
        if next_times is not None:
            if len(next_times) != len(self.steps):
                raise ValueError(f"got {len(next_times)} next_times, expected {len(self.steps)}")
            self.steps = list(zip(self.levels[:-1], levels_of(schedule, next_times), strict=True))
        self.done = 0

    def __iter__(self) -> Iterator[tuple[Level, Level]]:
        return iter(self.steps)

    def x0(self, x: Tensor, at: Level) -> Tensor:
        """The denoiser's estimate, in the precision of the running sample."""
        precision = torch.promote_types(self.dtype, torch.float32)
        t = torch.full((len(x),), at.t, dtype=precision, device=x.device)
        return self.denoise(x.to(self.dtype), t).to(x.dtype)

    def report(self, x: Tensor) -> None:
        """Count a step and tell the callback."""
        self.done += 1
        if self.callback is not None:
            self.callback(self.done - 1, len(self.steps), x.to(self.dtype))


def need_noise(noise: Noise | None, sampler: str) -> Noise:
    """What draws noise.

    Raises:
        ValueError: If there is nothing that does.
    """
    if noise is None:
        raise ValueError(
            f"{sampler} is stochastic: got noise=None, expected e.g. SampleNoise(seeds)"
        )
    return noise


def eps_of(x: Tensor, x0: Tensor, at: Level) -> Tensor:
    """The noise in a sample, by an estimate of what is clean in it."""
    return (x - at.alpha * x0) / at.sigma


def fresh_share(a: Level, b: Level) -> float:
    """Share of the noise variance at ``b`` that is not in ``a``: ``1 - SNR(a) / SNR(b)``."""
    return -math.expm1(a.log_snr - b.log_snr)
