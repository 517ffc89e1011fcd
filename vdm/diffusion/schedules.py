"""How much signal and how much noise is there at time ``t``?

A schedule is the pair ``alpha(t), sigma(t)`` of ``xt = alpha * x0 + sigma * eps`` for ``t`` in
[0, 1], 0 clean and 1 pure noise, with its exact derivatives, its log-SNR and the inverse of that.
Everything else in this package is written in these terms, so it works on every schedule. Methods
are elementwise and compute in the precision of ``t``, which should be float32 or float64.

Continuous schedules are here; the discrete tables of DDPM are in ``discrete_schedules.py``, and
schedules made from other schedules in ``shifted_schedules.py``.
"""

# ruff: noqa: D102 -- what the methods mean is said once, on the abstract class

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from vdm.utils.tensors import expand_as

Times = Float[Tensor, "..."]
Sample = Float[Tensor, " b *shape"]
"""Latents ``(b, c, t, h, w)``; the mathematics is elementwise, so any shape will do."""


def at_least_float32(values: Tensor) -> Tensor:
    """Raise half precision to float32; leave float32 and float64 alone."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class NoiseSchedule(ABC):
    """The path from data to noise: ``xt = alpha(t) * x0 + sigma(t) * eps``.

    Source:
        Kingma et al. 2021, "Variational Diffusion Models", arXiv:2107.00630, eq. 1.
    """

    @abstractmethod
    def alpha(self, t: Times) -> Times:
        """Coefficient of the clean sample."""

    @abstractmethod
    def sigma(self, t: Times) -> Times:
        """Coefficient of the noise."""

    @abstractmethod
    def alpha_dot(self, t: Times) -> Times:
        """Derivative of ``alpha``."""

    @abstractmethod
    def sigma_dot(self, t: Times) -> Times:
        """Derivative of ``sigma``."""

    @abstractmethod
    def t_from_log_snr(self, log_snr: Times) -> Times:
        """The time at which the log-SNR has this value; 1 if the schedule never gets so noisy."""

    @property
    def t_first(self) -> float:
        """The least noisy time that training visits: 0, or that of the first entry of a table."""
        return 0.0

    def path_time(self, t: Times) -> Times:
        """Time on the unshifted path, which is what networks are told (see ``Shifted``)."""
        return t

    def log_snr(self, t: Times) -> Times:
        """``2 * log(alpha / sigma)``, decreasing, infinite where one of the two is zero.

        Source:
            Kingma et al. 2021, arXiv:2107.00630, eq. 2.
        """
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def edm_sigma(self, t: Times) -> Times:
        """``sigma / alpha``: the noise level of ``xt / alpha``.

        Source:
            Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
            arXiv:2206.00364, section 2 (their ``sigma``).
        """
        return self.sigma(t) / self.alpha(t)

    def t_from_edm_sigma(self, edm_sigma: Times) -> Times:
        """The inverse of :meth:`edm_sigma`."""
        return self.t_from_log_snr(-2 * edm_sigma.log())

    def prior_std(self, t: float = 1.0) -> float:
        """Standard deviation of ``xt`` for data of unit variance.

        Args:
            t: The time.
        """
        time = torch.tensor(t, dtype=torch.float64, device="cpu")
        return math.hypot(self.alpha(time), self.sigma(time))

    def start_std(self, t: float = 1.0) -> float:
        """Unit noise times this is what a sampler starts from.

        Args:
            t: The time at which sampling starts.
        """
        return self.prior_std(t)

    def add_noise(self, x0: Sample, eps: Sample, t: Float[Tensor, " b *frames"]) -> Sample:
        """Move clean latents to noise time ``t``.

        Args:
            x0: Clean latents, unit variance per channel.
            eps: Standard normal noise.
            t: Noise times in [0, 1], one per sample, or one per frame ``(b, t)``; 0 is clean, 1 is
                pure noise.

        Returns:
            Noisy latents ``xt``, in the precision of ``x0``.

        Raises:
            ValueError: If ``t`` does not hold one time per sample or frame.

        Source:
            Kingma et al. 2021, arXiv:2107.00630, eq. 1.
        """
        check_times(t, x0)
        t = at_least_float32(t)
        xt = expand_as(self.alpha(t), x0) * x0 + expand_as(self.sigma(t), x0) * eps
        return xt.to(x0.dtype)


def check_times(t: Tensor, x: Tensor) -> None:
    """Refuse times that are neither one per sample of ``x`` nor one per frame.

    Raises:
        ValueError: If ``t`` is of neither shape, ``(b,)`` or ``(b, t)``.
    """
    per_frame = (x.shape[0], x.shape[2]) if x.ndim > 2 else None
    if t.shape != x.shape[:1] and tuple(t.shape) != per_frame:
        also = "" if per_frame is None else f", or {per_frame}: one per frame"
        raise ValueError(
            f"got times of shape {tuple(t.shape)}, expected ({x.shape[0]},): one per sample{also}"
        )


@dataclass(frozen=True)
class LinearPath(NoiseSchedule):
    """The straight path of rectified flow: ``alpha = 1 - t``, ``sigma = t``.

    Source:
        Liu et al. 2022, "Flow Straight and Fast", arXiv:2209.03003, eq. 1; Lipman et al. 2022,
        arXiv:2210.02747, eq. 20-22 with ``sigma_min = 0``. Their time runs the other way.
    """

    def alpha(self, t: Times) -> Times:
        return 1 - t

    def sigma(self, t: Times) -> Times:
        return t.clone()

    def alpha_dot(self, t: Times) -> Times:
        return -torch.ones_like(t)

    def sigma_dot(self, t: Times) -> Times:
        return torch.ones_like(t)

    def t_from_log_snr(self, log_snr: Times) -> Times:
        return torch.sigmoid(-log_snr / 2)


@dataclass(frozen=True)
class Cosine(NoiseSchedule):
    """A quarter of a circle: ``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)``.

    Source:
        Salimans & Ho 2022, "Progressive Distillation", arXiv:2202.00512, section 2. The offset and
        the clipping of Nichol & Dhariwal 2021 are in ``DDPMTable(betas="squaredcos")``.
    """

    def alpha(self, t: Times) -> Times:
        return torch.sin(math.pi / 2 * (1 - t))  # exactly 0 at t = 1, which the cosine is not

    def sigma(self, t: Times) -> Times:
        return torch.sin(math.pi / 2 * t)

    def alpha_dot(self, t: Times) -> Times:
        return -math.pi / 2 * self.sigma(t)

    def sigma_dot(self, t: Times) -> Times:
        return math.pi / 2 * self.alpha(t)

    def t_from_log_snr(self, log_snr: Times) -> Times:
        return 2 / math.pi * torch.atan(torch.exp(-log_snr / 2))


@dataclass(frozen=True)
class EDM(NoiseSchedule):
    """Variance exploding: ``alpha = 1`` and ``sigma = sigma_max * t``.

    Args:
        sigma_max: Noise level at ``t = 1``: 80 in EDM, 700 in Stable Video Diffusion.

    Source:
        Karras et al. 2022, arXiv:2206.00364, table 1 (``sigma(t) = t``, ``s(t) = 1``).
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not self.sigma_max > 0:
            raise ValueError(f"got sigma_max={self.sigma_max}, expected more than 0, e.g. 80")

    def alpha(self, t: Times) -> Times:
        return torch.ones_like(t)

    def sigma(self, t: Times) -> Times:
        return self.sigma_max * t

    def alpha_dot(self, t: Times) -> Times:
        return torch.zeros_like(t)

    def sigma_dot(self, t: Times) -> Times:
        return torch.full_like(t, self.sigma_max)

    def t_from_log_snr(self, log_snr: Times) -> Times:
        return (torch.exp(-log_snr / 2) / self.sigma_max).clamp_max(1)


