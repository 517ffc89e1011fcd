"""How do networks sample that also say how much noise a step is to draw?

Such a network says, number by number, where the log-variance of a step lies between the smallest
and the largest that it can be. What it says goes through guidance beside ``x0``, in channels behind
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.denoiser import Denoiser, Time
from vdm.diffusion.preconditioning import NoPreconditioning, Preconditioning
from vdm.diffusion.schedules import NoiseSchedule, Sample
from vdm.diffusion.targets import Target
from vdm.diffusion.walk import Callback, Grid, Noise, Walk, fresh_share, need_noise
from vdm.types import Conditioning, Denoise, Network


@dataclass(frozen=True, eq=False)
class RangedDenoiser:
    """A :class:`Denoiser` whose network says something of the variance in as many more channels.

    Args:
        network: ``network(x, c_noise, cond) -> raw output and what it says of the variance``.
        schedule: The noise schedule that the network was trained on.
        target: What it predicts.
        preconditioning: The scales around it.
    """

    network: Network
    schedule: NoiseSchedule
    target: Target
    preconditioning: Preconditioning = field(default_factory=NoPreconditioning)

    def __call__(self, xt: Sample, t: Time, cond: Conditioning) -> Float[Tensor, "b c_out ..."]:
        """The estimate of the clean latents, and behind it what is said of the variance."""
        said = []

        def predict(x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
            raw, variance = self.network(x, c_noise, cond).chunk(2, dim=1)
            said.append(variance)
            return raw

        estimate = Denoiser(predict, self.schedule, self.target, self.preconditioning)
        x0 = estimate(xt, t, cond)
        return torch.cat((x0, said[0].to(x0.dtype)), dim=1)

    def bind(self, cond: Conditioning) -> Denoise:
        """The function of noisy latents and time that :func:`learned_range` takes."""
        return lambda xt, t: self(xt, t, cond)


def learned_range(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """As ``samplers.ancestral``, with noise of the variance that the network asks for.

    With ``s`` what the network says, from -1 to 1, a step from ``a`` to ``b`` of which a share of
    the noise is fresh draws with the variance ``fresh * sigma_a**(1 + s) * sigma_b**(1 - s)``: from
    that of the posterior given ``x0`` to that of a step the other way.

    Args:
        denoise: Of a :class:`RangedDenoiser`: ``x0``, and ``s`` in as many channels behind it.
        schedule: The noise schedule.
        x: Noise at ``times[0]``.
        times: Decreasing times.
        noise: Draws noise.
        callback: Told of every step.

    Raises:
        ValueError: If there is no ``noise``, or the denoiser says nothing of the variance.

    Source:
        Nichol & Dhariwal 2021, "Improved DDPM", arXiv:2102.09672, eq. 15; the two ends are the
        posterior's variance and ``beta`` of Ho et al. 2020, arXiv:2006.11239, section 3.2.
    """
    draw = need_noise(noise, "learned_range")
    walk = Walk(denoise, schedule, x, times, callback)
    x, channels = walk.start, x.shape[1]
    for a, b in walk:
        estimate = walk.x0(x, a)
        if estimate.shape[1] != 2 * channels:
            raise ValueError(
                f"got a denoiser of {estimate.shape[1]} channels for latents of {channels}, "
                f"expected {2 * channels}: x0, and what is said of the variance"
            )
        x0, said = estimate.chunk(2, dim=1)
        fresh = fresh_share(a, b)
        x = (a.alpha / a.sigma**2) * (b.sigma**2 / b.alpha) * x + b.alpha * fresh * x0
        if b.sigma > 0:
            log_a, log_b = math.log(a.sigma), math.log(b.sigma)
            log_std = (math.log(fresh) + (1 + said) * log_a + (1 - said) * log_b) / 2
            x = x + log_std.exp() * draw(x)
        walk.report(x)
    return x.to(walk.dtype)
