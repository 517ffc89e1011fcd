"""What scale latents have, and which clips have any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vdm.types import Latents
from vdm.utils.tensors import expand_as


class LatentNormalizer(nn.Module):
    """Per-channel standardisation of raw latents, with constants measured once after training.

    Args:
        num_channels: Latent channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_channels))
        self.register_buffer("std", torch.ones(num_channels))

    def set(self, mean: Float[Tensor, " c"], std: Float[Tensor, " c"]) -> None:
        """Take over measured statistics of raw latents.

        Raises:
            ValueError: If the shapes differ from the number of channels.
        """
        if mean.shape != self.mean.shape or std.shape != self.std.shape:
            raise ValueError(
                f"got statistics of shape {tuple(mean.shape)} and {tuple(std.shape)}, "
                f"expected {tuple(self.mean.shape)}"
            )
        self.mean.copy_(mean)
        self.std.copy_(std)

    def normalize(self, raw: Latents) -> Latents:
        """Raw latents to unit variance."""
        return (raw - self._per_channel(self.mean, raw)) / self._per_channel(self.std, raw)

    def denormalize(self, latents: Latents) -> Latents:
        """The inverse of :meth:`normalize`."""
        return latents * self._per_channel(self.std, latents) + self._per_channel(
            self.mean, latents
        )

    def normalize_given(self, raw: Latents) -> Latents:
        """Raw latents of given frames, as a network sees them: the same."""
        return self.normalize(raw)

    @staticmethod
    def _per_channel(values: Tensor, like: Tensor) -> Tensor:
        return expand_as(values.to(like.dtype), like.transpose(0, 1)).transpose(0, 1)


class LatentScale(ABC):
    """What published raw latents are put through before a network sees them."""

    @abstractmethod
    def normalize(self, raw: Latents) -> Latents:
        """Raw latents to about unit variance."""

    @abstractmethod
    def denormalize(self, latents: Latents) -> Latents:
        """The inverse of :meth:`normalize`."""

    def normalize_given(self, raw: Latents) -> Latents:
        """Raw latents of given frames, as a network sees them."""
        return self.normalize(raw)


@dataclass(frozen=True)
class Factor(LatentScale):
    """One number.

    Args:
        factor: What raw latents are multiplied by.
        is_inverse_for_given: Whether those of given frames are divided by it instead.
    """

    factor: float
    is_inverse_for_given: bool = False

    def normalize(self, raw: Latents) -> Latents:
        """Multiply."""
        return raw * self.factor

    def denormalize(self, latents: Latents) -> Latents:
        """Divide."""
        return latents / self.factor

    def normalize_given(self, raw: Latents) -> Latents:
        """Divide, or multiply."""
        return raw / self.factor if self.is_inverse_for_given else self.normalize(raw)


@dataclass(frozen=True)
class Standard(LatentScale):
    """Measured mean and standard deviation of every channel.

    Args:
        mean: Of raw latents.
        std: Likewise.

    Raises:
        ValueError: If there are not as many of one as of the other.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"got {len(self.mean)} means and {len(self.std)} standard deviations, expected as "
                "many"
            )

    def normalize(self, raw: Latents) -> Latents:
        """Subtract and divide."""
        mean, std = self._tables(raw)
        return (raw - mean) / std

    def denormalize(self, latents: Latents) -> Latents:
        """Multiply and add."""
        mean, std = self._tables(latents)
        return latents * std + mean

    def _tables(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (
            like.new_tensor(values)[:, None, None, None] for values in (self.mean, self.std)
        )
        return mean, std


def draw(mean: Latents, logvar: Latents, generator: torch.Generator | None) -> Latents:
    """Draw from the posterior.

    Args:
        mean: Of raw latents.
        logvar: Logarithm of their variance.
        generator: Where noise comes from. It is made there in float32 and then moved, so a
            generator on the CPU draws the same for every device and precision.
    """
    device = mean.device if generator is None else generator.device
    eps = torch.randn(mean.shape, generator=generator, dtype=torch.float32, device=device)
    return mean + torch.exp(0.5 * logvar) * eps.to(mean)


class LatentStatistics:
    """Streaming per-channel mean and standard deviation, in float64, over many clips."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def update(self, raw: Latents) -> None:
        """Add a batch of raw latents."""
        values = raw.detach().double().transpose(0, 1).flatten(1)
        self.count += values.shape[1]
        self.total = self.total + values.sum(1)
        self.squares = self.squares + values.square().sum(1)

    def mean_and_std(self) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
        """The statistics of all latents so far, float32.

        Raises:
            ValueError: If nothing was added.
        """
        if not isinstance(self.total, Tensor) or not isinstance(self.squares, Tensor):
            raise ValueError("got no latents, expected at least one batch")
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp_min(1e-12)
        return mean.float(), variance.sqrt().float()


def check_video(video: Float[Tensor, "b c t h w"], strides: tuple[int, int, int]) -> None:
    """Refuse clips that cannot be encoded.

    Args:
        video: Clips.
        strides: Pixels per latent along (t, h, w).

    Raises:
        ValueError: If they have no three channels, or a side that is no multiple of the stride.
    """
    if video.ndim != 5 or video.shape[1] != 3:
        raise ValueError(f"got video {tuple(video.shape)}, expected (b, 3, t, h, w)")
    sizes = zip(("height", "width"), video.shape[3:], strides[1:], strict=True)
    for name, size, stride in sizes:
        if size % stride or size == 0:
            nearest = max(stride, round(size / stride) * stride)
            raise ValueError(
                f"got {name} {size}, expected a multiple of {stride}; the nearest is {nearest}"
            )
