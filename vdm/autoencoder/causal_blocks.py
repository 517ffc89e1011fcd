"""What causal video VAEs are put together from: blocks, levels, encoder and decoder.

Every layer is called with the next piece of a clip and what it has to know besides: the past, and
in decoders the latents. Where nothing is differentiated, norms and the convolutions after them take
one frame at a time and write where it came from. Video is channels-last, so frames lie one after
the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm.layers.conv import CausalConv3d, Frame, StreamState, Volume, empty_frames

Step = Callable[..., Tensor]


@dataclass(frozen=True)
class Piece:
    """What layers know of the piece of a clip that they work on.

    Args:
        state: The past of the clip, advanced by layers.
        latents: Raw latents that are decoded; None in an encoder.
    """

    state: StreamState
    latents: Volume | None = None


@runtime_checkable
class FrameRule(Protocol):
    """How single frames of a piece are normalised."""

    def __call__(self, number: int, out: Tensor | None = None) -> Tensor:
        """One frame.

        Args:
            number: Which.
            out: Where the result goes; without gradients only.
        """
        ...


class PieceNorm(nn.Module, ABC):
    """A normalisation that can be applied frame by frame."""

    @abstractmethod
    def rule(self, x: Volume, piece: Piece) -> FrameRule:
        """How the frames of a piece are normalised: what depends on all of them is known then."""

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Normalise a piece."""
        rule = self.rule(x, piece)
        return torch.stack([rule(number) for number in range(x.shape[2])], dim=2)


class NormedConv(nn.Module):
    """Norm, SiLU, causal convolution.

    Args:
        norm: The norm.
        conv: The convolution, without stride.
    """

    def __init__(self, norm: PieceNorm, conv: CausalConv3d) -> None:
        super().__init__()
        self.norm, self.conv = norm, conv

    def forward(self, x: Volume, piece: Piece, out: Volume | None = None) -> Volume:
        """Transform a piece.

        Args:
            x: The piece.
            piece: What is known besides.
            out: Memory for the result, which may be that of ``x``; not used with gradients.
        """
        if torch.is_grad_enabled():
            return self.conv(F.silu(self.norm(x, piece)), piece.state)
        rule = self.norm.rule(x, piece)
        if x.shape[2] == 1:  # the result is as it comes, and what is remembered where x was
            room = empty_frames(x, 1, x.shape[1]) if out is None else out
            out = self._next(rule, 0, room[:, :, 0], piece)[:, :, None]
        else:
            out = empty_frames(x, x.shape[2], self.conv.out_channels) if out is None else out
            for number in range(x.shape[2]):
                room = empty_frames(x, 1, x.shape[1])[:, :, 0]
                out[:, :, number] = self._next(rule, number, room, piece)
        piece.state.leave(self.conv)
        return out

    def _next(self, rule: FrameRule, number: int, room: Frame, piece: Piece) -> Frame:
        rule(number, out=room)
        return self.conv.next(F.silu(room, inplace=True), piece.state)


class ResBlock(nn.Module):
    """Two convolutions with a shortcut.

    Args:
        first: Norm and convolution to the channels of the output.
        second: Norm and convolution.
        shortcut: Convolution of single positions to the channels of the output, if they are others.
    """

    def __init__(
        self, first: NormedConv, second: NormedConv, shortcut: CausalConv3d | None
    ) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = first, second, shortcut

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        h = self.first(x, piece)
        h = self.second(h, piece, out=h)
        if self.shortcut is None:
            return h.add_(x)
        if torch.is_grad_enabled():
            return h + self.shortcut(x)
        for made, frame in zip(h.unbind(2), x.unbind(2), strict=True):
            made += self.shortcut.next(frame, piece.state)
        return h


