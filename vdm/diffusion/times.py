"""Which noise times does training visit, and how often?

A distribution is its inverse CDF, applied to uniform numbers that the caller draws: the randomness
stays outside, and stratified or fixed uniforms work like random ones.
"""

# ruff: noqa: D102 -- what the methods mean is said once, on the abstract class

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.schedules import NoiseSchedule, at_least_float32

Uniforms = Float[Tensor, " b *frames"]
Time = Float[Tensor, " b *frames"]
"""One per sample, or one per frame."""

_MARGIN = 2.0**-24  # the spacing of float32 below 1; at 0 and 1 themselves tails are infinite


def _inside(u: Uniforms) -> Uniforms:
    return at_least_float32(u).clamp(_MARGIN / 2, 1 - _MARGIN)


class TimeDistribution(ABC):
    """A distribution of training times in [0, 1]."""

    @abstractmethod
    def sample(self, u: Uniforms, schedule: NoiseSchedule) -> Time:
        """The times at these quantiles.

        Args:
            u: Uniform numbers in [0, 1), one per sample or frame.
            schedule: The schedule that the times are for.
        """


@dataclass(frozen=True)
class Uniform(TimeDistribution):
    """Uniform on ``[low, high]``.

    Source:
        Kingma et al. 2021, arXiv:2107.00630, eq. 17.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"got low={self.low}, high={self.high}, expected 0 <= low < high <= 1")

    def sample(self, u: Uniforms, schedule: NoiseSchedule) -> Time:
        return self.low + (self.high - self.low) * _inside(u)


@dataclass(frozen=True)
class DiscreteUniform(TimeDistribution):
    """Uniform on the entries of a DDPM table, ``t = (k + 1) / num_steps``.

    Source:
        Ho et al. 2020, arXiv:2006.11239, algorithm 1.
    """

    num_steps: int = 1000

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"got num_steps={self.num_steps}, expected at least 1, e.g. 1000")

    def sample(self, u: Uniforms, schedule: NoiseSchedule) -> Time:
        return (torch.floor(_inside(u) * self.num_steps) + 1) / self.num_steps


@dataclass(frozen=True)
class LogitNormal(TimeDistribution):
    """``logit(t)`` is normal: the middle of the path is visited most.

    Args:
        mean: Positive moves towards noise.
        std: Width in logits.

    Source:
        Esser et al. 2024, arXiv:2403.03206, eq. 19.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"got std={self.std}, expected more than 0, e.g. 1")

    def sample(self, u: Uniforms, schedule: NoiseSchedule) -> Time:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(_inside(u)))


@dataclass(frozen=True)
class EDMLogNormal(TimeDistribution):
    """``log(sigma / alpha)`` is normal, cut off where the schedule ends.

    Args:
        mean: ``P_mean``: -1.2 in EDM.
        std: ``P_std``: 1.2 in EDM.

    Source:
        Karras et al. 2022, arXiv:2206.00364, table 1 (noise distribution). The paper has no largest
        noise level in training; here the tail beyond ``t = 1`` is left out.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"got std={self.std}, expected more than 0, e.g. 1.2")

    def sample(self, u: Uniforms, schedule: NoiseSchedule) -> Time:
        u = _inside(u)
        log_edm_sigma_max = -schedule.log_snr(torch.ones_like(u)) / 2
        reachable = torch.special.ndtr((log_edm_sigma_max - self.mean) / self.std)
        log_edm_sigma = self.mean + self.std * torch.special.ndtri(u * reachable)
        return schedule.t_from_log_snr(-2 * log_edm_sigma)
