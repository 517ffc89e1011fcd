"""How does a denoiser become a sampler?

A sampler is a pure function ``sampler(denoise, schedule, x, times, *, noise=None, callback=None)``:

- ``denoise(xt, t)`` estimates ``x0``; conditioning and guidance are inside it.
- ``x`` is noise at ``times[0]``: unit normal noise times ``schedule.start_std(times[0])``.
- ``times`` decreases, ``(n + 1,)``; it may start where ``alpha`` is 0 and end where ``sigma`` is 0.
- ``noise(x)`` draws standard normal noise like ``x``, e.g. ``vdm.utils.rng.SampleNoise``.
- ``callback(step, num_steps, x)`` is told the sample after every step.

The returned sample belongs to ``times[-1]``. Coefficients are float64 numbers, the running sample
is at least float32, and the denoiser is handed ``x`` in the precision that the caller gave.

All follow the same ordinary differential equation, which in terms of what the denoiser gives is

    dx = x0 dalpha + eps dsigma        with   eps = (x - alpha x0) / sigma

(Song et al. 2021, arXiv:2011.13456, eq. 13, with the score written as ``-eps / sigma``), or one of
the stochastic equations with the same marginals. No derivative of the schedule is needed.
"""

from __future__ import annotations

import math
from itertools import count
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.denoiser import consistency_boundary
from vdm.diffusion.learned_range import learned_range as learned_range
from vdm.diffusion.pndm import pndm as pndm
from vdm.diffusion.schedules import NoiseSchedule
from vdm.diffusion.shifted_schedules import Faded
from vdm.diffusion.time_grids import constant_stride
from vdm.diffusion.unipc import Evaluation, correct, predict
from vdm.diffusion.walk import Callback, Grid, Noise, Walk, eps_of, fresh_share, need_noise
from vdm.types import Denoise

RANGED = (learned_range,)
"""Samplers whose denoiser says something of the variance, too."""


