"""What causal video VAEs are put together from: blocks, levels, encoder and decoder.

Every layer is called with the next piece of a clip and what it has to know besides: the past, and
in decoders the latents. Where nothing is differentiated, blocks work in one memory: a norm writes
into it, the convolution after it overwrites it. Video is channels-last, so frames lie one after the
other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm.layers.conv import CausalConv3d, StreamState, Volume, empty_room


@dataclass(frozen=True)
class Piece:
    """What layers know of the piece of a clip that they work on.

    Args:
        state: The past of the clip, advanced by layers.
        latents: Raw latents that are decoded; None in an encoder.
    """

    state: StreamState
    latents: Volume | None = None


class PieceNorm(nn.Module, ABC):
    """A normalisation that can write where it is told to."""

    @abstractmethod
    def forward(self, x: Volume, piece: Piece, out: Tensor | None = None) -> Volume:
        """Normalise.

        Args:
            x: The piece.
            piece: What is known besides.
            out: Where the result goes, ``x`` itself if wanted; without gradients only.
        """


class NormedConv(nn.Module):
    """Norm, SiLU, causal convolution.

    Args:
        norm: The norm.
        conv: The convolution, without stride.
    """

    def __init__(self, norm: PieceNorm, conv: CausalConv3d) -> None:
        super().__init__()
        self.norm, self.conv = norm, conv

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        if torch.is_grad_enabled():
            return self.conv(F.silu(self.norm(x, piece)), piece.state)
        return self.in_room(x, self.room(x), piece)[:, :, self.num_past :]

    @property
    def num_past(self) -> int:
        """Frames that the convolution looks back."""
        return self.conv.kernel_size[0] - 1

    def room(self, x: Volume) -> Volume:
        """Memory for the norm's result and the past before it."""
        return empty_room(x, self.num_past)

    def in_room(self, x: Volume, room: Volume, piece: Piece) -> Volume:
        """Transform a piece in the memory given, as :meth:`CausalConv3d.in_room` does."""
        present = room[:, :, self.num_past :]
        self.norm(x, piece, out=present)
        F.silu(present, inplace=True)
        return self.conv.in_room(room, piece.state)


class ResBlock(nn.Module):
    """Two convolutions with a shortcut.

    Args:
        first: Norm and convolution to the channels of the output.
        second: Norm and convolution.
        shortcut: From the channels of the input to those of the output.
    """

    def __init__(self, first: NormedConv, second: NormedConv, shortcut: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = first, second, shortcut

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        if torch.is_grad_enabled():
            return self.second(self.first(x, piece), piece) + self.shortcut(x)
        room = self.first.in_room(x, self.first.room(x), piece)
        room = self.second.in_room(room[:, :, self.first.num_past :], room, piece)
        return room[:, :, self.second.num_past :].add_(self.shortcut(x))


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

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        for block in self.blocks:
            x = block(x, piece)
        return x if self.resize is None else self.resize(x, piece)


class CausalDesign(ABC):
    """What the parts of a family of causal VAEs are, and in which pieces it takes a clip.

    A frozen dataclass of the settings that its members differ in.
    """

    is_causal: bool
    """Whether no frame depends on a later one."""

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

    def block(self, in_channels: int, channels: int, latent_channels: int | None) -> ResBlock:
        """A residual block."""
        return ResBlock(
            NormedConv(self.norm(in_channels, latent_channels), self.conv(in_channels, channels)),
            NormedConv(self.norm(channels, latent_channels), self.conv(channels, channels)),
            nn.Identity() if in_channels == channels else self.conv(in_channels, channels, 1),
        )


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
        self.embed = design.conv(3, width)
        levels = []
        for next_width, in_time in zip(widths, [*halves_time, None], strict=True):
            blocks = []
            for _ in range(depth):
                blocks.append(design.block(width, next_width, None))
                width = next_width
            levels.append(Level(blocks, None if in_time is None else design.shrink(width, in_time)))
        self.levels = nn.ModuleList(levels)
        self.middle = nn.ModuleList(design.middle(width, None))
        self.out = NormedConv(design.norm(width, None), design.conv(width, 2 * latent_channels))

    def forward(self, video: Volume, state: StreamState) -> Volume:
        """Mean and log-variance of a piece, one behind the other."""
        piece = Piece(state)
        x = self.embed(video.contiguous(memory_format=torch.channels_last_3d), state)
        for layer in (*self.levels, *self.middle):
            x = layer(x, piece)
        return self.out(x, piece)


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
        width = widths[-1]
        self.embed = design.conv(latent_channels, width)
        self.middle = nn.ModuleList(design.middle(width, latent_channels))
        levels = []
        for next_width, in_time in zip(reversed(widths), [*doubles_time, None], strict=True):
            blocks = []
            for _ in range(depth):
                blocks.append(design.block(width, next_width, latent_channels))
                width = next_width
            levels.append(
                Level(blocks, None if in_time is None else design.enlarge(width, in_time))
            )
        self.levels = nn.ModuleList(levels)
        self.out = NormedConv(design.norm(width, latent_channels), design.conv(width, 3))

    def forward(self, raw: Volume, state: StreamState) -> Volume:
        """Frames of a piece of latents."""
        raw = raw.contiguous(memory_format=torch.channels_last_3d)
        piece = Piece(state, raw)
        x = self.embed(raw, state)
        for layer in (*self.middle, *self.levels):
            x = layer(x, piece)
        return self.out(x, piece)
