"""Which guidance a call asks for, and the denoiser that it makes of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vdm.conditioning.given import GivenAhead, GivenApart
from vdm.diffusion import guidance, samplers
from vdm.diffusion.denoiser import Denoiser
from vdm.diffusion.learned_range import RangedDenoiser
from vdm.pipelines.request import Scale, check_scale
from vdm.pretrained.parts import Parts
from vdm.types import Conditioning, Denoise

if TYPE_CHECKING:
    from vdm.pipelines.generate import Generator


@dataclass(frozen=True)
class Guide:
    """How far predictions are led away from what is not wanted.

    Args:
        scale: 1 is not at all; a pair is a ramp from the first frame to the last.
        low_scale: Another for the network that predicts at little noise, where there are two.
        boundary: Where that one begins, in the units of ``c_noise``.
        is_dynamic: Whether the scale varies over the steps.
        num_channels: How many channels are led away, from the first; None for all.
        apart: How frames are given to a model that leads to them with the second scale.
    """

    scale: Scale
    low_scale: float | None = None
    boundary: float = 0.0
    is_dynamic: bool = False
    num_channels: int | None = None
    apart: GivenApart | None = None

    @property
    def is_on(self) -> bool:
        """Whether there is any."""
        return self.scale != 1.0 or self.low_scale not in (None, 1.0)

    def notes(self) -> dict[str, Any]:
        """What a clip notes of it."""
        second = {} if self.low_scale is None else {"guidance_scale_2": self.low_scale}
        return {"guidance_scale": self.scale, **second, "dynamic_guidance": self.is_dynamic}

    def denoise(
        self,
        denoiser: Denoiser | RangedDenoiser,
        positive: Conditioning,
        negative: Conditioning | None,
        times: Tensor,
    ) -> Denoise:
        """Network, schedule, target and guidance as one function ``(xt, t) -> x0``.

        Args:
            denoiser: The network on its schedule.
            positive: What is wanted.
            negative: What is not; None without guidance.
            times: The grid of sampling times.

        Raises:
            ValueError: If the scale varies where some channels alone are led away.
        """
        wanted = denoiser.bind(positive)
        if negative is None:
            return wanted
        unwanted = denoiser.bind(negative)
        if self.apart is not None:
            return self._three_ways(denoiser, wanted, negative, times)
        is_ranged = isinstance(denoiser, RangedDenoiser)
        if is_ranged or self.num_channels is not None:
            return self._by_channel(wanted, unwanted, is_ranged)
        if isinstance(self.scale, tuple):
            return guidance.frame_ramp(wanted, unwanted, *self.scale)
        if self.is_dynamic:
            return guidance.dynamic_cosine(wanted, unwanted, self.scale, times)
        if self.low_scale is None:
            return guidance.classifier_free(wanted, unwanted, self.scale)

        def is_high(t: Tensor) -> Tensor:
            return denoiser.preconditioning.c_noise(denoiser.schedule, t) >= self.boundary

        return guidance.two_scales(wanted, unwanted, self.scale, self.low_scale, is_high)

    def _three_ways(
        self,
        denoiser: Denoiser | RangedDenoiser,
        wanted: Denoise,
        negative: Conditioning,
        times: Tensor,
    ) -> Denoise:
        """To the words by the one scale, and to given frames by the other."""
        assert isinstance(self.scale, float)
        assert self.apart is not None
        unwanted, blind, mask = denoiser.bind(negative), None, negative.given_mask
        is_still = False
        if mask is not None:
            blind = denoiser.bind(negative.replace(given=None, given_mask=None))
            frames = mask.amax((0, 1, 3, 4))
            is_still = not (frames[1:] * frames[:-1]).any()  # pictures, none longer
        second = 1.0 if self.low_scale is None else self.low_scale
        scales = guidance.ThreeWayScales(self.scale, second, self.apart.steady_steps, is_still)
        return guidance.three_way(wanted, unwanted, blind, scales, times)

    def _by_channel(self, wanted: Denoise, unwanted: Denoise, is_ranged: bool) -> Denoise:
        """A scale for the channels that are led away, none for what is said of the variance."""
        scale = self.scale
        if isinstance(scale, tuple) or self.is_dynamic or self.low_scale is not None:
            raise ValueError(
                "got guidance that varies for a model of which some channels alone are guided, "
                "expected one number"
            )

        def guided(xt: Tensor, t: Tensor) -> Tensor:
            channels = xt.shape[1]
            scales = torch.ones(channels * (2 if is_ranged else 1), 1, 1, 1, device=xt.device)
            scales[: self.num_channels or channels] = scale
            return guidance.classifier_free(wanted, unwanted, scales)(xt, t)

        return guided


def denoiser_of(generator: Generator, sample: Any) -> Denoiser | RangedDenoiser:
    """The network with what it predicts, on which schedule, in which scales.

    Args:
        generator: The model.
        sample: The sampler; some take a denoiser that says something of the variance as well.

    Raises:
        ValueError: If the network says nothing of the variance that the sampler asks for.
    """
    parts, network = generator.parts, generator.network
    rules = (parts.schedule, parts.target, parts.preconditioning)
    if sample not in samplers.RANGED:
        return Denoiser(generator._call_network, *rules)
    if not getattr(getattr(network, "options", None), "predicts_variance", False):
        raise ValueError(
            f"got sampler {sample.__name__!r} for {parts.name}, whose network says nothing of "
            "the variance; expected e.g. 'ancestral'"
        )
    return RangedDenoiser(generator._call_with_variance, *rules)


def read_guide(
    parts: Parts,
    scale: float | Sequence[float] | None,
    low_scale: float | None,
    is_dynamic: bool | None,
) -> Guide:
    """The guidance of a call; what is not given is the model's own.

    Args:
        parts: The model.
        scale: A number or a ramp.
        low_scale: A number for the second of two networks, that of the first if it is given alone;
            or for given frames.
        is_dynamic: Whether the scale varies over the steps.

    Raises:
        ValueError: If they do not go together, or with the model.
    """
    defaults, boundary = parts.defaults, getattr(parts.network, "boundary", None)
    apart = parts.given if isinstance(parts.given, GivenApart) else None
    if low_scale is not None and boundary is None and apart is None:
        raise ValueError(
            f"got guidance_scale_2={low_scale:g}, expected None: model {parts.name!r} has one "
            "network"
        )
    if low_scale is None and (scale is None or apart is not None):
        low_scale = defaults.guidance_scale_2
    found = check_scale(defaults.guidance_scale if scale is None else scale)
    dynamic = defaults.dynamic_guidance if is_dynamic is None else is_dynamic
    if dynamic and isinstance(found, tuple):
        raise ValueError(f"got dynamic_guidance and the ramp {found}, expected one number")
    if isinstance(found, tuple) and isinstance(parts.given, GivenAhead):
        raise ValueError(
            f"got the ramp {found} for model {parts.name!r}, whose given frames stand ahead of the "
            "first, expected one number"
        )
    if low_scale is not None and (dynamic or isinstance(found, tuple)):
        kind = "dynamic_guidance" if dynamic else f"the ramp {found}"
        raise ValueError(f"got guidance_scale_2={low_scale:g} and {kind}, expected one of them")
    return Guide(found, low_scale, boundary or 0.0, dynamic, defaults.guided_channels, apart)


def unsaid(generator: Generator, negative: Conditioning) -> Conditioning:
    """What guidance leads away from, where nothing is said, as the model was trained to hear it.

    Raises:
        ValueError: If texts are longer than the one that the network has for none.
    """
    if getattr(generator.text_encoder, "is_silent", False):
        return negative.without_words()
    null: Tensor | None = getattr(generator.network, "null_text", None)
    if null is None or negative.text is None:
        return negative
    b, n = negative.text.shape[:2]
    if n > len(null):
        raise ValueError(f"got texts of {n} tokens, expected at most {len(null)}")
    return negative.replace(text=null[:n].to(negative.text).expand(b, -1, -1))
