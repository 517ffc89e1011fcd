"""How does a causal denoiser make a clip chunk after chunk?

Each chunk of latent frames is denoised by any sampler while the network remembers the frames before
it; then the network is shown the finished chunk and remembers that too. Nothing is computed twice,
and the earlier frames never change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.denoiser import Denoiser
from vdm.diffusion.guidance import classifier_free
from vdm.diffusion.preconditioning import Preconditioning
from vdm.diffusion.samplers import Noise
from vdm.diffusion.schedules import NoiseSchedule
from vdm.diffusion.targets import Target
from vdm.types import Conditioning, Latents

Sampler = Callable[..., Tensor]
Step = Callable[[Tensor, Tensor, Conditioning, Any], tuple[Tensor, Any]]
"""How a causal network goes on: ``step(x, c_noise, cond, cache)`` gives the raw output for the next
frames and a cache with these frames in it, which knows its ``num_bytes``."""


class Remembering:
    """A causal network at one place in a clip: it is called like any network.

    Args:
        step: The network's own step.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.cache: Any = None
        self._ahead: Any = None

    def __call__(self, x: Latents, c_noise: Tensor, cond: Conditioning) -> Latents:
        """The raw output for the next frames; what is remembered stays as it is."""
        raw, self._ahead = self.step(x, c_noise, cond, self.cache)
        return raw

    def advance(self) -> None:
        """Remember the frames of the last call too: the next call is about the ones after."""
        self.cache, self._ahead = self._ahead, None


class Rollout:
    """The latents of a clip in the making.

    Args:
        step: The network's own step.
        schedule: The noise schedule.
        target: What the network predicts.
        preconditioning: The scales around it.
        sampler: A function of ``vdm.diffusion.samplers``.
        times: Its grid, the same for every chunk.
        cond: What the network is told; fields with a frame axis are not possible.
        uncond: What it is told for the prediction that guidance leads away from; None without
            guidance. It has a memory of its own.
        guidance_scale: See :func:`vdm.diffusion.guidance.classifier_free`.
        context_time: The noise time at which finished frames are remembered. 0 shows them as they
            are; a little noise hides the small errors that would otherwise add up.

    Raises:
        ValueError: If the context is nothing but noise.

    Source:
        Chen et al. 2024, "Diffusion Forcing", arXiv:2407.01392: autoregressive sampling, and its
        stabilisation by a context that is slightly noisy.
    """

    def __init__(
        self,
        step: Step,
        schedule: NoiseSchedule,
        target: Target,
        preconditioning: Preconditioning,
        sampler: Sampler,
        times: Float[Tensor, " points"],
        cond: Conditioning,
        uncond: Conditioning | None = None,
        guidance_scale: float = 1.0,
        context_time: float = 0.0,
    ) -> None:
        if not 0 <= context_time < 1:
            raise ValueError(f"got context_time={context_time}, expected 0 (clean) to less than 1")
        self.schedule, self.sampler, self.times = schedule, sampler, times
        self.context_time = context_time
        self.told = [cond] if uncond is None else [cond, uncond]
        self.memories = [Remembering(step) for _ in self.told]
        self.denoisers = [
            Denoiser(memory, schedule, target, preconditioning) for memory in self.memories
        ]
        bound = [one.bind(told) for one, told in zip(self.denoisers, self.told, strict=True)]
        self.denoise = (
            bound[0] if uncond is None else classifier_free(bound[0], bound[1], guidance_scale)
        )

    @property
    def cache_bytes(self) -> int:
        """Bytes that the network remembers, over all memories."""
        return sum(memory.cache.num_bytes for memory in self.memories if memory.cache is not None)

    def sample(self, x: Latents, noise: Noise | None = None) -> Latents:
        """The next latent frames, from noise.

        Args:
            x: Standard normal noise.
            noise: Draws more, for samplers that need it.
        """
        x = x * self.schedule.start_std(float(self.times[0]))
        return self.sampler(self.denoise, self.schedule, x, self.times, noise=noise)

    def remember(self, x0: Latents, noise: Noise) -> None:
        """Go on behind these latent frames.

        Args:
            x0: Finished frames, sampled or given.
            noise: Draws noise for the context, if it is to have some.
        """
        t = torch.full((len(x0),), self.context_time, device=x0.device)
        eps = noise(x0) if self.context_time > 0 else torch.zeros_like(x0)
        xt = self.schedule.add_noise(x0, eps, t)
        for denoiser, told, memory in zip(self.denoisers, self.told, self.memories, strict=True):
            denoiser.predict(xt, t, told)
            memory.advance()