class Level(nn.Module):
    """Blocks of one size, and the way to the next one.

    Args:
        blocks: The blocks.
        resize: The way to the next size; None at the end.
    """

    def __init__(self, blocks: Sequence[nn.Module], resize: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resize = resize

    def steps(self) -> list[Step]:
        """What is called one after the other, so that nobody keeps what went in before."""
        if self.resize is None:
            return [*self.blocks]
        steps = getattr(self.resize, "steps", None)
        return [*self.blocks, *([self.resize] if steps is None else steps())]

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        return run(Level.steps(self), x, piece)


def run(steps: Sequence[Step], x: Tensor, piece: Piece) -> Tensor:
    """Call modules one after the other."""
    for step in steps:
        x = step(x, piece)
    return x


def run_frames(steps: Sequence[Step], x: Tensor, piece: Piece) -> Iterator[Tensor]:
    """The same for frames that nothing but causal layers couples.

    Each goes all the way before the next, so that only one is in memory where they are largest.
    """
    waiting = [(x, 0)]
    del x
    while waiting:
        x, done = waiting.pop()
        if x.shape[2] > 1:  # copied, so that each is let go of by itself
            waiting += [(frame.clone(), done) for frame in reversed(x.split(1, dim=2))]
        elif done == len(steps):
            yield x
        else:
            x = steps[done](x, piece)
            waiting.append((x, done + 1))
        del x


class CausalDesign(ABC):
    """What the parts of a family of causal VAEs are, and in which pieces it takes a clip.

    A frozen dataclass of the settings that its members differ in.
    """

    is_causal: bool
    """Whether no frame depends on a later one."""
    maps_latents = False
    """Whether moments and latents pass through a linear map on their way out and in."""
    patch_size = 1
    """Side of the square of pixels that is folded into channels."""
    channels = 3
    """Channels of what is encoded: those of pixels, or latents of another VAE."""
    shrinks_space = True
    """Whether every level but the last halves height and width."""
    normed_conv = NormedConv
    """How norm, SiLU and a convolution of a cube are computed."""
    res_block = ResBlock
    """How two of them with a shortcut are."""

    @abstractmethod
    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> CausalConv3d:
        """A convolution of a cube."""

    @abstractmethod
    def norm(self, channels: int, latent_channels: int | None) -> PieceNorm:
        """A norm; in decoders, of latents with this number of channels."""

    @abstractmethod
    def middle(self, channels: int, latent_channels: int | None) -> list[nn.Module]:
        """The blocks at the coarsest size."""

    @abstractmethod
    def shrink(self, channels: int, in_time: bool) -> nn.Module:
        """Half the height and width, and about half the frames if so wanted."""

    @abstractmethod
    def enlarge(self, channels: int, in_time: bool) -> nn.Module:
        """The opposite way."""

    @abstractmethod
    def encode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """Frames of the pieces that the next frames of a clip are encoded in."""

    @abstractmethod
    def decode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """Latent frames of the pieces that the next ones of a clip are decoded in."""

    def num_frames(self, num_latent_frames: int, stride: int) -> int:
        """How many frames latents of a clip are decoded to, where a latent is so many."""
        return 1 + (num_latent_frames - 1) * stride

    def encoder_in(self, channels: int, width: int) -> CausalConv3d:
        """The first layer of an encoder."""
        return self.conv(channels, width)

    def encoder_out(self, width: int, channels: int) -> CausalConv3d:
        """The last layer of an encoder."""
        return self.conv(width, channels)

    def enlarged(self, channels: int) -> int:
        """Channels after :meth:`enlarge`."""
        return channels

    def down_level(
        self, blocks: list[ResBlock], in_channels: int, channels: int, in_time: bool | None
    ) -> Level:
        """A level of an encoder.

        Args:
            blocks: Its blocks.
            in_channels: Channels of its input.
            channels: Channels of its output.
            in_time: Whether there are fewer frames after it; None if it is the last.
        """
        return Level(blocks, None if in_time is None else self.shrink(channels, in_time))

    def up_level(
        self, blocks: list[ResBlock], in_channels: int, channels: int, in_time: bool | None
    ) -> Level:
        """A level of a decoder, of the same arguments."""
        return Level(blocks, None if in_time is None else self.enlarge(channels, in_time))

    def fold(self, video: Volume) -> Volume:
        """Pixels as the encoder takes them."""
        return video

    def unfold(self, folded: Volume) -> Volume:
        """Pixels out of what the decoder gives."""
        return folded

    def block(self, in_channels: int, channels: int, latent_channels: int | None) -> ResBlock:
        """A residual block."""
        ins = (in_channels, channels)
        first, second = (
            self.normed_conv(self.norm(width, latent_channels), self.conv(width, channels))
            for width in ins
        )
        shortcut = None if in_channels == channels else self.conv(in_channels, channels, 1)
        return self.res_block(first, second, shortcut)


class Encoder(nn.Module):
    """From frames to moments: down, the middle, and out.

    Args:
        design: What the parts are.
        latent_channels: Channels of the latents; mean and log-variance have as many each.
        widths: Channels of every level, from the finest.
        depth: Blocks of every level.
        halves_time: Whether frames are fewer after a level, for all but the last.
    """

    def __init__(
        self,
        design: CausalDesign,
        latent_channels: int,
        widths: Sequence[int],
        depth: int,
        halves_time: Sequence[bool],
    ) -> None:
        super().__init__()
        width = widths[0]
        self.embed = design.encoder_in(design.channels * design.patch_size**2, width)
        levels = []
        for next_width, in_time in zip(widths, [*halves_time, None], strict=True):
            ins = [width] + [next_width] * (depth - 1)
            blocks = [design.block(before, next_width, None) for before in ins]
            levels.append(design.down_level(blocks, width, next_width, in_time))
            width = next_width
        self.levels = nn.ModuleList(levels)
        self.middle = nn.ModuleList(design.middle(width, None))
        last = design.encoder_out(width, 2 * latent_channels)
        self.out = design.normed_conv(design.norm(width, None), last)

    def forward(self, video: Volume, state: StreamState) -> Volume:
        """Mean and log-variance of a piece, one behind the other."""
        piece = Piece(state)
        video = video.contiguous(memory_format=torch.channels_last_3d)
        levels = [step for level in self.levels for step in level.steps()]  # type: ignore[operator]
        return run([*levels, *self.middle, self.out], self.embed(video, state), piece)


class Decoder(nn.Module):
    """From latents to frames: the middle, up, and out.

    Args:
        design: What the parts are.
        latent_channels: Channels of the latents.
        widths: Channels of every level, from the finest.
        depth: Blocks of every level.
        doubles_time: Whether frames are more after a level, from the coarsest, for all but the
            last.
    """

    def __init__(
        self,
        design: CausalDesign,
        latent_channels: int,
        widths: Sequence[int],
        depth: int,
        doubles_time: Sequence[bool],
    ) -> None:
        super().__init__()
        width, self.is_causal = widths[-1], design.is_causal
        self.embed = design.conv(latent_channels, width)
        self.middle = nn.ModuleList(design.middle(width, latent_channels))
        levels = []
        for next_width, in_time in zip(reversed(widths), [*doubles_time, None], strict=True):
            ins = [width] + [next_width] * (depth - 1)
            blocks = [design.block(before, next_width, latent_channels) for before in ins]
            levels.append(design.up_level(blocks, width, next_width, in_time))
            width = next_width if in_time is None else design.enlarged(next_width)
        self.levels = nn.ModuleList(levels)
        pixels = design.channels * design.patch_size**2
        last = design.conv(width, pixels)
        self.out = design.normed_conv(design.norm(width, latent_channels), last)

    def forward(self, raw: Volume, state: StreamState) -> Volume:
        """Frames of a piece of latents."""
        raw = raw.contiguous(memory_format=torch.channels_last_3d)
        piece = Piece(state, raw)
        levels = [step for level in self.levels for step in level.steps()]  # type: ignore[operator]
        steps = [*self.middle, *levels, self.out]
        if self.is_causal:
            return torch.cat(list(run_frames(steps, self.embed(raw, state), piece)), dim=2)
        return run(steps, self.embed(raw, state), piece)