def _check_betas(beta_min: float, beta_max: float) -> None:
    if not 0 < beta_min < beta_max:
        raise ValueError(
            f"got beta_min={beta_min}, beta_max={beta_max}, expected 0 < beta_min < beta_max"
        )


@dataclass(frozen=True)
class VPLinear(NoiseSchedule):
    """The variance-preserving SDE with linear ``beta(t) = beta_min + t (beta_max - beta_min)``.

    With ``B(t)`` the integral of ``beta``: ``alpha = exp(-B / 2)``, ``sigma = sqrt(1 - exp(-B))``.

    Args:
        beta_min: Rate at ``t = 0``; 1000 times the first beta of DDPM.
        beta_max: Rate at ``t = 1``.

    Source:
        Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential
        Equations", arXiv:2011.13456, eq. 32-33.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _check_betas(self.beta_min, self.beta_max)

    def _beta(self, t: Times) -> Times:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def _integral(self, t: Times) -> Times:
        return self.beta_min * t + (self.beta_max - self.beta_min) / 2 * t**2

    def alpha(self, t: Times) -> Times:
        return torch.exp(-self._integral(t) / 2)

    def sigma(self, t: Times) -> Times:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def alpha_dot(self, t: Times) -> Times:
        return -self._beta(t) / 2 * self.alpha(t)

    def sigma_dot(self, t: Times) -> Times:
        return self._beta(t) / 2 * self.alpha(t) ** 2 / self.sigma(t)

    def t_from_log_snr(self, log_snr: Times) -> Times:
        integral = softplus(-log_snr)
        slope = self.beta_max - self.beta_min
        root = torch.sqrt((self.beta_min / integral) ** 2 + 2 * slope / integral)
        return (2 / (self.beta_min / integral + root)).clamp_max(1)


@dataclass(frozen=True)
class ScaledLinear(NoiseSchedule):
    """The variance-preserving SDE whose ``sqrt(beta(t))`` is linear, as in latent diffusion.

    The limit of ``DDPMTable(betas="scaled_linear")`` for many steps; a model trained on the table
    should be given the table.

    Args:
        beta_min: Rate at ``t = 0``; 1000 times the first beta of the table.
        beta_max: Rate at ``t = 1``.

    Source:
        Song et al. 2021, arXiv:2011.13456, eq. 29, with the betas of Rombach et al. 2022,
        "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv:2112.10752.
    """

    beta_min: float = 0.85
    beta_max: float = 12.0

    def __post_init__(self) -> None:
        _check_betas(self.beta_min, self.beta_max)

    @property
    def _slope(self) -> float:
        return math.sqrt(self.beta_max) - math.sqrt(self.beta_min)

    def _beta(self, t: Times) -> Times:
        return (math.sqrt(self.beta_min) + self._slope * t) ** 2

    def _integral(self, t: Times) -> Times:
        root = math.sqrt(self.beta_min)
        return t * (self.beta_min + root * self._slope * t + self._slope**2 / 3 * t**2)

    def alpha(self, t: Times) -> Times:
        return torch.exp(-self._integral(t) / 2)

    def sigma(self, t: Times) -> Times:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def alpha_dot(self, t: Times) -> Times:
        return -self._beta(t) / 2 * self.alpha(t)

    def sigma_dot(self, t: Times) -> Times:
        return self._beta(t) / 2 * self.alpha(t) ** 2 / self.sigma(t)

    def t_from_log_snr(self, log_snr: Times) -> Times:
        # (a + s t)^3 = a^3 + 3 s B, solved for t without cancellation where B is small
        a, s = math.sqrt(self.beta_min), self._slope
        ratio = 3 * s / a**3 * softplus(-log_snr)
        return (a / s * torch.expm1(torch.log1p(ratio) / 3)).clamp_max(1)
