"""What does the network predict, and what does a prediction say about ``x0`` and ``eps``?

Every target is a combination ``a(t) * x0 + b(t) * eps``; with ``xt = alpha * x0 + sigma * eps`` it
determines both. Two limits have no answer and are given the mean of what is unknown, which is 0 for
normalised data: ``eps`` where ``sigma = 0`` (a clean sample does not tell), and ``x0`` from a
prediction of ``eps`` where ``alpha = 0`` (pure noise does not tell).
"""

# ruff: noqa: D102 -- what the methods mean is said once, on the abstract class

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.schedules import NoiseSchedule, Sample, at_least_float32, check_times
from vdm.utils.tensors import expand_as

Time = Float[Tensor, " b *frames"]
"""One per sample, or one per frame."""


def _coefficients(schedule: NoiseSchedule, t: Time, like: Tensor) -> tuple[Tensor, Tensor]:
    check_times(t, like)
    t = at_least_float32(t)
    return expand_as(schedule.alpha(t), like), expand_as(schedule.sigma(t), like)


def _rates(schedule: NoiseSchedule, t: Time, like: Tensor) -> tuple[Tensor, Tensor]:
    t = at_least_float32(t)
    return expand_as(schedule.alpha_dot(t), like), expand_as(schedule.sigma_dot(t), like)


