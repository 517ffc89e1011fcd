"""How large is the learning rate at a step? A factor on the peak rate, from the step alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


class RateSchedule(ABC):
    """The factor on the peak learning rate at every step of a run."""

    @abstractmethod
    def factor(self, step: int, total_steps: int) -> float:
        """The factor at a step.

        Args:
            step: Optimiser steps taken so far.
            total_steps: Steps of the whole run; -1 where it has no end.
        """

    def check(self, total_steps: int) -> None:  # noqa: B027 (most schedules take any length)
        """Refuse a run of a length that the schedule cannot have.

        Raises:
            ValueError: If it is.
        """


def _warm(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))


def _need_end(schedule: RateSchedule, total_steps: int) -> None:
    if total_steps < 1:
        raise ValueError(
            f"got trainer.max_steps={total_steps}, expected at least 1: "
            f"{type(schedule).__name__} ends at the last step"
        )


@dataclass(frozen=True)
class ConstantRate(RateSchedule):
    """The peak rate after a linear warm-up.

    Args:
        warmup_steps: Steps of the warm-up.
    """

    warmup_steps: int = 0

    def factor(self, step: int, total_steps: int) -> float:
        """1 after the warm-up."""
        return _warm(step, self.warmup_steps)


@dataclass(frozen=True)
class CosineRate(RateSchedule):
    """Half a cosine from the peak rate to its last share, after a linear warm-up.

    Args:
        warmup_steps: Steps of the warm-up.
        last: Factor at the end of the run.

    Source:
        Loshchilov & Hutter 2017, "SGDR", arXiv:1608.03983, eq. 5, without restarts.
    """

    warmup_steps: int = 0
    last: float = 0.0

    def factor(self, step: int, total_steps: int) -> float:
        """Falls from 1 to ``last`` after the warm-up."""
        span = max(1, total_steps - self.warmup_steps)
        done = min(1.0, max(0, step - self.warmup_steps) / span)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return _warm(step, self.warmup_steps) * (self.last + (1 - self.last) * cosine)

    def check(self, total_steps: int) -> None:
        """Needs an end."""
        _need_end(self, total_steps)


@dataclass(frozen=True)
class TrapezoidRate(RateSchedule):
    """The peak rate, with a linear way up before it and a linear way down to zero at the end.

    Args:
        warmup_steps: Steps of the warm-up.
        decay: Share of the run in which the rate falls.

    Raises:
        ValueError: If the share is not in [0, 1].

    Source:
        Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
        Durations", arXiv:2405.18392, eq. 1.
    """

    warmup_steps: int = 0
    decay: float = 0.3

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 <= self.decay <= 1:
            raise ValueError(f"got decay={self.decay}, expected a number in [0, 1]")

    def factor(self, step: int, total_steps: int) -> float:
        """1 in the middle."""
        falling = self.decay * total_steps
        down = min(1.0, max(0, total_steps - step) / falling) if falling >= 1 else 1.0
        return min(_warm(step, self.warmup_steps), down)

    def check(self, total_steps: int) -> None:
        """Needs an end."""
        _need_end(self, total_steps)
