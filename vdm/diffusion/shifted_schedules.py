"""Schedules made from other schedules: moved to more noise, faded, ending in pure noise."""

# ruff: noqa: D102 -- what the methods mean is said once, on the abstract class

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from vdm.diffusion.schedules import NoiseSchedule, Times


def shift_time(t: Times, shift: float) -> Times:
    """Move times towards noise: ``shift * t / (1 + (shift - 1) * t)``; 0 and 1 stay.

    Source:
        Esser et al. 2024, "Scaling Rectified Flow Transformers" (SD3), arXiv:2403.03206, eq. 23.
    """
    return shift * t / (1 + (shift - 1) * t)


def shift_for(tokens: float, base_tokens: float) -> float:
    """The shift that a longer sequence asks for: ``sqrt(tokens / base_tokens)``.

    More tokens show the same picture through more noise, so a schedule that is right for
    ``base_tokens`` is moved towards noise by this much: ``Shifted(schedule, shift_for(...))``, or
    ``time_grids.shifted(num_steps, shift_for(...))`` for sampling alone.

    Args:
        tokens: Tokens of a clip, or latents: frames times height times width.
        base_tokens: The same of the clips that the unshifted schedule is right for.

    Raises:
        ValueError: If a number is not positive.

    Source:
        Esser et al. 2024, arXiv:2403.03206, eq. 23, whose ``sqrt(m / n)`` this is.
    """
    if not (tokens > 0 and base_tokens > 0):
        raise ValueError(f"got tokens={tokens}, base_tokens={base_tokens}, expected more than 0")
    return math.sqrt(tokens / base_tokens)


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"got {name}={value}, expected more than 0; 1 changes nothing")


@dataclass(frozen=True)
class Shifted(NoiseSchedule):
    """Another schedule with its time moved towards noise (the resolution or flow shift).

    On the linear path this multiplies ``sigma / alpha`` by ``shift``. Networks go on being told the
    time of the unshifted path, so one network serves every shift. Uniform times on a shifted
    schedule are ``time_grids.shifted`` times on the unshifted one.

    Args:
        base: The schedule to shift.
        shift: 1 changes nothing; SD3 3, HunyuanVideo 7.

    Source:
        Esser et al. 2024, arXiv:2403.03206, eq. 23.
    """

    base: NoiseSchedule
    shift: float

    def __post_init__(self) -> None:
        _check_positive("shift", self.shift)

    @property
    def t_first(self) -> float:
        return self.base.t_first / (self.shift - (self.shift - 1) * self.base.t_first)

    def path_time(self, t: Times) -> Times:
        return self.base.path_time(shift_time(t, self.shift))

    def alpha(self, t: Times) -> Times:
        return self.base.alpha(shift_time(t, self.shift))

    def sigma(self, t: Times) -> Times:
        return self.base.sigma(shift_time(t, self.shift))

    def alpha_dot(self, t: Times) -> Times:
        return self.base.alpha_dot(shift_time(t, self.shift)) * self._shift_dot(t)

    def sigma_dot(self, t: Times) -> Times:
        return self.base.sigma_dot(shift_time(t, self.shift)) * self._shift_dot(t)

    def t_from_log_snr(self, log_snr: Times) -> Times:
        return shift_time(self.base.t_from_log_snr(log_snr), 1 / self.shift)

    def _shift_dot(self, t: Times) -> Times:
        return self.shift / (1 + (self.shift - 1) * t) ** 2