def _divide_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator``, and 0 where the denominator is 0."""
    zero = denominator == 0
    return torch.where(zero, 0, numerator / torch.where(zero, 1, denominator))


def x0_from_eps(schedule: NoiseSchedule, xt: Sample, eps: Sample, t: Time) -> Sample:
    """``x0 = (xt - sigma * eps) / alpha``; 0 where ``alpha`` is 0.

    Source:
        Ho et al. 2020, arXiv:2006.11239, eq. 15.
    """
    alpha, sigma = _coefficients(schedule, t, xt)
    return _divide_or_zero(xt - sigma * eps, alpha)


def eps_from_x0(schedule: NoiseSchedule, xt: Sample, x0: Sample, t: Time) -> Sample:
    """``eps = (xt - alpha * x0) / sigma``; 0 where ``sigma`` is 0.

    Source:
        Song et al. 2021, "Denoising Diffusion Implicit Models", arXiv:2010.02502, eq. 4.
    """
    alpha, sigma = _coefficients(schedule, t, xt)
    return _divide_or_zero(xt - alpha * x0, sigma)


def x0_from_v(schedule: NoiseSchedule, xt: Sample, v: Sample, t: Time) -> Sample:
    """``x0 = (alpha * xt - sigma * v) / (alpha**2 + sigma**2)``.

    Source:
        Salimans & Ho 2022, arXiv:2202.00512, appendix D, with the denominator that schedules need
        which do not preserve variance.
    """
    alpha, sigma = _coefficients(schedule, t, xt)
    return (alpha * xt - sigma * v) / (alpha**2 + sigma**2)


def eps_from_v(schedule: NoiseSchedule, xt: Sample, v: Sample, t: Time) -> Sample:
    """``eps = (sigma * xt + alpha * v) / (alpha**2 + sigma**2)``.

    Source:
        As for :func:`x0_from_v`.
    """
    alpha, sigma = _coefficients(schedule, t, xt)
    return (sigma * xt + alpha * v) / (alpha**2 + sigma**2)


def x0_from_velocity(schedule: NoiseSchedule, xt: Sample, velocity: Sample, t: Time) -> Sample:
    """``x0 = (sigma' * xt - sigma * velocity) / (alpha * sigma' - sigma * alpha')``.

    Source:
        Lipman et al. 2022, "Flow Matching", arXiv:2210.02747, eq. 15, solved for ``x0``.
    """
    alpha, sigma = _coefficients(schedule, t, xt)
    alpha_dot, sigma_dot = _rates(schedule, t, xt)
    wronskian = alpha * sigma_dot - sigma * alpha_dot
    # sigma' is infinite at t = 0 of the variance-preserving SDEs: there xt = alpha * x0
    share = torch.where(sigma_dot.isinf(), 1 / alpha, sigma_dot / wronskian)
    return share * xt - sigma / wronskian * velocity


def eps_from_velocity(schedule: NoiseSchedule, xt: Sample, velocity: Sample, t: Time) -> Sample:
    """``eps = (alpha * velocity - alpha' * xt) / (alpha * sigma' - sigma * alpha')``.

    Source:
        As for :func:`x0_from_velocity`, solved for ``eps``.
    """
    alpha, sigma = _coefficients(schedule, t, xt)
    alpha_dot, sigma_dot = _rates(schedule, t, xt)
    wronskian = alpha * sigma_dot - sigma * alpha_dot
    return alpha / wronskian * velocity - alpha_dot / wronskian * xt


class Target(ABC):
    """What the network is trained to predict."""

    @abstractmethod
    def __call__(self, schedule: NoiseSchedule, x0: Sample, eps: Sample, t: Time) -> Sample:
        """The regression target for a known sample and noise."""

    @abstractmethod
    def to_x0(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        """The clean sample that a prediction stands for."""

    @abstractmethod
    def to_eps(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        """The noise that a prediction stands for."""

    @abstractmethod
    def error_scales(self, schedule: NoiseSchedule, t: Time) -> tuple[Time, Time]:
        """How far off ``x0`` and ``eps`` are, per unit of error in the prediction.

        With ``D = alpha * b - sigma * a`` these are ``sigma / |D|`` and ``alpha / |D|``. The loss
        weightings are exact for every target because of them.
        """

    def from_x0(self, schedule: NoiseSchedule, xt: Sample, x0: Sample, t: Time) -> Sample:
        """The prediction that stands for a clean sample: the inverse of :meth:`to_x0`."""
        return self(schedule, x0, eps_from_x0(schedule, xt, x0, t), t)


@dataclass(frozen=True)
class X0(Target):
    """The clean sample.

    Source:
        Salimans & Ho 2022, arXiv:2202.00512, section 4.
    """

    def __call__(self, schedule: NoiseSchedule, x0: Sample, eps: Sample, t: Time) -> Sample:
        return x0

    def to_x0(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        return pred

    def to_eps(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        return eps_from_x0(schedule, xt, pred, t)

    def error_scales(self, schedule: NoiseSchedule, t: Time) -> tuple[Time, Time]:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return torch.ones_like(alpha), alpha / sigma


@dataclass(frozen=True)
class Eps(Target):
    """The noise. It carries nothing about ``x0`` where ``alpha = 0``: prefer another target there.

    Source:
        Ho et al. 2020, arXiv:2006.11239, eq. 14.
    """

    def __call__(self, schedule: NoiseSchedule, x0: Sample, eps: Sample, t: Time) -> Sample:
        return eps

    def to_x0(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        return x0_from_eps(schedule, xt, pred, t)

    def to_eps(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        return pred

    def error_scales(self, schedule: NoiseSchedule, t: Time) -> tuple[Time, Time]:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return sigma / alpha, torch.ones_like(alpha)


@dataclass(frozen=True)
class V(Target):
    """``v = alpha * eps - sigma * x0``: the direction of the path at constant variance.

    Source:
        Salimans & Ho 2022, arXiv:2202.00512, appendix D.
    """

    def __call__(self, schedule: NoiseSchedule, x0: Sample, eps: Sample, t: Time) -> Sample:
        alpha, sigma = _coefficients(schedule, t, x0)
        return alpha * eps - sigma * x0

    def to_x0(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        return x0_from_v(schedule, xt, pred, t)

    def to_eps(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        return eps_from_v(schedule, xt, pred, t)

    def error_scales(self, schedule: NoiseSchedule, t: Time) -> tuple[Time, Time]:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        square = alpha**2 + sigma**2
        return sigma / square, alpha / square


@dataclass(frozen=True)
class Velocity(Target):
    """``velocity = alpha' * x0 + sigma' * eps``, the time derivative of ``xt``.

    On the linear path this is ``eps - x0``, the target of rectified flow.

    Source:
        Lipman et al. 2022, arXiv:2210.02747, eq. 14-15; Liu et al. 2022, arXiv:2209.03003, eq. 1.
    """

    def __call__(self, schedule: NoiseSchedule, x0: Sample, eps: Sample, t: Time) -> Sample:
        check_times(t, x0)
        alpha_dot, sigma_dot = _rates(schedule, t, x0)
        return alpha_dot * x0 + sigma_dot * eps

    def to_x0(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        return x0_from_velocity(schedule, xt, pred, t)

    def to_eps(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        return eps_from_velocity(schedule, xt, pred, t)

    def error_scales(self, schedule: NoiseSchedule, t: Time) -> tuple[Time, Time]:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        wronskian = alpha * schedule.sigma_dot(t) - sigma * schedule.alpha_dot(t)
        return sigma / wronskian, alpha / wronskian


@dataclass(frozen=True)
class ReversedVelocity(Target):
    """Minus the velocity: from noise to data, on the linear path ``x0 - eps``.

    Source:
        Liu et al. 2022, arXiv:2209.03003, eq. 1, whose time runs from noise to data.
    """

    def __call__(self, schedule: NoiseSchedule, x0: Sample, eps: Sample, t: Time) -> Sample:
        return -Velocity()(schedule, x0, eps, t)

    def to_x0(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        return Velocity().to_x0(schedule, xt, -pred, t)

    def to_eps(self, schedule: NoiseSchedule, xt: Sample, pred: Sample, t: Time) -> Sample:
        return Velocity().to_eps(schedule, xt, -pred, t)

    def error_scales(self, schedule: NoiseSchedule, t: Time) -> tuple[Time, Time]:
        return Velocity().error_scales(schedule, t)
