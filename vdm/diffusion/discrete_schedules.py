"""The DDPM tables of betas, exactly, and what lies between and below their entries."""

# ruff: noqa: D102 -- what the methods mean is said once, on the abstract class

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.schedules import NoiseSchedule, Times

BetaSpacing = Literal["linear", "scaled_linear", "squaredcos"]


@dataclass(frozen=True)
class DDPMTable(NoiseSchedule):
    """A discrete schedule of ``num_steps`` betas, made continuous.

    Entry ``k`` (the integer timestep that networks of the DDPM family are told) stands at
    ``t = (k + 1) / num_steps``, so the last one is at ``t = 1`` and ``t = 0`` is clean data. At the
    entries everything is as in the table. Between them the log-SNR is linear in ``t``; below the
    first, ``sigma / alpha`` goes linearly to zero.

    Args:
        betas: ``"linear"`` (Ho et al. 2020); ``"scaled_linear"``, linear in the square root
            (Rombach et al. 2022, arXiv:2112.10752); ``"squaredcos"`` (Nichol & Dhariwal 2021),
            which reads neither start nor end.
        beta_start: First beta.
        beta_end: Last beta.
        num_steps: Entries in the table.

    Raises:
        ValueError: If the betas do not lie in (0, 1) and grow, or there are fewer than two steps.

    Source:
        Ho et al. 2020, "Denoising Diffusion Probabilistic Models", arXiv:2006.11239, eq. 4;
        Nichol & Dhariwal 2021, "Improved DDPM", arXiv:2102.09672, eq. 17.
    """

    betas: BetaSpacing = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    num_steps: int = 1000

    def __post_init__(self) -> None:
        if self.betas not in (choices := ("linear", "scaled_linear", "squaredcos")):
            raise ValueError(f"got betas={self.betas!r}, expected one of {', '.join(choices)}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f"got beta_start={self.beta_start}, beta_end={self.beta_end}, "
                "expected 0 < beta_start <= beta_end < 1"
            )
        if self.num_steps < 2:
            raise ValueError(f"got num_steps={self.num_steps}, expected at least 2, e.g. 1000")

    @property
    def t_first(self) -> float:
        return 1 / self.num_steps

    def alpha(self, t: Times) -> Times:
        return torch.rsqrt(1 + self.edm_sigma(t) ** 2)

    def sigma(self, t: Times) -> Times:
        edm_sigma = self.edm_sigma(t)
        return edm_sigma * torch.rsqrt(1 + edm_sigma**2)

    def alpha_dot(self, t: Times) -> Times:
        edm_sigma, edm_sigma_dot = self._edm_sigma_and_dot(t)
        return -edm_sigma * edm_sigma_dot * torch.rsqrt(1 + edm_sigma**2) ** 3

    def sigma_dot(self, t: Times) -> Times:
        edm_sigma, edm_sigma_dot = self._edm_sigma_and_dot(t)
        return edm_sigma_dot * torch.rsqrt(1 + edm_sigma**2) ** 3

    def edm_sigma(self, t: Times) -> Times:
        return self._edm_sigma_and_dot(t)[0]

    def t_from_log_snr(self, log_snr: Times) -> Times:
        table = _log_edm_sigma(self, log_snr.device, log_snr.dtype)
        value = -log_snr / 2
        k = (torch.searchsorted(table, value.contiguous()) - 1).clamp(0, self.num_steps - 2)
        index = k + (value - table[k]) / (table[k + 1] - table[k])
        below = torch.exp(value - table[0]) - 1
        return ((torch.where(value < table[0], below, index) + 1) / self.num_steps).clamp_max(1)

    def _edm_sigma_and_dot(self, t: Times) -> tuple[Times, Times]:
        table = _log_edm_sigma(self, t.device, t.dtype)
        index = self.num_steps * t - 1
        k = index.detach().floor().long().clamp(0, self.num_steps - 2)
        slope = table[k + 1] - table[k]
        between = torch.exp(table[k] + (index - k) * slope)
        first = table[0].exp()
        edm_sigma = torch.where(index < 0, first * (index + 1), between)
        return edm_sigma, self.num_steps * torch.where(index < 0, first, between * slope)


@lru_cache(maxsize=32)
def _log_edm_sigma(
    schedule: DDPMTable, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, " steps"]:
    """``log(sigma / alpha)`` of every entry, from products taken in float64."""
    log_alpha_bar = torch.log1p(-betas_of(schedule)).cumsum(0)
    log_edm_sigma = (torch.log(-torch.expm1(log_alpha_bar)) - log_alpha_bar) / 2
    return log_edm_sigma.to(device, dtype)


def betas_of(schedule: DDPMTable) -> Float[Tensor, " steps"]:
    """The betas of a table, in float64.

    Source:
        As for :class:`DDPMTable`.
    """
    n = schedule.num_steps
    like: Any = {
        "dtype": torch.float64,
        "device": "cpu",
    }  # also while modules are built without data
    if schedule.betas == "linear":
        return torch.linspace(schedule.beta_start, schedule.beta_end, n, **like)
    if schedule.betas == "scaled_linear":
        start, end = math.sqrt(schedule.beta_start), math.sqrt(schedule.beta_end)
        return torch.linspace(start, end, n, **like) ** 2
    s, largest = 0.008, 0.999  # Nichol & Dhariwal 2021, section 3.2
    time = torch.arange(n + 1, **like) / n
    alpha_bar = torch.cos((time + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp_max(largest)