@dataclass(frozen=True)
class SNRShifted(NoiseSchedule):
    """Another schedule with its SNR divided by ``scale`` at every time.

    ``alpha`` and ``sigma`` are rescaled together so that ``alpha**2 + sigma**2`` is kept; for a
    variance-preserving base this is ``alpha_bar / (scale + (1 - scale) * alpha_bar)``.

    Args:
        base: The schedule to shift.
        scale: 1 changes nothing; CogVideoX-2B 3.

    Source:
        Yang et al. 2024, "CogVideoX", arXiv:2408.06072, and its released scheduler, after Hoogeboom
        et al. 2023, "simple diffusion", arXiv:2301.11093, section 3.1.
    """

    base: NoiseSchedule
    scale: float

    def __post_init__(self) -> None:
        _check_positive("scale", self.scale)

    @property
    def t_first(self) -> float:
        return self.base.t_first

    def path_time(self, t: Times) -> Times:
        return self.base.path_time(t)

    def alpha(self, t: Times) -> Times:
        alpha, sigma = self.base.alpha(t), self.base.sigma(t)
        return alpha * self._gain(alpha, sigma)

    def sigma(self, t: Times) -> Times:
        alpha, sigma = self.base.alpha(t), self.base.sigma(t)
        return self.scale**0.5 * sigma * self._gain(alpha, sigma)

    def alpha_dot(self, t: Times) -> Times:
        alpha, sigma = self.base.alpha(t), self.base.sigma(t)
        alpha_dot, sigma_dot = self.base.alpha_dot(t), self.base.sigma_dot(t)
        gain_dot = self._gain_dot(alpha, sigma, alpha_dot, sigma_dot)
        return alpha_dot * self._gain(alpha, sigma) + alpha * gain_dot

    def sigma_dot(self, t: Times) -> Times:
        alpha, sigma = self.base.alpha(t), self.base.sigma(t)
        alpha_dot, sigma_dot = self.base.alpha_dot(t), self.base.sigma_dot(t)
        gain_dot = self._gain_dot(alpha, sigma, alpha_dot, sigma_dot)
        return self.scale**0.5 * (sigma_dot * self._gain(alpha, sigma) + sigma * gain_dot)

    def t_from_log_snr(self, log_snr: Times) -> Times:
        return self.base.t_from_log_snr(log_snr + math.log(self.scale))

    def _gain(self, alpha: Times, sigma: Times) -> Times:
        signal, noise = alpha**2, sigma**2
        return torch.sqrt((signal + noise) / (signal + self.scale * noise))

    def _gain_dot(self, alpha: Times, sigma: Times, alpha_dot: Times, sigma_dot: Times) -> Times:
        signal, noise = alpha**2, sigma**2
        # gain**2 depends on the SNR alone: its derivative is a multiple of the Wronskian
        wronskian = alpha * sigma_dot - sigma * alpha_dot
        square_dot = 2 * (1 - self.scale) * alpha * sigma * wronskian
        square_dot = square_dot / (signal + self.scale * noise) ** 2
        return square_dot / (2 * self._gain(alpha, sigma))


@dataclass(frozen=True)
class Faded(NoiseSchedule):
    """Another schedule with its signal turned down as noise comes up: ``alpha * fade(t)``.

    The fade goes linearly from 1 at the first time that training visits to ``end`` at ``until`` and
    stays there; ``sigma`` is left alone. VideoCrafter calls it dynamic rescaling: 1 to 0.7, or to
    0.3, over the first 400 of 1000 entries.

    Args:
        base: The schedule to fade.
        end: 1 changes nothing; VideoCrafter2 0.7.
        until: From when on the fade is ``end``.

    Raises:
        ValueError: If ``end`` is not in (0, 1], or ``until`` not between the first time and 1.

    Source:
        Chen et al. 2023, "VideoCrafter1", arXiv:2310.19512, and its released configuration
        (``use_scale``), after Chen 2023, "On the Importance of Noise Scheduling for Diffusion
        Models", arXiv:2301.10972, whose scale of the input is constant.
    """

    base: NoiseSchedule
    end: float = 0.7
    until: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.end <= 1:
            raise ValueError(f"got end={self.end}, expected more than 0 and at most 1, e.g. 0.7")
        if not self.base.t_first < self.until <= 1:
            raise ValueError(
                f"got until={self.until}, expected more than {self.base.t_first:g}, "
                "where the fade begins, and at most 1"
            )

    @property
    def t_first(self) -> float:
        return self.base.t_first

    def path_time(self, t: Times) -> Times:
        return self.base.path_time(t)

    def start_std(self, t: float = 1.0) -> float:
        """That of the base: the published samplers start from as much noise as without the fade."""
        return self.base.start_std(t)

    def fade(self, t: Times) -> Times:
        """What the signal is multiplied by."""
        return 1 - (1 - self.end) * self._share(t).clamp(0, 1)

    def alpha(self, t: Times) -> Times:
        return self.base.alpha(t) * self.fade(t)

    def sigma(self, t: Times) -> Times:
        return self.base.sigma(t)

    def alpha_dot(self, t: Times) -> Times:
        share, slope = self._share(t), (self.end - 1) / (self.until - self.base.t_first)
        fade_dot = slope * ((share >= 0) & (share <= 1)).to(t.dtype)
        return self.base.alpha_dot(t) * self.fade(t) + self.base.alpha(t) * fade_dot

    def sigma_dot(self, t: Times) -> Times:
        return self.base.sigma_dot(t)

    def t_from_log_snr(self, log_snr: Times) -> Times:
        # No closed form holds for every base: halve the interval as often as its precision allows.
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(64):
            middle = (low + high) / 2
            is_below = self.log_snr(middle) > log_snr
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return high

    def _share(self, t: Times) -> Times:
        """How much of the way the fade has gone, below 0 and above 1 outside of it."""
        return (t - self.base.t_first) / (self.until - self.base.t_first)


