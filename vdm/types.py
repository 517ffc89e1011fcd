"""What passes between the parts: the conditioning record and the two call signatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Latents = Float[Tensor, "b c t h w"]
Video = Float[Tensor, "b 3 frames height width"]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``denoise(xt, t) -> x0``: an estimate of the clean latents; conditioning is inside."""

NUMBERS: Final = frozenset(
    {"fps", "motion_bucket", "noise_aug", "size", "guidance", "token_times", "starts"}
)
"""Fields of :class:`Conditioning` that hold plain numbers, which half precision would round."""


class Autoencoder(nn.Module):
    """What a recipe may name where an autoencoder is asked for.

    Of any module, the command line would look through all that are loaded, thousands, dozens of
    times, before it takes the path of a trained autoencoder for one.
    """


@dataclass
class Conditioning:
    """Everything a network may be told besides the noisy latents and the noise level.

    Every field is optional and batch first. A network raises if it is handed a field that it does
    not read, or lacks one that it needs (see :meth:`check`).
    """

    text: Float[Tensor, "b n d"] | None = None
    """Text-encoder states."""
    text_mask: Float[Tensor, "b n"] | None = None
    """1 where a text token is valid."""
    pooled_text: Float[Tensor, "b d_pooled"] | None = None
    """One vector for the whole text."""
    image: Float[Tensor, "b m d_image"] | None = None
    """Image-encoder tokens."""
    label: Int[Tensor, " b"] | None = None
    """Class labels."""
    given: Float[Tensor, "b c t h w"] | None = None
    """What the network sees of given latents, in the scale it was trained with: as they are where
    they are given, elsewhere whatever it was trained to see there."""
    given_mask: Float[Tensor, "b masks t h w"] | None = None
    """1 where given; one mask, or one for each frame of pixels that a latent frame stands for."""
    fps: Float[Tensor, " b"] | None = None
    motion_bucket: Float[Tensor, " b"] | None = None
    noise_aug: Float[Tensor, " b"] | None = None
    size: Float[Tensor, "b 2"] | None = None
    """Height and width in pixels."""
    guidance: Float[Tensor, " b"] | None = None
    """Embedded guidance scale."""
    token_times: Float[Tensor, "b t"] | None = None
    """Noise time per latent frame, where it varies; a ``Denoiser`` hands it on as noise level."""
    starts: Float[Tensor, "b t"] | None = None
    """Frame of the clip at which every latent frame begins, where they do not follow each other."""
    flow: Float[Tensor, "b 2 t h w"] | None = None
    """Optical flow, pixels per frame."""
    camera: Float[Tensor, "b 6 t h w"] | None = None
    """Pluecker rays."""

    def present(self) -> dict[str, Tensor]:
        """The fields that are set, by name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}

    def map(self, function: Callable[[Tensor], Tensor]) -> Conditioning:
        """Apply a function to every field that is set."""
        return Conditioning(**{name: function(value) for name, value in self.present().items()})

    def select(self, index: slice | Sequence[int] | Tensor) -> Conditioning:
        """The conditioning of some samples of the batch."""
        index = torch.as_tensor(index) if not isinstance(index, slice) else index
        return self.map(lambda value: value[index])

    def without_words(self) -> Conditioning:
        """A copy with zeros in the place of every text."""
        words = {"text": self.text, "pooled_text": self.pooled_text}
        zeros = {name: torch.zeros_like(x) for name, x in words.items() if x is not None}
        return self.replace(**zeros)

    def replace(self, **changes: Tensor | None) -> Conditioning:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """Move every field, as :meth:`torch.Tensor.to` does.

        A dtype changes states, latents and maps only: integers and plain numbers keep theirs.
        """

        def move(name: str, value: Tensor) -> Tensor:
            if value.is_floating_point() and name not in NUMBERS:
                return value.to(*args, **kwargs)
            return value.to(value[:0].to(*args, **kwargs).device)  # the device alone

        return Conditioning(**{name: move(name, value) for name, value in self.present().items()})

    def check(self, network: str, reads: set[str], needs: set[str]) -> None:
        """Refuse fields that a network would ignore, and the absence of those it needs.

        Args:
            network: Name of the network, for the message.
            reads: Fields that the network can read.
            needs: Fields that the network cannot do without.

        Raises:
            ValueError: If a field is surplus or missing.
        """
        have = set(self.present())
        if surplus := sorted(have - reads):
            raise ValueError(
                f"{network} does not read {', '.join(surplus)}; "
                f"it reads: {', '.join(sorted(reads)) or 'nothing'}"
            )
        if missing := sorted(needs - have):
            raise ValueError(
                f"{network} needs {', '.join(missing)}; got: {', '.join(sorted(have)) or 'nothing'}"
            )


@runtime_checkable
class Network(Protocol):
    """A denoising network."""

    def __call__(
        self, x: Latents, c_noise: Float[Tensor, " b *frames"], cond: Conditioning
    ) -> Latents:
        """Noisy latents, noise level in the network's own units, conditioning -> raw output.

        The noise level is one number per sample, or one per latent frame where it varies.
        """
        ...
