"""How does the noise time of a training clip vary over its frames?

A network that makes a clip chunk by chunk sees frames that are done and frames that are not; with
one noise time for the whole clip it would never have seen that in training. As everywhere the
randomness stays outside: a rule turns uniform numbers into times.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.schedules import NoiseSchedule
from vdm.diffusion.times import TimeDistribution
from vdm.utils.choices import check_weights, random_count, split_choice

NUM_EXTRA = 2
"""Uniform numbers for a sample besides those for its frames."""

Uniforms = Float[Tensor, "b draws"]
FrameTime = Float[Tensor, "b t"]


class FrameTimes(ABC):
    """A rule that gives every frame of a training clip its noise time.

    A frame at time 0 is clean. There is nothing to predict in it, so it does not count in the loss.
    """

    @abstractmethod
    def sample(self, u: Uniforms, times: TimeDistribution, schedule: NoiseSchedule) -> FrameTime:
        """The times of all frames.

        Args:
            u: Uniform numbers in [0, 1) for every sample: one for a time that frames share, one for
                a choice, then one per frame.
            times: The distribution of noise times.
            schedule: The schedule that the times are for.
        """


@dataclass(frozen=True)
class SharedTime(FrameTimes):
    """All frames have the same time: the plain training of whole clips."""

    def sample(self, u: Uniforms, times: TimeDistribution, schedule: NoiseSchedule) -> FrameTime:
        """One time, repeated."""
        return repeat(times.sample(u[:, 0], schedule), "b -> b t", t=u.shape[1] - NUM_EXTRA)


@dataclass(frozen=True)
class IndependentTimes(FrameTimes):
    """Every frame has a time of its own: Diffusion Forcing.

    Args:
        times: Their distribution, e.g. uniform, so that nearly clean frames are frequent; that of
            the loss if not given.

    Source:
        Chen et al. 2024, "Diffusion Forcing: Next-token Prediction Meets Full-Sequence Diffusion",
        arXiv:2407.01392, algorithm 1.
    """

    times: TimeDistribution | None = None

    def sample(self, u: Uniforms, times: TimeDistribution, schedule: NoiseSchedule) -> FrameTime:
        """One time per frame."""
        return (self.times or times).sample(u[:, NUM_EXTRA:], schedule)


@dataclass(frozen=True)
class CleanPast(FrameTimes):
    """The first frames are clean, the others share a time: teacher forcing.

    The number of clean frames is random, each being as likely; at least one frame is noisy.

    Args:
        least: Fewest clean frames.
        most: Most clean frames; all but the last one if not given.

    Raises:
        ValueError: If the counts are negative or not in order.
    """

    least: int = 0
    most: int | None = None

    def __post_init__(self) -> None:
        """Check the counts."""
        if self.least < 0:
            raise ValueError(f"got least={self.least}, expected at least 0")
        if self.most is not None and self.most < self.least:
            raise ValueError(f"got most={self.most}, expected at least {self.least}")

    def sample(self, u: Uniforms, times: TimeDistribution, schedule: NoiseSchedule) -> FrameTime:
        """Zero for the past, one time for the rest."""
        num_frames = u.shape[1] - NUM_EXTRA
        count = random_count(u[:, 1:2], self.least, self.most, num_frames)
        noisy = torch.arange(num_frames, device=u.device) >= count
        return noisy * times.sample(u[:, 0], schedule).unsqueeze(1)


@dataclass(frozen=True)
class MixedTimes(FrameTimes):
    """One of several rules, drawn for every sample.

    Args:
        rules: The rules.
        weights: How likely each is, up to a common factor.

    Raises:
        ValueError: If there is not one non-negative weight per rule, or all are zero.
    """

    rules: Sequence[FrameTimes]
    weights: Sequence[float]

    def __post_init__(self) -> None:
        """Check the weights."""
        check_weights(len(self.rules), self.weights)

    def sample(self, u: Uniforms, times: TimeDistribution, schedule: NoiseSchedule) -> FrameTime:
        """The number for a choice says which rule; what is left of it is uniform again."""
        result = u.new_zeros(len(u), u.shape[1] - NUM_EXTRA)
        for index, mine, left in split_choice(u[:, 1:2], self.weights):
            rest = torch.cat((u[:, :1], left, u[:, 2:]), dim=1)
            result = torch.where(mine, self.rules[index].sample(rest, times, schedule), result)
        return result
