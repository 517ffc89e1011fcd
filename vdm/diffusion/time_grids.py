"""At which noise times is the network evaluated when sampling?

A grid is decreasing, ``(n + 1,)`` for ``n`` steps, in float64 on the CPU: samplers walk it as
numbers. Entry ``k`` of a DDPM table stands at ``t = (k + 1) / num_timesteps``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.schedules import NoiseSchedule
from vdm.diffusion.shifted_schedules import shift_for, shift_time

Grid = Float[Tensor, " points"]


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"got num_steps={num_steps}, expected at least 1")


def uniform(num_steps: int, t_max: float = 1.0, t_min: float = 0.0) -> Grid:
    """Equal steps from ``t_max`` to ``t_min``.

    Raises:
        ValueError: If there is no step or the times do not decrease within [0, 1].

    Source:
        Liu et al. 2022, arXiv:2209.03003, section 2.
    """
    _check_steps(num_steps)
    if not 0 <= t_min < t_max <= 1:
        raise ValueError(f"got t_max={t_max}, t_min={t_min}, expected 0 <= t_min < t_max <= 1")
    return torch.linspace(t_max, t_min, num_steps + 1, dtype=torch.float64)


def shifted(num_steps: int, shift: float, t_max: float = 1.0, t_min: float = 0.0) -> Grid:
    """Equal steps, moved towards noise.

    Source:
        Esser et al. 2024, arXiv:2403.03206, eq. 23.
    """
    if not shift > 0:
        raise ValueError(f"got shift={shift}, expected more than 0; 1 changes nothing")
    return shift_time(uniform(num_steps, t_max, t_min), shift)


def fitted(
    num_steps: int,
    num_latents: int,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    base_latents: int = 256,
    max_latents: int = 4096,
    terminal: float | None = None,
) -> Grid:
    """Equal steps, moved the further towards noise the more latents a clip has.

    The logarithm of the shift is linear in their number.

    Args:
        num_steps: Steps, the last of which goes to 0.
        num_latents: Frames times height times width of the latents.
        base_shift: Logarithm of the shift for ``base_latents``.
        max_shift: The same for ``max_latents``.
        base_latents: A number of latents.
        max_latents: Another.
        terminal: The last time before 0, to which all are stretched; where it falls if None.

    Raises:
        ValueError: If there are too few steps, or the last time is not between 0 and 1.

    Source:
        Esser et al. 2024, arXiv:2403.03206, section 5.3.2, in the form of Flux; stretched as in
        HaCohen et al. 2024, "LTX-Video", arXiv:2501.00103, its released sampler.
    """
    slope = (max_shift - base_shift) / (max_latents - base_latents)
    times = shifted(num_steps, math.exp(base_shift + slope * (num_latents - base_latents)))
    if terminal is not None:
        if not 0 < terminal < 1 or num_steps < 2:
            raise ValueError(
                f"got terminal={terminal} and num_steps={num_steps}, expected a time between 0 and "
                "1 and at least 2 steps"
            )
        times[:-1] = 1 - (1 - times[:-1]) * (1 - terminal) / (1 - times[-2])
    return times


def shifted_by_size(
    num_steps: int, clip: tuple[int, int, int], base_size: float = 512 * 512
) -> Grid:
    """Equal steps, moved towards noise by the square root of how large a clip is.

    Args:
        num_steps: Steps.
        clip: Latent frames, height and width in pixels.
        base_size: Of the clips whose steps stay equal, the product of these.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404, the released sampler of version 1.2; the
        shift is that of Esser et al. 2024, arXiv:2403.03206, eq. 23.
    """
    return shifted(num_steps, shift_for(math.prod(clip), base_size))


def shifted_by_tokens(num_steps: int, num_tokens: int, num_frames: int) -> Grid:
    """Equal steps, moved towards noise the further, the larger and the longer a clip is.

    Args:
        num_steps: Steps.
        num_tokens: Tokens of a latent frame: 256 shift by 1, 4096 by 3, others in proportion.
        num_frames: Latent frames; the shift grows with their square root.

    Raises:
        ValueError: If there are no frames, or the shift is not positive.

    Source:
        Peng et al. 2025, "Open-Sora 2.0", arXiv:2503.09642, its released code; the shift as for
        :func:`shifted`.
    """
    if num_frames < 1:
        raise ValueError(f"got num_frames={num_frames}, expected at least 1")
    slope = (3 - 1) / (4096 - 256)
    return shifted(num_steps, (1 + slope * (num_tokens - 256)) * num_frames**0.5)


def linear_quadratic(num_steps: int, threshold: float = 0.025) -> Grid:
    """Half of the steps equal and small, down to ``1 - threshold``; the others growing with them.

    The second half is a parabola that goes on from the first without a bend, and ends at 0.

    Args:
        num_steps: Steps.
        threshold: What the first half covers.

    Raises:
        ValueError: If there are no steps, or the threshold is not between 0 and 1.

    Source:
        Polyak et al. 2024, "Movie Gen", arXiv:2410.13720, section 3.4.2, where the first half are
        the steps of a finer grid; in the form of Genmo's Mochi.
    """
    _check_steps(num_steps)
    if not 0 < threshold < 1:
        raise ValueError(f"got threshold={threshold}, expected more than 0 and less than 1")
    half = num_steps // 2
    k = torch.arange(num_steps + 1, dtype=torch.float64)
    if not half:
        return 1 - k
    slope, rest = threshold / half, num_steps - half
    beyond = (k - half).clamp_min(0)
    return 1 - slope * k - (1 - slope * num_steps) * (beyond / rest) ** 2


def flow_entries(num_steps: int, shift: float = 1.0, num_timesteps: int = 1000) -> Grid:
    """Equal steps down to the first entry of a table, moved towards noise; the last goes to 0.

    The first is a millionth below 1, where a solver in log-SNR can stand.

    Args:
        num_steps: Steps.
        shift: 1 changes nothing; 3 to 5 in Wan.
        num_timesteps: Entries of the table.

    Raises:
        ValueError: If the shift is not positive.

    Source:
        Wan team 2025, arXiv:2503.20314, its released sampler; the shift as for :func:`shifted`.
    """
    times = shifted(num_steps, shift, t_min=1 / num_timesteps)
    times[0] -= 1e-6
    times[-1] = 0
    return times


def karras(
    num_steps: int,
    schedule: NoiseSchedule,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Grid:
    """``num_steps`` noise levels equally spaced in ``edm_sigma**(1 / rho)``, then 0.

    Args:
        num_steps: Steps, the last of which goes from ``sigma_min`` to 0.
        schedule: Gives the time of a noise level.
        sigma_min: Smallest noise level ``sigma / alpha`` above 0.
        sigma_max: Largest one; not above that of the schedule.
        rho: Larger means more steps at low noise.

    Raises:
        ValueError: If there is no step, the levels do not decrease or the schedule ends below them.

    Source:
        Karras et al. 2022, arXiv:2206.00364, eq. 5.
    """
    _check_steps(num_steps)
    if not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"got sigma_min={sigma_min}, sigma_max={sigma_max}, expected 0 < sigma_min < sigma_max"
        )
    largest = float(schedule.edm_sigma(torch.ones((), dtype=torch.float64)))
    if sigma_max > largest * (1 + 1e-6):
        raise ValueError(
            f"got sigma_max={sigma_max}, expected at most {largest:g}, where the schedule ends"
        )
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    edm_sigma = torch.linspace(high, low, num_steps, dtype=torch.float64) ** rho
    return torch.cat([schedule.t_from_edm_sigma(edm_sigma), edm_sigma.new_zeros(1)])


def from_timesteps(
    timesteps: Tensor | Sequence[float],
    num_timesteps: int = 1000,
    ends_clean: bool = True,
) -> Grid:
    """The grid that visits these entries of a DDPM table.

    Args:
        timesteps: Decreasing timesteps from ``num_timesteps - 1`` to 0; fractions are allowed.
        num_timesteps: Entries of the table.
        ends_clean: Whether the last step goes to clean data (``t = 0``); otherwise it goes to the
            first entry, whose noise is then left in (``set_alpha_to_one=False`` in diffusers).

    Raises:
        ValueError: If the timesteps do not decrease within the table.

    Source:
        Song et al. 2021, arXiv:2010.02502, section 4.2.
    """
    k = torch.as_tensor(timesteps, dtype=torch.float64, device="cpu")
    _check_entries(k.tolist(), num_timesteps)
    last = k.new_full((1,), -1.0 if ends_clean else 0.0)
    return (torch.cat([k, last]) + 1) / num_timesteps


def _check_entries(timesteps: list[float], num_timesteps: int) -> None:
    if not timesteps:
        raise ValueError("got no timesteps, expected at least 1")
    for before, after in pairwise(timesteps):
        if not after < before:
            raise ValueError(f"got timestep {after:g} after {before:g}, expected a smaller one")
    if not timesteps[0] <= num_timesteps - 1 or not timesteps[-1] >= 0:
        raise ValueError(
            f"got timesteps from {timesteps[0]:g} to {timesteps[-1]:g}, "
            f"expected entries of the table, {num_timesteps - 1} to 0"
        )


def leading(
    num_steps: int,
    num_timesteps: int = 1000,
    offset: int = 1,
    ends_clean: bool = True,
    spare: int = 0,
) -> Grid:
    """Entries ``0, s, 2s, ...`` plus ``offset``, where ``s = num_timesteps // num_steps``.

    Args:
        num_steps: Steps.
        num_timesteps: Entries of the table.
        offset: Added to every entry: 1 in Stable Diffusion.
        ends_clean: As for :func:`from_timesteps`.
        spare: Steps planned for but left out at the end: 1 in published multistep samplers.

    Raises:
        ValueError: If the offset leads out of the table, as 1 does with a step for every entry.

    Source:
        Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    planned = num_steps + spare
    _check_steps_of_table(planned, num_timesteps)
    stride = num_timesteps // planned
    timesteps = [k * stride + offset for k in reversed(range(spare, planned))]
    return from_timesteps(timesteps, num_timesteps, ends_clean)


