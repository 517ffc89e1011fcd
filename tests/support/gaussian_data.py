"""Data whose exact denoiser is known: independent Gaussian entries. The oracle of the samplers."""

from dataclasses import dataclass

import torch

from vdm.diffusion.schedules import NoiseSchedule
from vdm.diffusion.shifted_schedules import Shifted, shift_time
from vdm.diffusion.targets import Target
from vdm.types import Denoise
from vdm.utils.tensors import expand_as


@dataclass(frozen=True)
class GaussianData:
    """Entries of ``x0`` drawn from ``N(mean, std**2)``."""

    mean: float = 0.3
    std: float = 0.5

    def marginal(self, schedule: NoiseSchedule, t: torch.Tensor):
        """Mean and standard deviation of ``xt``."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return alpha * self.mean, torch.hypot(alpha * self.std, sigma)

    def denoiser(self, schedule: NoiseSchedule) -> Denoise:
        """The posterior mean of ``x0``."""

        def gain(t):
            mean, std = self.marginal(schedule, t)
            return mean, schedule.alpha(t) * self.std**2 / std**2

        return self._affine(gain)

    def flow(self, schedule: NoiseSchedule, x, t_from: float, t_to: float):
        """Where the probability-flow equation takes ``x``."""
        (mean, std), (mean_to, std_to) = (
            self.marginal(schedule, torch.tensor(t, dtype=torch.float64)) for t in (t_from, t_to)
        )
        return mean_to + std_to / std * (x - mean)

    def consistency(self, schedule: NoiseSchedule) -> Denoise:
        """The exact consistency function: the flow to clean data."""

        def gain(t):
            mean, std = self.marginal(schedule, t)
            return mean, self.std / std

        return self._affine(gain)

    def _affine(self, gain) -> Denoise:
        remembered = {}  # schedules are dear where annotations are checked, and grids are shared

        def estimate(xt, t):
            key = (*t.tolist(), t.dtype)
            if key not in remembered:
                remembered[key] = gain(t)
            mean, factor = (expand_as(value, xt) for value in remembered[key])
            return self.mean + factor * (xt - mean)

        return estimate


def as_network(denoise: Denoise, schedule: NoiseSchedule, target: Target):
    """A network that is told ``1000 * path_time`` and predicts ``target`` as the denoiser would."""

    def network(x, c_noise, cond):
        t = c_noise / 1000
        if isinstance(schedule, Shifted):
            t = shift_time(t, 1 / schedule.shift)
        return target.from_x0(schedule, x, denoise(x, t), t)

    return network


class UnitNoise:
    """Noise that gives every draw its own entry, so that each shows in the result by itself.

    ``x`` is ``(2, entries)``; the first sample is given no noise. Samplers are linear in theirs, so
    the variance of a sample is the sum of the squares of what tells the two apart: exact, by no
    chance.
    """

    def __init__(self) -> None:
        self.draws = 0

    def __call__(self, like):
        self.draws += 1
        one = torch.zeros_like(like)
        one[1, self.draws] = 1
        return one


def sample_mean_and_std(sampler, denoise, schedule, times, **options):
    """Exact mean and standard deviation of what a sampler makes from unit noise times the prior."""
    entries = 2 + len(times)
    start = torch.zeros(2, entries, dtype=torch.float64)
    start[1, 0] = schedule.prior_std(float(times[0]))
    still, moved = sampler(denoise, schedule, start, times, noise=UnitNoise(), **options)
    return float(still[-1]), float((moved - still).square().sum().sqrt())
