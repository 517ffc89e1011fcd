"""The denoising loss, once, for every model."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.denoiser import Denoiser, times_of
from vdm.diffusion.frame_times import FrameTimes, SharedTime
from vdm.diffusion.preconditioning import NoPreconditioning, Preconditioning
from vdm.diffusion.schedules import NoiseSchedule, Sample, at_least_float32
from vdm.diffusion.targets import Target
from vdm.diffusion.times import TimeDistribution, Uniform
from vdm.diffusion.weighting import Constant, Weighting
from vdm.types import Conditioning, Network
from vdm.utils.tensors import expand_as, masked_mean


@dataclass(frozen=True)
class DenoisingLoss:
    """Weighted squared error between the prediction and the target at random noise times.

    Args:
        schedule: The noise schedule.
        target: What the network predicts.
        preconditioning: The scales around the network.
        times: Which noise times are visited.
        weighting: How much each counts.
        frame_times: How noise times vary over the frames of a clip; None for one time per clip.

    Raises:
        ValueError: If the preconditioning is not made for the target.

    Source:
        Kingma & Gao 2023, "Understanding Diffusion Objectives as the ELBO with Simple Data
        Augmentation", arXiv:2303.00848, section 2: the weighted loss that all of them are.
    """

    schedule: NoiseSchedule
    target: Target
    preconditioning: Preconditioning = field(default_factory=NoPreconditioning)
    times: TimeDistribution = field(default_factory=Uniform)
    weighting: Weighting = field(default_factory=Constant)
    frame_times: FrameTimes | None = None

    def __post_init__(self) -> None:
        self.preconditioning.check_target(self.target)

    def sample_times(self, u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Training times from uniform numbers in [0, 1), one per sample."""
        return self.times.sample(u, self.schedule)

    def sample_frame_times(self, u: Float[Tensor, "b draws"]) -> Float[Tensor, "b t"]:
        """Training times of every frame from uniform numbers, see :meth:`FrameTimes.sample`."""
        rule = SharedTime() if self.frame_times is None else self.frame_times
        return rule.sample(u, self.times, self.schedule)

    def denoiser(self, network: Network) -> Denoiser:
        """The denoiser that this loss trains the network to be."""
        return Denoiser(network, self.schedule, self.target, self.preconditioning)

    def __call__(
        self,
        network: Network,
        x0: Sample,
        cond: Conditioning,
        eps: Sample,
        t: Float[Tensor, " b *frames"],
        mask: Float[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, " b"]:
        """The loss of every sample of a batch.

        Args:
            network: The network in training.
            x0: Clean latents.
            cond: What the network is told. Frames or regions that are given
                (``cond.given_mask``) do not count in the loss.
            eps: Standard normal noise.
            t: Noise times, e.g. from :meth:`sample_times`, or one per frame ``(b, t)``: then each
                frame has its own noise level and weight, and those at time 0 do not count.
                ``cond.token_times`` take precedence.
            mask: 1 where the loss counts, 0 for padding; broadcasts over ``x0``.
        """
        t = at_least_float32(times_of(t, cond))
        xt = self.schedule.add_noise(x0, eps, t)
        pred = self.denoiser(network).predict(xt, t, cond)
        error = pred - self.target(self.schedule, x0, eps, t)
        if cond.given_mask is not None:
            free = 1 - cond.given_mask
            mask = free if mask is None else mask * free
        weight = self.weighting(self.schedule, self.target, t)
        if t.ndim == 1:
            return weight * masked_mean(error**2, mask)
        # Target and weight may be infinite where there is no noise, so 0 times them is not enough.
        noisy = t > 0
        error = torch.where(expand_as(noisy, error), error, 0)
        weight = expand_as(torch.where(noisy, weight, 0), error)
        counts = expand_as(noisy.to(error.dtype), error)
        return masked_mean(weight * error**2, counts if mask is None else mask * counts)
