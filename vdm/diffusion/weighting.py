"""How much does each noise level count in the loss?

A weighting says how the squared errors of ``x0`` and of ``eps`` that a prediction implies are to
be weighed; :meth:`Target.error_scales` turns that into the weight of the squared error of the
prediction itself. So one weighting is one objective, whatever the network predicts. The two errors
differ by the SNR only, ``|eps error|**2 = SNR * |x0 error|**2``: having both keeps every weight
finite where ``alpha`` or ``sigma`` is zero.
"""

# ruff: noqa: D102 -- what the methods mean is said once, on the abstract class

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.schedules import NoiseSchedule
from vdm.diffusion.targets import Target

Time = Float[Tensor, " b *frames"]
"""One per sample, or one per frame."""


class Weighting(ABC):
    """The weight of a squared error in the prediction of a target."""

    @abstractmethod
    def __call__(self, schedule: NoiseSchedule, target: Target, t: Time) -> Time:
        """Weight per sample or frame."""


def weight_from_errors(
    schedule: NoiseSchedule, target: Target, t: Time, on_x0: Time, on_eps: Time
) -> Time:
    """What to weigh the prediction's error with, to weigh those of ``x0`` and ``eps`` as given.

    Args:
        schedule: The noise schedule.
        target: What is predicted.
        t: Noise times.
        on_x0: Weight of the squared error in ``x0``.
        on_eps: Weight of the squared error in ``eps``.
    """
    x0_scale, eps_scale = target.error_scales(schedule, t)
    # a scale may be infinite where its weight is 0
    x0_part = torch.where(on_x0 > 0, on_x0 * x0_scale**2, 0)
    eps_part = torch.where(on_eps > 0, on_eps * eps_scale**2, 0)
    return x0_part + eps_part


@dataclass(frozen=True)
class Constant(Weighting):
    """The plain squared error of whatever is predicted: a different objective for every target.

    Source:
        Ho et al. 2020, arXiv:2006.11239, eq. 14.
    """

    def __call__(self, schedule: NoiseSchedule, target: Target, t: Time) -> Time:
        return torch.ones_like(t)


@dataclass(frozen=True)
class SNR(Weighting):
    """The squared error of ``eps``: the SNR on ``x0``.

    Source:
        Salimans & Ho 2022, arXiv:2202.00512, eq. 9.
    """

    def __call__(self, schedule: NoiseSchedule, target: Target, t: Time) -> Time:
        return weight_from_errors(schedule, target, t, torch.zeros_like(t), torch.ones_like(t))


@dataclass(frozen=True)
class TruncatedSNR(Weighting):
    """``max(SNR, 1)`` on ``x0``: the larger of the errors of ``x0`` and ``eps``.

    Source:
        Salimans & Ho 2022, arXiv:2202.00512, section 4.
    """

    def __call__(self, schedule: NoiseSchedule, target: Target, t: Time) -> Time:
        mostly_signal = (schedule.log_snr(t) > 0).to(t.dtype)
        return weight_from_errors(schedule, target, t, 1 - mostly_signal, mostly_signal)


@dataclass(frozen=True)
class MinSNR(Weighting):
    """``min(SNR, gamma)`` on ``x0``.

    Args:
        gamma: Where the weight stops growing.

    Source:
        Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy",
        arXiv:2303.09556, section 3.4 (there for ``x0``; here exact for every target).
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"got gamma={self.gamma}, expected more than 0, e.g. 5")

    def __call__(self, schedule: NoiseSchedule, target: Target, t: Time) -> Time:
        capped = (schedule.log_snr(t) > math.log(self.gamma)).to(t.dtype)
        return weight_from_errors(schedule, target, t, self.gamma * capped, 1 - capped)


@dataclass(frozen=True)
class EDMWeighting(Weighting):
    """``1 / sigma_data**2 + SNR`` on ``x0``: unit weight on the raw output of EDM's network.

    Args:
        sigma_data: Standard deviation of the data. With 1 this is the squared error of ``v``.

    Source:
        Karras et al. 2022, arXiv:2206.00364, table 1 (``lambda(sigma)``).
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise ValueError(f"got sigma_data={self.sigma_data}, expected more than 0, e.g. 0.5")

    def __call__(self, schedule: NoiseSchedule, target: Target, t: Time) -> Time:
        on_x0 = torch.full_like(t, self.sigma_data**-2)
        return weight_from_errors(schedule, target, t, on_x0, torch.ones_like(t))


@dataclass(frozen=True)
class Sigmoid(Weighting):
    """``sigmoid(bias - log_snr)`` on ``eps``: a soft :class:`MinSNR` with ``gamma = exp(bias)``.

    Args:
        bias: The log-SNR above which the weight falls.

    Source:
        Kingma & Gao 2023, arXiv:2303.00848, and Hoogeboom et al. 2024, "Simpler Diffusion",
        arXiv:2410.19324, sigmoid weighting; the bias is theirs.
    """

    bias: float = 2.0

    def __call__(self, schedule: NoiseSchedule, target: Target, t: Time) -> Time:
        log_snr = schedule.log_snr(t)
        mostly_signal = log_snr > self.bias
        # sigmoid(b - l) on eps equals exp(b) sigmoid(l - b) on x0, which is finite at sigma = 0
        capped = math.exp(self.bias) * torch.sigmoid(log_snr - self.bias)
        on_x0 = torch.where(mostly_signal, capped, 0)
        on_eps = torch.where(mostly_signal, 0, torch.sigmoid(self.bias - log_snr))
        return weight_from_errors(schedule, target, t, on_x0, on_eps)
