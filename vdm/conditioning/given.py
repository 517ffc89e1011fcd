"""What a network sees of given latents: what stands where none is given, and how much noise.

Which latents are given is another question (see :mod:`vdm.conditioning.frames`). This is the one
place where both are made into ``Conditioning.given``; networks read it as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from vdm.types import Latents
from vdm.utils.tensors import expand_as

GivenMask = Float[Tensor, "b 1 t h w"]
PerSample = Float[Tensor, " b"]


class Fill(ABC):
    """A rule that says what stands where nothing is given."""

    is_hint = False
    """Whether unmarked latents are shown too: then they must not be the ones to make."""
    keeps_given = True
    """Whether what is given comes back as it is, or is made anew like everything else."""

    @abstractmethod
    def fill(self, given: Latents, mask: GivenMask) -> Latents:
        """Latents to show.

        Args:
            given: Latents; only those that are given count, unless the rule is one of hints.
            mask: 1 where given.
        """


@dataclass(frozen=True)
class Masked(Fill):
    """Zero: masked latents beside their mask.

    Source:
        Blattmann et al. 2023, "Align your Latents", arXiv:2304.08818, section 3.2.
    """

    def fill(self, given: Latents, mask: GivenMask) -> Latents:
        """Given latents, and zero elsewhere."""
        return given * mask


@dataclass(frozen=True)
class Nearest(Fill):
    """The nearest given latent in time, the earlier of two; zero where a place has none at all.

    Source:
        Ho et al. 2022, "Imagen Video", arXiv:2210.02303, section 2.3; Wang et al. 2023, "LaVie",
        arXiv:2309.15103, section 3.3: frames are repeated. Here the mask tells which are true.
    """

    def fill(self, given: Latents, mask: GivenMask) -> Latents:
        """Given latents, repeated in time."""
        frames = torch.arange(given.shape[2], device=given.device)
        ahead = rearrange(frames, "s -> s 1 1") - rearrange(frames, "t -> t 1 1 1")
        # Twice the distance, and one more to a later frame: no two are equally far.
        distance = 2 * ahead.abs() + (ahead > 0)
        out_of_reach = 2 * given.shape[2]
        index = (distance + out_of_reach * (1 - mask)).argmin(dim=2)  # over s of b t s h w
        repeated = given.gather(2, repeat(index, "b t h w -> b c t h w", c=given.shape[1]))
        return repeated * mask.amax(dim=2, keepdim=True)


@dataclass(frozen=True)
class Repeated(Nearest):
    """As :class:`Nearest`, for networks that are not told which latents are the true ones.

    They make these anew, too.

    Source:
        Wang et al. 2023, "LaVie", arXiv:2309.15103, section 3.3; its inference code.
    """

    keeps_given = False


@dataclass(frozen=True)
class Hint(Fill):
    """Everything is shown, marked or not: latents of a poorer copy of the clip.

    Source:
        Ho et al. 2022, "Imagen Video", arXiv:2210.02303, section 2.3: spatial super-resolution.
    """

    is_hint = True

    def fill(self, given: Latents, mask: GivenMask) -> Latents:
        """The latents as they are."""
        return given


@dataclass(frozen=True)
class NoiseAugmentation:
    """Noise on what is given, by a level that the network is told (``Conditioning.noise_aug``).

    A network trained so can be given latents that another model made, with errors of their own. The
    level is the standard deviation of the noise, latents having unit variance.

    Args:
        most: Highest level in training; levels are uniform from 0.
        sampling: Level in sampling.

    Raises:
        ValueError: If the levels are not ``0 <= sampling <= most`` and some noise.

    Source:
        Ho et al. 2022, "Cascaded Diffusion Models for High Fidelity Image Generation",
        arXiv:2106.15282, section 4.2; the noise is added as in Blattmann et al. 2023, "Stable Video
        Diffusion", arXiv:2311.15127, appendix D.
    """

    most: float = 0.4
    sampling: float = 0.05

    def __post_init__(self) -> None:
        """Check the levels."""
        if not 0 <= self.sampling <= self.most or self.most == 0:
            raise ValueError(
                f"got most={self.most}, sampling={self.sampling}, "
                "expected 0 <= sampling <= most and more than 0"
            )

    def level(self, u: PerSample) -> PerSample:
        """Levels in training from uniform numbers in [0, 1), one per sample."""
        return self.most * u

    def add(self, given: Latents, level: PerSample, eps: Latents) -> Latents:
        """Noisy latents.

        Args:
            given: Clean latents.
            level: Standard deviation of the noise, one per sample.
            eps: Standard normal noise.
        """
        return given + expand_as(level, given) * eps


@dataclass(frozen=True)
class InPlace:
    """Given frames stand in the clip itself, without noise, at noise time 0.

    The network sees nothing else of them, so it is one that is told a noise level for every frame.

    Source:
        Chen et al. 2024, "Diffusion Forcing", arXiv:2407.01392, section 3; the first frame in
        Wan-AI/Wan2.2-TI2V-5B; Zheng et al. 2024, "Open-Sora", arXiv:2412.20404, section 3.
    """


@dataclass(frozen=True)
class DrawnInPlace(InPlace):
    """The same; latents of a picture are drawn from what the autoencoder says of it.

    Source:
        HaCohen et al. 2024, "LTX-Video", arXiv:2501.00103, as in its pipeline of diffusers.
    """


@dataclass(frozen=True)
class GivenAhead:
    """Given frames stand ahead of the clip and tell where in it they belong, each strongly or less.

    Those that begin it stand in their place, and so does what of a longer piece comes behind its
    first latent frames. All have as much noise as they lack of being given wholly, and are made
    anew from there on; what is given wholly gets a little, of which the network is not told.

    Args:
        noise: Its standard deviation at noise time 1; it falls with the square of the noise time.
        num_ahead: Latent frames of a longer piece that stand ahead.

    Source:
        HaCohen et al. 2024, "LTX-Video", arXiv:2501.00103, its models from version 0.9.5 on, as in
        their pipeline of diffusers.
    """

    noise: float = 0.15
    num_ahead: int = 2


@dataclass(frozen=True)
class GivenApart:
    """Given frames are clips of their own at the beginning, at the end, or at both.

    Their latents, each encoded by itself, stand with a mask beside the noise of the whole clip, and
    take their places in it when it is made. Guidance leads to the words and to given frames, each
    with a scale of its own.

    Args:
        steady_steps: After so many steps nothing is led anywhere in every other one; None for
            never.

    Source:
        Peng et al. 2025, "Open-Sora 2.0", arXiv:2503.09642, section 4.3, as in its released code.
        That puts pictures in their places, and leaves longer clips as they were made.
    """

    steady_steps: int | None = 10


@dataclass(frozen=True)
class Showing:
    """How given latents become the input of a network.

    Args:
        fill: What stands where nothing is given.
        noise: Noise on what is given; None for none.
    """

    fill: Fill = field(default_factory=Masked)
    noise: NoiseAugmentation | None = None

    def or_none(self) -> Showing | None:
        """Nothing, where it is what is done where nothing is said."""
        return None if self == Showing() else self

    def source(self, x0: Latents, hint: Latents | None) -> Latents:
        """The latents to show in training: the clip's own, or those of a poorer copy.

        Args:
            x0: Clean latents.
            hint: Latents of the poorer copy, where the data have one.

        Raises:
            ValueError: If the rule shows hints and there are none, or the other way round.
        """
        if self.fill.is_hint != (hint is not None):
            got = "no hint" if hint is None else "a hint"
            raise ValueError(
                f"got {got} in the batch and fill {type(self.fill).__name__}, expected hints "
                "(data.view.low_size) with fill Hint and with no other"
            )
        return x0 if hint is None else hint

    def show(
        self,
        given: Latents,
        mask: GivenMask,
        level: PerSample | None = None,
        eps: Latents | None = None,
    ) -> Latents:
        """What the network sees.

        Args:
            given: Clean latents.
            mask: 1 where given.
            level: Standard deviation of the noise on them, one per sample; None for none.
            eps: Standard normal noise, where there is a level.
        """
        if self.noise is not None and level is not None and eps is not None:
            given = self.noise.add(given, level, eps)
        return self.fill.fill(given, mask)
