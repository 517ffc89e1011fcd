"""How are denoisers combined into a better one?

Every function takes denoisers and returns a denoiser, so guidance rules nest and samplers know
nothing of them. At a given ``xt``, ``x0``, ``eps``, ``v`` and ``velocity`` are affine in one
another, so guiding ``x0`` as here is guiding any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.schedules import at_least_float32
from vdm.types import Denoise
from vdm.utils.tensors import expand_as


def _extrapolate(start: Tensor, end: Tensor, scale: float | Tensor) -> Tensor:
    start, end = at_least_float32(start), at_least_float32(end)
    return start + scale * (end - start)


def classifier_free(cond: Denoise, uncond: Denoise, scale: float | Tensor) -> Denoise:
    """``uncond + scale * (cond - uncond)``.

    Args:
        cond: The conditional denoiser.
        uncond: The unconditional one, or one told a negative prompt.
        scale: 1 is no guidance and costs one evaluation; a tensor broadcasts over the latents.

    Source:
        Ho & Salimans 2022, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, eq. 6 with
        ``scale = 1 + w``.
    """
    if isinstance(scale, (int, float)) and scale == 1:
        return cond
    return lambda xt, t: _extrapolate(uncond(xt, t), cond(xt, t), scale)


def frame_ramp(cond: Denoise, uncond: Denoise, first: float, last: float) -> Denoise:
    """Classifier-free guidance whose scale goes linearly from the first frame to the last.

    Args:
        cond: The conditional denoiser.
        uncond: The unconditional one.
        first: Scale at the first latent frame: 1 in Stable Video Diffusion.
        last: Scale at the last one: 3 there.

    Source:
        Blattmann et al. 2023, arXiv:2311.15127, linearly increasing guidance.
    """
    if first == last:
        return classifier_free(cond, uncond, first)

    def guided(xt: Tensor, t: Tensor) -> Tensor:
        end = at_least_float32(cond(xt, t))
        frames = torch.linspace(first, last, xt.shape[2], dtype=end.dtype, device=end.device)
        return _extrapolate(uncond(xt, t), end, frames.reshape(1, 1, -1, 1, 1))

    return guided


def two_scales(
    cond: Denoise,
    uncond: Denoise,
    high: float,
    low: float,
    is_high: Callable[[Tensor], Tensor],
) -> Denoise:
    """Classifier-free guidance with one scale at much noise and one at little.

    Args:
        cond: The conditional denoiser.
        uncond: The unconditional one.
        high: Scale at much noise.
        low: Scale at little noise.
        is_high: At which noise times there is much noise.

    Source:
        Wan-AI/Wan2.2-T2V-A14B, which has a network for either.
    """

    def guided(xt: Tensor, t: Tensor) -> Tensor:
        end = at_least_float32(cond(xt, t))
        scales = torch.where(is_high(t), high, low).to(end)
        return _extrapolate(uncond(xt, t), end, expand_as(scales, end))

    return guided


def dynamic_cosine(
    cond: Denoise,
    uncond: Denoise,
    scale: float,
    times: Float[Tensor, " points"],
    index: Literal["timestep", "step"] = "timestep",
    num_timesteps: int = 1000,
) -> Denoise:
    """Classifier-free guidance with the scale ``1 + scale * (1 - cos(pi * ((n - k) / n)**5)) / 2``.

    Args:
        cond: The conditional denoiser.
        uncond: The unconditional one.
        scale: How far above 1 the scale goes.
        times: The sampling grid, ``n + 1`` times.
        index: What ``k`` is: ``"timestep"``, the entry of the DDPM table as in the released code,
            where the scale oscillates; or ``"step"``, the step of the sampler, where it falls from
            ``1 + scale`` to 1.
        num_timesteps: Entries of the table.

    Source:
        Yang et al. 2024, arXiv:2408.06072, and its released sampling code.
    """
    if index not in ("timestep", "step"):
        raise ValueError(f"got index={index!r}, expected 'timestep' or 'step'")
    n = len(times) - 1

    def guided(xt: Tensor, t: Tensor) -> Tensor:
        if index == "timestep":
            k = (num_timesteps * t.to(torch.float64) - 1).round()
        else:  # samplers hand over the grid's times rounded to the precision of t
            k = (times.to(t)[None] > t[:, None]).sum(1)
        scales = 1 + scale * (1 - torch.cos(math.pi * ((n - k) / n) ** 5)) / 2
        end = at_least_float32(cond(xt, t))
        return _extrapolate(uncond(xt, t), end, expand_as(scales.to(end.dtype), end))

    return guided


def interval(guided: Denoise, plain: Denoise, low: float, high: float) -> Denoise:
    """Guidance at noise times ``low < t <= high`` only; outside one evaluation of ``plain``.

    Args:
        guided: The denoiser inside the interval.
        plain: The one outside, usually the conditional denoiser.
        low: Lower end in noise time; ``schedule.t_from_edm_sigma`` gives it from a noise level.
        high: Upper end.

    Raises:
        ValueError: If the interval is empty.

    Source:
        Kynkaanniemi et al. 2024, "Applying Guidance in a Limited Interval Improves Sample and
        Distribution Quality in Diffusion Models", arXiv:2404.07724, section 3.
    """
    if not low < high:
        raise ValueError(f"got low={low}, high={high}, expected low < high, in noise time")

    def limited(xt: Tensor, t: Tensor) -> Tensor:
        inside = (t > low) & (t <= high)
        if inside.all():  # reads the device once per step; skipping an evaluation is the point
            return guided(xt, t)
        if not inside.any():
            return plain(xt, t)
        end = plain(xt, t)
        return torch.where(expand_as(inside, end), guided(xt, t), end)

    return limited


def rescaled(cond: Denoise, uncond: Denoise, scale: float | Tensor, rescale: float) -> Denoise:
    """Classifier-free guidance brought back to the standard deviation of the conditional estimate.

    Args:
        cond: The conditional denoiser.
        uncond: The unconditional one.
        scale: Guidance scale.
        rescale: 0 leaves the guided estimate, 1 rescales it fully; the paper uses 0.7.

    Raises:
        ValueError: If ``rescale`` is not in [0, 1].

    Source:
        Lin et al. 2023, arXiv:2305.08891, eq. 14-16, applied to ``x0`` rather than to the raw
        prediction.
    """
    if not 0 <= rescale <= 1:
        raise ValueError(f"got rescale={rescale}, expected 0 to 1")
    if rescale == 0 or (isinstance(scale, (int, float)) and scale == 1):
        return classifier_free(cond, uncond, scale)

    def guided(xt: Tensor, t: Tensor) -> Tensor:
        end = cond(xt, t)
        x0 = _extrapolate(uncond(xt, t), end, scale)
        spread = x0.flatten(1).std(1).clamp_min(torch.finfo(x0.dtype).tiny)  # 0 / 0 at alpha = 0
        ratio = end.to(x0.dtype).flatten(1).std(1) / spread
        return x0 * expand_as(rescale * ratio + (1 - rescale), x0)

    return guided


def autoguidance(strong: Denoise, weak: Denoise, scale: float | Tensor) -> Denoise:
    """``weak + scale * (strong - weak)`` with a smaller or less trained model of the same task.

    Args:
        strong: The model, with its conditioning.
        weak: The worse model, with the same conditioning.
        scale: 1 is no guidance and costs one evaluation.

    Source:
        Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself",
        arXiv:2406.02507, section 4.
    """
    return classifier_free(strong, weak, scale)


@dataclass(frozen=True)
class ThreeWayScales:
    """How far guidance leads to the words, and how far to the given frames, step by step.

    Args:
        text: Scale of the words.
        image: Scale of the given frames.
        steady_steps: After so many steps both are 1 in every other one; None for never.
        ramps_frames: Whether the scale of the given frames goes from 1 at the first latent frame to
            its value at the last, and this to 1 over the steps.

    Source:
        Peng et al. 2025, "Open-Sora 2.0", arXiv:2503.09642, section 4.3, as in its released code.
    """

    text: float = 7.5
    image: float = 3.0
    steady_steps: int | None = 10
    ramps_frames: bool = False

    def at(self, step: int, num_steps: int, num_frames: int) -> tuple[float, float | Tensor]:
        """Scales of words and of given frames; the latter for every latent frame if they differ."""
        text, image = self.text, self.image
        if self.steady_steps is not None and step >= self.steady_steps and step % 2:
            text = image = 1.0
        if not self.ramps_frames or image <= 1:
            return text, image
        last = image + (1 - image) * step / num_steps
        return text, torch.linspace(1.0, last, num_frames)


def three_way(
    cond: Denoise,
    wordless: Denoise,
    blind: Denoise | None,
    scales: ThreeWayScales,
    times: Float[Tensor, " points"],
) -> Denoise:
    """``blind + image * (wordless - blind) + text * (cond - wordless)``.

    Args:
        cond: Told the words and shown the given frames.
        wordless: Shown the given frames, told nothing or a negative prompt.
        blind: Told the same, and shown nothing; None where there is nothing to show.
        scales: How far each step goes.
        times: The sampling grid, ``n + 1`` times.

    Source:
        Brooks et al. 2023, "InstructPix2Pix", arXiv:2211.09800, eq. 3; Peng et al. 2025,
        arXiv:2503.09642.
    """
    num_steps = len(times) - 1

    def guided(xt: Tensor, t: Tensor) -> Tensor:
        ends = [at_least_float32(denoise(xt, t)) for denoise in (cond, wordless)]
        # Samplers hand over the grid's times rounded to the precision of t.
        step = int((times.to(t) > t[0]).sum())
        text, image = scales.at(step, num_steps, xt.shape[2])
        words = text * (ends[0] - ends[1])
        if blind is None:
            return ends[1] + words
        if isinstance(image, Tensor):
            image = image.to(ends[0]).reshape(1, 1, -1, 1, 1)
        return _extrapolate(blind(xt, t), ends[1], image) + words

    return guided
