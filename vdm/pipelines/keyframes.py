"""Given frames ahead of a clip, or in it with a share of noise: read, placed and held."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vdm.pipelines.given import load_movie, read_image
from vdm.pipelines.inputs import common_batch, repeat_to
from vdm.types import Denoise, Latents
from vdm.utils.rng import SampleNoise
from vdm.utils.tensors import expand_as
from vdm.utils.time_grid import TimeGrid

if TYPE_CHECKING:
    from vdm.pipelines.generate import Generator

TOLERANCE = 1e-6
"""Of noise times that count as equal."""


@dataclass(frozen=True)
class Piece:
    """Given frames side by side.

    Args:
        clip: In [-1, 1].
        start: Frame of the whole clip where they begin.
        strength: 1 where they are given wholly, less where they are made anew in part.
    """

    clip: Float[Tensor, "b 3 t h w"]
    start: int
    strength: float = 1.0


@dataclass(frozen=True)
class Held:
    """Latents to start from, those of given frames among them.

    Args:
        latents: Of the frames ahead, and of the clip.
        strength: How strongly each is given, 0 where it is not.
        starts: Frame of the clip where each begins.
        noise: Standard deviation of the noise on what is given wholly, at noise time 1.
    """

    latents: Latents
    strength: Float[Tensor, " t"]
    starts: Float[Tensor, "1 t"]
    noise: float

    def keep(self, denoise: Denoise, stream: SampleNoise) -> Denoise:
        """A denoiser that changes no latents before they have as much noise as all others.

        What is given wholly is shown as it is with new noise every time, and ends like that.

        Args:
            denoise: Takes one noise time per latent frame.
            stream: Where the noise comes from, token by token.
        """

        def held(xt: Tensor, t: Tensor) -> Tensor:
            latest = 1 - self.strength.to(t)
            is_whole = rearrange(latest < TOLERANCE, "t -> t 1 1")
            _, c, frames, h, w = xt.shape
            seen = xt
            if self.noise:
                eps = rearrange(
                    stream.draw((frames * h * w, c)), "b (t h w) c -> b c t h w", t=frames, h=h
                )
                noisy = self.latents.to(xt) + expand_as(self.noise * t**2, xt).to(xt) * eps.to(xt)
                seen = torch.where(is_whole, noisy, xt)
            waits = expand_as(t[:, None] - TOLERANCE >= latest, xt)
            return torch.where(waits, seen, denoise(seen, torch.minimum(t[:, None], latest)))

        return held


def read_pieces(
    generator: Generator,
    ends: tuple[Any, Any],
    video: Any,
    mask: Any,
    grid: TimeGrid,
    size: tuple[int, int],
    raw: dict[str, Tensor],
) -> list[Piece]:
    """The given frames, one piece after the other.

    Args:
        generator: A model whose ``given`` is :class:`vdm.conditioning.given.GivenAhead`.
        ends: The first frame and the last, or None.
        video: Given frames; without a mask the first ones.
        mask: One number for each frame of the clip, how strongly it is given. Frames side by side
            that are given alike are one piece.
        grid: The clip's time axis.
        size: Height and width of the clip in pixels.
        raw: What the user says of single fields.

    Raises:
        ValueError: If they contradict each other or the clip's length, or a piece fills no whole
            latents.
    """
    if "given" in raw or "given_mask" in raw:
        raise ValueError(
            f"got cond.given, model {generator.parts.name!r} has a place for frames alone: "
            "expected image, last_image or video"
        )
    pictures = {"image": ends[0], "last_image": ends[1]}
    names = [name for name, end in pictures.items() if end is not None]
    if names and video is not None:
        raise ValueError(f"got {names[0]} and video, expected one of them")
    if mask is not None and video is None:
        raise ValueError("got mask without video, expected both")
    if video is None:
        frames = {name: read_image(pictures[name], *size)[:, :, None] for name in names}
        common_batch(**{name: len(frame) for name, frame in frames.items()})
        places = {"image": 0, "last_image": grid.num_frames - 1}
        return [Piece(frame, places[name]) for name, frame in frames.items()]
    movie, wanted = load_movie(video, *size), grid.num_frames
    have = movie.shape[2]
    if mask is None and have > wanted:
        raise ValueError(f"got {have} given frames, expected at most num_frames={wanted}")
    strengths = _strengths(torch.arange(wanted) < have if mask is None else mask, wanted)
    found, begins = [], 0
    for strength, alike in groupby(strengths):
        count = len(list(alike))
        if strength:
            found.append((begins, count, strength))
        begins += count
    marked = sum(count for _, count, _ in found)
    if have not in (wanted, marked):
        raise ValueError(f"got {have} given frames, expected {wanted} or the {marked} of the mask")
    pieces, passed = [], 0
    for start, count, strength in found:
        _check_piece(start, count, grid.stride, generator.parts.given.num_ahead)
        first = start if have == wanted else passed
        pieces.append(Piece(movie[:, :, first : first + count], start, strength))
        passed += count
    if not pieces or min(strengths) == 1:
        raise ValueError(f"got {marked} of {wanted} frames given, expected some, and some left")
    return pieces


def _strengths(mask: Any, num_frames: int) -> list[float]:
    """How strongly each frame is given."""
    values = torch.as_tensor(mask).float()
    if values.shape != (num_frames,):
        raise ValueError(
            f"got a mask of shape {tuple(values.shape)}, expected ({num_frames},): this model is "
            "given whole frames"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("got a mask with values outside [0, 1], expected 1 where given wholly")
    return values.tolist()


def _check_piece(start: int, count: int, stride: int, num_ahead: int) -> None:
    """Refuse pieces that do not fill whole latents, or whose latents are not those of the clip."""
    if (count - 1) % stride:
        nearest = 1 + round((count - 1) / stride) * stride
        raise ValueError(
            f"got {count} given frames side by side, expected 1 more than a multiple of {stride}; "
            f"nearest: {nearest}"
        )
    if (count - 1) // stride >= num_ahead and start % stride:
        raise ValueError(
            f"got {count} given frames from frame {start} on, expected them to begin at a multiple "
            f"of {stride}; nearest: {round(start / stride) * stride}"
        )


def place_pieces(
    generator: Generator, pieces: list[Piece], x: Latents, stream: SampleNoise
) -> Held:
    """Latents of given frames in their places.

    Args:
        generator: A model whose ``given`` is :class:`vdm.conditioning.given.GivenAhead`.
        pieces: The given frames.
        x: What sampling would start from without them.
        stream: What is drawn for each sample, in the published order: of every piece its latents,
            and then the noise on those ahead.
    """
    rule, stride = generator.parts.given, generator.geometry.strides[0]
    x, strength = x.clone(), torch.zeros(x.shape[2])
    ahead, starts, strengths = [], [], []
    for piece in pieces:
        place, rest = 0, _drawn(generator, piece.clip, stream).to(x)
        if piece.start:
            front, rest = rest.tensor_split([rule.num_ahead], dim=2)
            place = piece.start // stride + rule.num_ahead
            eps = stream.draw(front.shape[1:]).to(x)
            ahead.append(torch.lerp(eps, front, piece.strength))
            starts.append(piece.start + _begins(front.shape[2], stride))
            strengths.append(torch.full((front.shape[2],), piece.strength))
        inside = slice(place, place + rest.shape[2])
        x[:, :, inside] = torch.lerp(x[:, :, inside], rest, piece.strength)
        strength[inside] = piece.strength
    begins = torch.cat([*starts, _begins(x.shape[2], stride)])
    latents, strength = torch.cat([*ahead, x], dim=2), torch.cat([*strengths, strength])
    return Held(latents, strength.to(x), begins[None], rule.noise)


def _begins(count: int, stride: int) -> Float[Tensor, " {count}"]:
    """Frames at which the latent frames of a clip begin, the first standing for one alone."""
    return (torch.arange(count) * stride + 1 - stride).clamp_min(0).float()


def _drawn(generator: Generator, clip: Tensor, stream: SampleNoise) -> Latents:
    """Latents of a clip, drawn for each sample from what the autoencoder says of it."""
    clips = repeat_to(clip, len(stream.generators)).to(generator.device, generator.dtype)
    with generator._working("autoencoder"):
        return torch.cat(
            [
                generator.autoencoder.encode(one, sample=True, generator=own).float()
                for one, own in zip(clips.split(1), stream.generators, strict=True)
            ]
        )
