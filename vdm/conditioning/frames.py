"""Which latent frames of a clip are given to the network: none, the first, the past, keyframes.

The same weights then make clips from text alone, continue a picture, and fill in between keyframes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor

from vdm.conditioning.given import Fill, GivenMask, Masked, NoiseAugmentation, Showing
from vdm.types import Latents
from vdm.utils.choices import check_weights, random_count, split_choice

Uniforms = Float[Tensor, "b draws"]


class GivenFrames(ABC):
    """A rule that says which frames are given."""

    @property
    def shown(self) -> Showing:
        """How the network sees them: masked and without noise, where nothing else is said."""
        return Showing()

    @abstractmethod
    def choose(self, num_frames: int, u: Uniforms) -> Bool[Tensor, "b t"]:
        """Which frames are given, for every sample.

        Args:
            num_frames: Latent frames in the clip.
            u: Uniform numbers in [0, 1), ``num_frames + 1`` for every sample.
        """

    def sample(self, latents: Latents, generator: torch.Generator) -> GivenMask:
        """A mask over latents, 1 where given, drawn from a generator."""
        shape = (len(latents), latents.shape[2] + 1)
        u = torch.rand(shape, generator=generator, device=generator.device)
        return given_mask(self.choose(latents.shape[2], u), latents)


def given_mask(frames: Bool[Tensor, "b t"], latents: Latents) -> GivenMask:
    """A mask over latents, 1 where given, from the frames that are given."""
    h, w = latents.shape[3:]
    return repeat(frames.to(latents), "b t -> b 1 t h w", h=h, w=w)


@dataclass(frozen=True)
class NoFrames(GivenFrames):
    """No frame is given: text alone decides."""

    def choose(self, num_frames: int, u: Uniforms) -> Bool[Tensor, "b t"]:
        """None of them."""
        return torch.zeros(len(u), num_frames, dtype=torch.bool, device=u.device)


@dataclass(frozen=True)
class FirstFrames(GivenFrames):
    """The first frames are given.

    Args:
        count: How many.

    Raises:
        ValueError: If it is none.
    """

    count: int = 1

    def __post_init__(self) -> None:
        """Check the count."""
        _check_positive("count", self.count)

    def choose(self, num_frames: int, u: Uniforms) -> Bool[Tensor, "b t"]:
        """The first ones, but never all."""
        frames = torch.arange(num_frames, device=u.device) < min(self.count, num_frames - 1)
        return repeat(frames, "t -> b t", b=len(u))


@dataclass(frozen=True)
class PastFrames(GivenFrames):
    """A past of random length is given, each length being as likely.

    Args:
        least: Fewest frames.
        most: Most frames; all but the last one if not given.

    Raises:
        ValueError: If the lengths are not positive and in order.
    """

    least: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        """Check the lengths."""
        _check_positive("least", self.least)
        if self.most is not None and self.most < self.least:
            raise ValueError(f"got most={self.most}, expected at least {self.least}")

    def choose(self, num_frames: int, u: Uniforms) -> Bool[Tensor, "b t"]:
        """As many as the first number says, but never all."""
        counts = random_count(u[:, :1], self.least, self.most, num_frames)
        return torch.arange(num_frames, device=u.device) < counts


@dataclass(frozen=True)
class RandomKeyframes(GivenFrames):
    """A random set of frames is given.

    Args:
        least: Fewest frames.
        most: Most frames; all but one if not given.

    Raises:
        ValueError: If the counts are not positive and in order.
    """

    least: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        """Check the counts."""
        _check_positive("least", self.least)
        if self.most is not None and self.most < self.least:
            raise ValueError(f"got most={self.most}, expected at least {self.least}")

    def choose(self, num_frames: int, u: Uniforms) -> Bool[Tensor, "b t"]:
        """The first number says how many, the others which ones."""
        counts = random_count(u[:, :1], self.least, self.most, num_frames)
        rank = u[:, 1 : num_frames + 1].argsort(1).argsort(1)
        return rank < counts


@dataclass(frozen=True)
class Keyframes(GivenFrames):
    """Frames at equal distances are given, the first one included: the task of an interpolator.

    Args:
        stride: Frames from one to the next.

    Raises:
        ValueError: If the stride would give every frame.
    """

    stride: int = 2

    def __post_init__(self) -> None:
        """Check the stride."""
        if self.stride < 2:
            raise ValueError(f"got stride={self.stride}, expected at least 2")

    def choose(self, num_frames: int, u: Uniforms) -> Bool[Tensor, "b t"]:
        """Every ``stride``-th one; a clip of one frame is not given at all."""
        frames = torch.arange(num_frames, device=u.device) % self.stride == 0
        if num_frames == 1:
            frames = torch.zeros_like(frames)
        return repeat(frames, "t -> b t", b=len(u))


@dataclass(frozen=True)
class Mixture(GivenFrames):
    """One of several rules, drawn for every sample.

    Args:
        rules: The rules.
        weights: How likely each is, up to a common factor.

    Raises:
        ValueError: If there is not one non-negative weight per rule, or all are zero.
    """

    rules: Sequence[GivenFrames]
    weights: Sequence[float]

    def __post_init__(self) -> None:
        """Check the weights."""
        check_weights(len(self.rules), self.weights)
        _check_silent(self.rules)

    def choose(self, num_frames: int, u: Uniforms) -> Bool[Tensor, "b t"]:
        """The first number says which rule; what is left of it is uniform again."""
        frames = torch.zeros(len(u), num_frames, dtype=torch.bool, device=u.device)
        for index, mine, left in split_choice(u[:, :1], self.weights):
            rest = torch.cat((left, u[:, 1:]), dim=1)
            frames = torch.where(mine, self.rules[index].choose(num_frames, rest), frames)
        return frames


@dataclass(frozen=True)
class Shown(GivenFrames):
    """A rule, and how the network sees what it gives.

    Args:
        rule: Which frames are given.
        fill: What stands where none is given: ``Masked``, ``Nearest``, or a ``Hint``.
        noise: Noise on what is given, for networks that read ``noise_aug``; None for none.

    Raises:
        ValueError: If the rule says itself how it is seen.
    """

    rule: GivenFrames
    fill: Fill = field(default_factory=Masked)
    noise: NoiseAugmentation | None = None

    def __post_init__(self) -> None:
        """Check that there is one answer."""
        _check_silent([self.rule])

    @property
    def shown(self) -> Showing:
        """As these arguments say."""
        return Showing(self.fill, self.noise)

    def choose(self, num_frames: int, u: Uniforms) -> Bool[Tensor, "b t"]:
        """Those of the rule."""
        return self.rule.choose(num_frames, u)


def _check_silent(rules: Sequence[GivenFrames]) -> None:
    """Refuse rules that say how they are seen, where another one does."""
    if said := [rule for rule in rules if rule.shown != Showing()]:
        raise ValueError(f"got {type(said[0]).__name__} inside another rule, expected it outermost")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"got {name}={value}, expected at least 1")
