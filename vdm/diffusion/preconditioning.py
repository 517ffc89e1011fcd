"""How is the network spoken to: scale of its input, units of the noise level, scale of its output?

The network sees ``c_in * xt`` and ``c_noise``; its raw output becomes the prediction of the target
as ``c_skip * xt + c_out * raw``.
"""

# ruff: noqa: D102 -- what the methods mean is said once, on the abstract class

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.schedules import NoiseSchedule
from vdm.diffusion.targets import X0, Target

Time = Float[Tensor, " b *frames"]
"""One per sample, or one per frame."""


class Preconditioning(ABC):
    """Scales around the network. By default only the noise level is translated.

    ``target`` is the class of the one target that the output scales are made for, if there is one.

    Source:
        Karras et al. 2022, arXiv:2206.00364, eq. 7 and table 1, for inputs ``xt`` of any schedule.
    """

    target: ClassVar[type[Target] | None] = None

    @abstractmethod
    def c_noise(self, schedule: NoiseSchedule, t: Time) -> Time:
        """The noise level in the units of the network."""

    def c_in(self, schedule: NoiseSchedule, t: Time) -> Time:
        """Scale of the network's input."""
        return torch.ones_like(t)

    def c_skip(self, schedule: NoiseSchedule, t: Time) -> Time:
        """Share of ``xt`` in the prediction."""
        return torch.zeros_like(t)

    def c_out(self, schedule: NoiseSchedule, t: Time) -> Time:
        """Scale of the network's output in the prediction."""
        return torch.ones_like(t)

    def check_target(self, target: Target) -> None:
        """Refuse a target that the output scales are not made for.

        Raises:
            ValueError: If predictions of ``target`` are not what ``c_skip`` and ``c_out`` produce.
        """
        if self.target is not None and type(target) is not self.target:
            raise ValueError(
                f"{type(self).__name__} makes predictions of {self.target.__name__}: "
                f"got target {type(target).__name__}, expected {self.target.__name__}"
            )


@dataclass(frozen=True)
class NoPreconditioning(Preconditioning):
    """The network predicts the target itself and is told ``scale * t``.

    Args:
        scale: Largest value of ``c_noise``; flow models are told 0 to 1000.

    Source:
        Esser et al. 2024, arXiv:2403.03206, section 3, in the units of the released models.
    """

    scale: float = 1000.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"got scale={self.scale}, expected more than 0, e.g. 1000")

    def c_noise(self, schedule: NoiseSchedule, t: Time) -> Time:
        return self.scale * schedule.path_time(t)


@dataclass(frozen=True)
class WholeTimesteps(Preconditioning):
    """The network predicts the target itself and is told ``scale * t`` rounded down.

    Args:
        scale: Largest value of ``c_noise``.

    Source:
        Wan team 2025, arXiv:2503.20314, the released models.
    """

    scale: float = 1000.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"got scale={self.scale}, expected more than 0, e.g. 1000")

    def c_noise(self, schedule: NoiseSchedule, t: Time) -> Time:
        return torch.floor(self.scale * schedule.path_time(t))


@dataclass(frozen=True)
class DiscreteTimesteps(Preconditioning):
    """The network is told the index of the DDPM table, 0 to ``num_steps - 1``.

    Times between the entries give fractions; those within rounding of an entry give it exactly.

    Args:
        num_steps: Entries of the table.

    Source:
        Ho et al. 2020, arXiv:2006.11239, section 3.2.
    """

    num_steps: int = 1000

    def __post_init__(self) -> None:
        if self.num_steps < 2:
            raise ValueError(f"got num_steps={self.num_steps}, expected at least 2, e.g. 1000")

    def c_noise(self, schedule: NoiseSchedule, t: Time) -> Time:
        index = self.num_steps * schedule.path_time(t) - 1
        nearest = index.round()
        rounding = 1e-6 * self.num_steps  # of a float32 time, with a margin
        return torch.where((index - nearest).abs() < rounding, nearest, index)


def _log_edm_sigma(schedule: NoiseSchedule, t: Time) -> Time:
    """``log(sigma / alpha)``, kept finite where one of the two is zero."""
    return (-schedule.log_snr(t) / 2).clamp(-20, 20)  # float32 times reach 17 on the linear path


@dataclass(frozen=True)
class EDMPreconditioning(Preconditioning):
    """Input, output and training target of unit variance for data of variance ``sigma_data**2``.

    Written in ``alpha`` and ``sigma``; for ``alpha = 1`` it is the EDM column of the table. Defined
    for the target ``X0`` (the raw output is then the ``F`` of the paper).

    Args:
        sigma_data: Standard deviation of the data: 0.5 in EDM, 1 for normalised latents.

    Source:
        Karras et al. 2022, arXiv:2206.00364, table 1, column EDM.
    """

    target: ClassVar[type[Target]] = X0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise ValueError(f"got sigma_data={self.sigma_data}, expected more than 0, e.g. 0.5")

    def _variance(self, schedule: NoiseSchedule, t: Time) -> Time:
        return schedule.sigma(t) ** 2 + (schedule.alpha(t) * self.sigma_data) ** 2

    def c_in(self, schedule: NoiseSchedule, t: Time) -> Time:
        return self._variance(schedule, t).rsqrt()

    def c_skip(self, schedule: NoiseSchedule, t: Time) -> Time:
        return self.sigma_data**2 * schedule.alpha(t) / self._variance(schedule, t)

    def c_out(self, schedule: NoiseSchedule, t: Time) -> Time:
        return self.sigma_data * schedule.sigma(t) * self._variance(schedule, t).rsqrt()

    def c_noise(self, schedule: NoiseSchedule, t: Time) -> Time:
        return _log_edm_sigma(schedule, t) / 4


@dataclass(frozen=True)
class SVDPreconditioning(Preconditioning):
    """EDM's scales with ``sigma_data = 1`` for a network that predicts ``v``, as in SVD.

    The raw output is the ``v`` of the variance-preserving rescaling of ``xt``, so ``c_out`` is that
    of EDM with its sign changed. Defined for the target ``X0``.

    Source:
        Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, and its released
        configuration (``VScaling`` of the authors' code).
    """

    target: ClassVar[type[Target]] = X0

    def c_in(self, schedule: NoiseSchedule, t: Time) -> Time:
        return torch.rsqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)

    def c_skip(self, schedule: NoiseSchedule, t: Time) -> Time:
        return schedule.alpha(t) * self.c_in(schedule, t) ** 2

    def c_out(self, schedule: NoiseSchedule, t: Time) -> Time:
        return -schedule.sigma(t) * self.c_in(schedule, t)

    def c_noise(self, schedule: NoiseSchedule, t: Time) -> Time:
        return _log_edm_sigma(schedule, t) / 4