def euler(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """First order: ``x0`` and ``eps`` are held over the step.

    On the linear path this is ``x + (t' - t) * velocity``, the Euler method of flow matching; with
    ``alpha = 1`` it is that of EDM and k-diffusion; on every schedule it is DDIM with ``eta = 0``.

    Source:
        Liu et al. 2022, arXiv:2209.03003, eq. 1; Karras et al. 2022, arXiv:2206.00364, eq. 4.
    """
    walk = Walk(denoise, schedule, x, times, callback)
    x = walk.start
    for a, b in walk:
        x0 = walk.x0(x, a)
        x = x + (b.alpha - a.alpha) * x0 + (b.sigma - a.sigma) * eps_of(x, x0, a)
        walk.report(x)
    return x.to(walk.dtype)


def heun(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Second order: the trapezoid rule, two evaluations per step and one in a last step to 0.

    Source:
        Karras et al. 2022, arXiv:2206.00364, algorithm 1, in ``alpha`` and ``sigma`` instead of
        time; for ``alpha = 1`` and on the linear path the two agree.
    """
    walk = Walk(denoise, schedule, x, times, callback)
    x = walk.start
    for a, b in walk:
        x0 = walk.x0(x, a)
        eps = eps_of(x, x0, a)
        d_alpha, d_sigma = b.alpha - a.alpha, b.sigma - a.sigma
        ahead = x + d_alpha * x0 + d_sigma * eps
        if b.sigma > 0:
            x0_ahead = walk.x0(ahead, b)
            eps_ahead = eps_of(ahead, x0_ahead, b)
            ahead = x + d_alpha * (x0 + x0_ahead) / 2 + d_sigma * (eps + eps_ahead) / 2
        x = ahead
        walk.report(x)
    return x.to(walk.dtype)


def ddim(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    eta: float = 0.0,
    next_times: Float[Tensor, " steps"] | None = None,
    noise_schedule: NoiseSchedule | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Deterministic for ``eta = 0``; for ``eta = 1`` the ancestral sampler of DDPM.

    Args:
        denoise: The denoiser.
        schedule: The noise schedule.
        x: Noise at ``times[0]``.
        times: Decreasing times.
        eta: Share of the noise that is replaced by fresh noise, in standard deviations.
        next_times: Where each step goes, ``(n,)``, for published samplers that do not step to the
            next time of their grid (see ``time_grids.constant_stride``).
        noise_schedule: Whose SNR says how much noise is replaced, for published samplers that take
            it from another schedule; any amount leaves the marginals as they are.
        noise: Draws noise; needed for ``eta > 0``.
        callback: Told of every step.

    Raises:
        ValueError: If ``eta`` is not in [0, 1], or positive without ``noise``.

    Source:
        Song et al. 2021, arXiv:2010.02502, eq. 12 and 16; ``alpha_bar`` ratios are written as SNR
        ratios, which is the same where variance is preserved and holds where it is not.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"got eta={eta}, expected 0 (deterministic) to 1 (ancestral)")
    draw = need_noise(noise, "ddim with eta > 0") if eta > 0 else None
    walk = Walk(denoise, schedule, x, times, callback, next_times)
    plain = walk
    if noise_schedule is not None:
        plain = Walk(denoise, noise_schedule, x, times, None, next_times)
    x = walk.start
    for (a, b), ends in zip(walk, plain, strict=True):
        x0 = walk.x0(x, a)
        fresh = eta**2 * fresh_share(*ends)
        x = b.alpha * x0 + b.sigma * math.sqrt(1 - fresh) * eps_of(x, x0, a)
        if draw is not None and b.sigma > 0:
            x = x + b.sigma * math.sqrt(fresh) * draw(x)
        walk.report(x)
    return x.to(walk.dtype)


def ddim_constant_stride(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    num_steps: int | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Deterministic DDIM on a table of 1000 entries, with steps of 1000 // n entries on any grid.

    So published pictures of models were made whose grid is not a leading one.

    Args:
        denoise: The denoiser.
        schedule: The noise schedule.
        x: Noise at ``times[0]``.
        times: Decreasing times.
        num_steps: Steps of the whole grid, where ``times`` is its end.
        noise: Not used.
        callback: Told of every step.

    Source:
        The DDIM scheduler of diffusers; see ``time_grids.constant_stride``.
    """
    next_times = constant_stride(times, ends_clean=float(times[-1]) == 0, num_steps=num_steps)
    return ddim(denoise, schedule, x, times, next_times=next_times, callback=callback)


def ddim_ancestral(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM with ``eta = 1``, as VideoCrafter samples.

    Where the signal of a schedule is faded, as much noise is replaced as without that. Otherwise
    this is :func:`ancestral`.

    Source:
        The DDIM sampler of Chen et al. 2023, "VideoCrafter1", arXiv:2310.19512.
    """
    plain = schedule.base if isinstance(schedule, Faded) else None
    return ddim(
        denoise,
        schedule,
        x,
        times,
        eta=1.0,
        noise_schedule=plain,
        noise=noise,
        callback=callback,
    )


def ancestral(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Draws from the posterior of the next sample given this one and ``x0``.

    Source:
        Ho et al. 2020, arXiv:2006.11239, eq. 6-7; between any two times Kingma et al. 2021,
        arXiv:2107.00630, appendix A.2.
    """
    draw = need_noise(noise, "ancestral")
    walk = Walk(denoise, schedule, x, times, callback)
    x = walk.start
    for a, b in walk:
        x0 = walk.x0(x, a)
        fresh = fresh_share(a, b)
        weight = (a.alpha / a.sigma**2) * (b.sigma**2 / b.alpha)
        x = weight * x + b.alpha * fresh * x0
        if b.sigma > 0:
            x = x + b.sigma * math.sqrt(fresh) * draw(x)
        walk.report(x)
    return x.to(walk.dtype)


def lcm(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Multistep consistency sampling: jump to ``x0``, noise it again, repeat.

    For a consistency model ``denoise`` is its consistency function; models distilled with boundary
    scales need ``denoiser.consistency_boundary`` around the denoiser.

    Source:
        Song et al. 2023, "Consistency Models", arXiv:2303.01469, algorithm 1; Luo et al. 2023,
        "Latent Consistency Models", arXiv:2310.04378, algorithm 3.
    """
    walk = Walk(denoise, schedule, x, times, callback)
    draw = noise
    if any(b.sigma > 0 for _, b in walk):
        draw = need_noise(noise, "lcm with more than one step")
    x = walk.start
    for a, b in walk:
        x = b.alpha * walk.x0(x, a)
        if draw is not None and b.sigma > 0:
            x = x + b.sigma * draw(x)
        walk.report(x)
    return x.to(walk.dtype)


def latent_consistency(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """:func:`lcm` for models that were distilled with the published boundary scales.

    Source:
        Luo et al. 2023, arXiv:2310.04378, section 4.1.
    """
    consistent = consistency_boundary(denoise)
    return lcm(consistent, schedule, x, times, noise=noise, callback=callback)


def dpmpp_2m(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M): second order from one evaluation per step and the previous one.

    The first step and a last step to ``sigma = 0`` are of first order.

    Source:
        Lu et al. 2022, "DPM-Solver++", arXiv:2211.01095, algorithm 2.
    """
    walk = Walk(denoise, schedule, x, times, callback)
    x, x0_last, h_last = walk.start, None, math.inf
    for a, b in walk:
        x0 = walk.x0(x, a)
        h = (b.log_snr - a.log_snr) / 2
        d = x0
        if x0_last is not None and b.sigma > 0:
            d = x0 + h / (2 * h_last) * (x0 - x0_last)
        x = (b.sigma / a.sigma) * x - b.alpha * math.expm1(-h) * d
        x0_last, h_last = x0, h
        walk.report(x)
    return x.to(walk.dtype)


def dpmpp_2m_sde(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    eta: float = 1.0,
    next_times: Float[Tensor, " steps"] | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """SDE-DPM-Solver++(2M): the stochastic form of :func:`dpmpp_2m`, midpoint type.

    Args:
        denoise: The denoiser.
        schedule: The noise schedule.
        x: Noise at ``times[0]``.
        times: Decreasing times.
        eta: 1 follows the reverse SDE, 0 is :func:`dpmpp_2m`.
        next_times: Where each step goes, as for :func:`ddim`.
        noise: Draws noise; needed for ``eta > 0``. It is called once per step, but not in a last
            step to ``sigma = 0``.
        callback: Told of every step.

    Raises:
        ValueError: If ``eta`` is negative, or positive without ``noise``.

    Source:
        Lu et al. 2022, arXiv:2211.01095, SDE-DPM-Solver++(2M); ``eta`` scales the noise of the
        SDE and is 1 there.
    """
    if eta < 0:
        raise ValueError(f"got eta={eta}, expected at least 0: 0 is deterministic, 1 reverse SDE")
    draw = need_noise(noise, "dpmpp_2m_sde with eta > 0") if eta > 0 else None
    walk = Walk(denoise, schedule, x, times, callback, next_times)
    x, x0_last, last = walk.start, None, None
    for a, b in walk:
        x0 = walk.x0(x, a)
        h = (b.log_snr - a.log_snr) / 2
        d = x0
        if x0_last is not None and last is not None and b.sigma > 0:
            d = x0 + h / (a.log_snr - last.log_snr) * (x0 - x0_last)
        decay = math.exp(-eta * h) if eta > 0 else 1.0
        x = (b.sigma / a.sigma * decay) * x - b.alpha * math.expm1(-(1 + eta) * h) * d
        if draw is not None and b.sigma > 0:
            x = x + b.sigma * math.sqrt(-math.expm1(-2 * eta * h)) * draw(x)
        x0_last, last = x0, a
        walk.report(x)
    return x.to(walk.dtype)


def cogvideox_sde(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    num_steps: int | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """:func:`dpmpp_2m_sde` as it was released with CogVideoX, down to the numbers it draws.

    Steps go 1000 // n entries on, as in :func:`ddim_constant_stride`. Noise is drawn frame by
    frame, and from the second step on once more than is used.

    Args:
        denoise: The denoiser.
        schedule: The noise schedule.
        x: Noise at ``times[0]``.
        times: Decreasing times.
        num_steps: Steps of the whole grid, where ``times`` is its end.
        noise: Draws noise.
        callback: Told of every step.

    Source:
        The released sampler of Yang et al. 2024, arXiv:2408.06072.
    """
    draw, steps = need_noise(noise, "cogvideox_sde"), count()

    def published(like: Tensor) -> Tensor:
        frames_first = like.transpose(1, 2)
        if next(steps):
            draw(frames_first)  # of a first-order step that is then not taken
        return draw(frames_first).transpose(1, 2)

    next_times = constant_stride(times, ends_clean=float(times[-1]) == 0, num_steps=num_steps)
    return dpmpp_2m_sde(
        denoise, schedule, x, times, next_times=next_times, noise=published, callback=callback
    )


def unipc(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Grid,
    *,
    kind: Literal["bh1", "bh2"] = "bh2",
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """UniPC-2: every evaluation corrects the sample that it was made at, then predicts the next.

    The first step and a last step to ``sigma = 0`` are of first order.

    Args:
        denoise: The denoiser.
        schedule: The noise schedule.
        x: Noise at ``times[0]``.
        times: Decreasing times.
        kind: The function ``B(h)``: ``h`` for ``"bh1"``, ``exp(h) - 1`` for ``"bh2"``.
        noise: Not used.
        callback: Told of every step; it sees predicted samples, which the next step corrects.

    Raises:
        ValueError: If ``kind`` is unknown.

    Source:
        Zhao et al. 2023, "UniPC", arXiv:2302.04867, multistep UniPC in its data-prediction form,
        order 2, with their coefficient 1/2 where a single difference is used.
    """
    if kind not in ("bh1", "bh2"):
        raise ValueError(f"got kind={kind!r}, expected 'bh1' or 'bh2'")
    walk = Walk(denoise, schedule, x, times, callback)
    x = walk.start
    past: list[Evaluation] = []
    for a, b in walk:
        x0 = walk.x0(x, a)
        if past:
            x = correct(past, x0, a, kind)
        past = [*past[-1:], (x, x0, a)]
        x = predict(past, b, kind)
        walk.report(x)
    return x.to(walk.dtype)
