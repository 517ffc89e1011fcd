"""Points of a time grid as numbers, for samplers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.schedules import NoiseSchedule


class Level(NamedTuple):
    """One point of the grid as numbers."""

    t: float
    alpha: float
    sigma: float
    log_snr: float


def levels_of(schedule: NoiseSchedule, times: Float[Tensor, " points"]) -> list[Level]:
    """The points of a grid.

    Raises:
        ValueError: If it is no grid.
    """
    if times.ndim != 1:
        raise ValueError(f"got times of shape {tuple(times.shape)}, expected (n + 1,), n >= 1")
    t = times.detach().to("cpu", torch.float64)
    columns = (t, schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t))
    return [Level(*row) for row in torch.stack(columns, 1).tolist()]