@dataclass(frozen=True)
class ZeroTerminalSNR(NoiseSchedule):
    """A variance-preserving schedule rescaled so that ``t = 1`` is pure noise.

    ``alpha`` is shifted to 0 at ``t = 1`` and rescaled to stay as it is at the first time that
    training visits (the first entry of a table, 0 of a continuous schedule).

    Args:
        base: A variance-preserving schedule.

    Raises:
        ValueError: If ``base`` is not variance preserving.

    Source:
        Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed",
        arXiv:2305.08891, algorithm 1.
    """

    base: NoiseSchedule

    def __post_init__(self) -> None:
        if abs(self.base.prior_std(0.5) - 1) > 1e-6:
            raise ValueError(
                f"got {type(self.base).__name__}, expected a variance-preserving schedule, "
                "e.g. DDPMTable; LinearPath and Cosine end in pure noise already"
            )

    @property
    def t_first(self) -> float:
        return self.base.t_first

    def path_time(self, t: Times) -> Times:
        return self.base.path_time(t)

    def alpha(self, t: Times) -> Times:
        alpha, (first, last) = self.base.alpha(t), self._ends
        rescaled = (alpha - last) * (first / (first - last))
        rescaled = torch.where(t < 1, rescaled, rescaled - rescaled.detach())  # 0 to the last bit
        return torch.where(t < self.t_first, alpha, rescaled)

    def sigma(self, t: Times) -> Times:
        # sigma**2 = 1 - alpha**2, written as what the base has plus what alpha loses
        alpha, (first, last) = self.base.alpha(t), self._ends
        lost = torch.where(t < self.t_first, 0, (first - alpha) * (last / (first - last)))
        return torch.sqrt(self.base.sigma(t) ** 2 + lost * (2 * alpha - lost))

    def alpha_dot(self, t: Times) -> Times:
        alpha_dot, (first, last) = self.base.alpha_dot(t), self._ends
        return torch.where(t < self.t_first, alpha_dot, alpha_dot * (first / (first - last)))

    def sigma_dot(self, t: Times) -> Times:
        sigma, (first, last) = self.sigma(t), self._ends
        start = self.base.sigma_dot(t)  # its limit where sigma is 0, up to the gain
        if self.t_first == 0:
            start = start * math.sqrt(first / (first - last))
        return torch.where(sigma > 0, -self.alpha(t) * self.alpha_dot(t) / sigma, start)

    def t_from_log_snr(self, log_snr: Times) -> Times:
        first, last = self._ends
        alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
        gained = (first - alpha) * (last / first)  # alpha of the base less alpha
        base_sigma = torch.sqrt((sigma**2 - gained * (2 * alpha + gained)).clamp_min(0))
        t = self.base.t_from_log_snr(2 * (torch.log(alpha + gained) - torch.log(base_sigma)))
        t = torch.where(alpha > first, self.base.t_from_log_snr(log_snr), t)
        return torch.where(alpha > 0, t, 1)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        times = torch.tensor([self.t_first, 1.0], dtype=torch.float64, device="cpu")
        first, last = self.base.alpha(times).tolist()
        return first, last