def trailing(num_steps: int, num_timesteps: int = 1000, ends_clean: bool = True) -> Grid:
    """Entries counted down from the last: starts in pure noise.

    Args:
        num_steps: Steps.
        num_timesteps: Entries of the table.
        ends_clean: As for :func:`from_timesteps`.

    Source:
        Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    _check_steps_of_table(num_steps, num_timesteps)
    stride = num_timesteps / num_steps
    timesteps = [round(num_timesteps - k * stride) - 1 for k in range(num_steps)]
    return from_timesteps(timesteps, num_timesteps, ends_clean)


def linspace(
    num_steps: int, num_timesteps: int = 1000, ends_clean: bool = True, spare: int = 0
) -> Grid:
    """Equally spaced entries including the last and the first.

    Args:
        num_steps: Steps.
        num_timesteps: Entries of the table.
        ends_clean: As for :func:`from_timesteps`; if not, a last step from 0 to 0 changes nothing.
        spare: As for :func:`leading`.

    Source:
        Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    planned = num_steps + spare
    _check_steps_of_table(planned, num_timesteps)
    timesteps = torch.linspace(num_timesteps - 1, 0, planned, dtype=torch.float64).round()
    return from_timesteps(timesteps[:num_steps], num_timesteps, ends_clean)


def constant_stride(
    times: Grid,
    num_timesteps: int = 1000,
    ends_clean: bool = True,
    num_steps: int | None = None,
) -> Float[Tensor, " steps"]:
    """Where published DDIM samplers step to: ``num_timesteps // n`` entries on.

    On a leading grid that is the next time. On others it is not, and the sampler goes on as if it
    stood at the next time of the grid; models were published with pictures made so.

    Args:
        times: The grid, ``(n + 1,)``.
        num_timesteps: Entries of the table.
        ends_clean: As for :func:`from_timesteps`.
        num_steps: ``n`` of the whole grid, where ``times`` is its end.

    Returns:
        One time per step, ``(n,)``, for ``ddim(next_times=...)``.

    Source:
        The DDIM scheduler of diffusers.
    """
    n = len(times) - 1 if num_steps is None else num_steps
    k = (times[:-1] * num_timesteps).round() - 1 - num_timesteps // n
    return (torch.where(k >= 0, k, -1 if ends_clean else 0) + 1) / num_timesteps


def lcm(num_steps: int, original_steps: int = 50, num_timesteps: int = 1000) -> Grid:
    """Steps spread over the entries that a latent consistency model was distilled on.

    Args:
        num_steps: Steps, usually 1 to 8.
        original_steps: Entries visited in distillation.
        num_timesteps: Entries of the table.

    Raises:
        ValueError: If there are more steps than entries.

    Source:
        Luo et al. 2023, arXiv:2310.04378, section 4.3 (skipping steps), with the rounding of the
        released sampler.
    """
    _check_steps_of_table(num_steps, original_steps)
    stride = num_timesteps // original_steps
    entries = [k * stride - 1 for k in range(original_steps, 0, -1)]
    picked = [entries[k * original_steps // num_steps] for k in range(num_steps)]
    return from_timesteps(picked, num_timesteps)


def _check_steps_of_table(num_steps: int, num_timesteps: int) -> None:
    if not 1 <= num_steps <= num_timesteps:
        raise ValueError(f"got num_steps={num_steps}, expected 1 to {num_timesteps}")
