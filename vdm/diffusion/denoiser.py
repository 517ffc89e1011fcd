"""From a network to a denoiser: where schedule, target and scales meet the network."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.preconditioning import NoPreconditioning, Preconditioning
from vdm.diffusion.schedules import NoiseSchedule, Sample, at_least_float32, check_times
from vdm.diffusion.targets import Target
from vdm.types import Conditioning, Denoise, Network
from vdm.utils.tensors import expand_as

Time = Float[Tensor, " b *frames"]


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A network together with what it predicts, on which schedule, in which scales.

    Args:
        network: ``network(x, c_noise, cond) -> raw output``.
        schedule: The noise schedule that the network was trained on.
        target: What it predicts.
        preconditioning: The scales around it.

    Raises:
        ValueError: If the preconditioning is not made for the target.

    Source:
        Karras et al. 2022, arXiv:2206.00364, eq. 7.
    """

    network: Network
    schedule: NoiseSchedule
    target: Target
    preconditioning: Preconditioning = field(default_factory=NoPreconditioning)

    def __post_init__(self) -> None:
        self.preconditioning.check_target(self.target)

    def predict(self, xt: Sample, t: Time, cond: Conditioning) -> Sample:
        """The network's prediction of the target.

        Args:
            xt: Noisy latents.
            t: Noise times, one per sample, or one per frame ``(b, t)``: every frame then has its
                own scales, and the network is told a noise level for each.
            cond: What the network is told besides. ``cond.token_times`` are noise times per frame
                and take precedence over ``t``.

        Returns:
            The prediction, in at least float32.

        Raises:
            ValueError: If ``t`` does not hold one time per sample or frame.
        """
        if cond.token_times is not None:
            t, cond = cond.token_times, cond.replace(token_times=None)
        check_times(t, xt)
        t = at_least_float32(t)
        scales = self.preconditioning
        x = expand_as(scales.c_in(self.schedule, t), xt) * xt
        raw = self.network(x.to(xt.dtype), scales.c_noise(self.schedule, t), cond)
        skip = expand_as(scales.c_skip(self.schedule, t), xt) * xt
        return skip + expand_as(scales.c_out(self.schedule, t), xt) * raw

    def __call__(self, xt: Sample, t: Time, cond: Conditioning) -> Sample:
        """The network's estimate of the clean latents, in at least float32; arguments as above."""
        pred = self.predict(xt, t, cond)
        return self.target.to_x0(self.schedule, xt, pred, times_of(t, cond))

    def bind(self, cond: Conditioning) -> Denoise:
        """The denoiser of noisy latents and time alone that samplers and guidance take."""
        return lambda xt, t: self(xt, t, cond)


def times_of(t: Time, cond: Conditioning) -> Tensor:
    """The noise times that hold: those of the frames, where the conditioning has them."""
    return t if cond.token_times is None else cond.token_times


def consistency_boundary(
    denoise: Denoise, scaling: float = 10.0, sigma_data: float = 0.5, num_steps: int = 1000
) -> Denoise:
    """The consistency function of a latent consistency model: ``c_skip * xt + c_out * x0``.

    With ``k`` the DDPM timestep of ``t`` times ``scaling``, ``c_skip`` is
    ``sigma_data**2 / (k**2 + sigma_data**2)`` and ``c_out`` is ``k / sqrt(k**2 + sigma_data**2)``.

    Args:
        denoise: Estimates ``x0``.
        scaling: Factor on the timestep.
        sigma_data: Standard deviation of the data in these scales.
        num_steps: Entries of the DDPM table.

    Source:
        Luo et al. 2023, arXiv:2310.04378, section 4.1, with the values of the released models.
    """

    def consistent(xt: Tensor, t: Tensor) -> Tensor:
        c_skip, c_out = boundary_scales(t, scaling, sigma_data, num_steps)
        return expand_as(c_skip, xt) * xt + expand_as(c_out, xt) * denoise(xt, t)

    return consistent


def boundary_scales(
    t: Time, scaling: float = 10.0, sigma_data: float = 0.5, num_steps: int = 1000
) -> tuple[Time, Time]:
    """``c_skip`` and ``c_out`` of :func:`consistency_boundary`.

    Source:
        As for :func:`consistency_boundary`.
    """
    scaled = scaling * (num_steps * at_least_float32(t) - 1).clamp_min(0)
    variance = scaled**2 + sigma_data**2
    return sigma_data**2 / variance, scaled * variance.rsqrt()
