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

        def denoise(xt, t):
            mean, std = (expand_as(value, xt) for value in self.marginal(schedule, t))
            gain = expand_as(schedule.alpha(t), xt) * self.std**2 / std**2
            return self.mean + gain * (xt - mean)

        return denoise

    def flow(self, schedule: NoiseSchedule, x, t_from: float, t_to: float):
        """Where the probability-flow equation takes ``x``."""
        (mean, std), (mean_to, std_to) = (
            self.marginal(schedule, torch.tensor(t, dtype=torch.float64)) for t in (t_from, t_to)
        )
        return mean_to + std_to / std * (x - mean)

    def consistency(self, schedule: NoiseSchedule) -> Denoise:
        """The exact consistency function: the flow to clean data."""

        def jump(xt, t):
            mean, std = (expand_as(value, xt) for value in self.marginal(schedule, t))
            return self.mean + self.std / std * (xt - mean)

        return jump


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

    ``x`` is flat, ``(1, entries)``. Samplers are linear in their noise, so the variance of a sample
    is the sum of the squares of the result, less what comes out for no noise: no chance involved.
    """

    def __init__(self) -> None:
        self.draws = 0

    def __call__(self, like):
        self.draws += 1
        one = torch.zeros_like(like)
        one[:, self.draws] = 1
        return one


def sample_mean_and_std(sampler, denoise, schedule, times, **options):
    """Exact mean and standard deviation of what a sampler makes from unit noise times the prior."""
    entries = 2 + len(times)
    start = torch.zeros(1, entries, dtype=torch.float64)
    still = sampler(denoise, schedule, start, times, noise=torch.zeros_like, **options)
    start[0, 0] = schedule.prior_std(float(times[0]))
    moved = sampler(denoise, schedule, start, times, noise=UnitNoise(), **options)
    return float(still[0, -1]), float((moved - still).square().sum().sqrt())
