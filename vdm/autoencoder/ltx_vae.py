"""The VAEs of LTX-Video: few, wide latents, of which a decoder makes 8192 numbers of video each.

Up to version 0.9.0 the decoder is told nothing; later ones are told how noisy latents are, and take
the rest of the noise out while they decode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from einops import rearrange
from torch import Tensor, nn

from vdm.autoencoder.causal_blocks import Piece, run
from vdm.autoencoder.causal_vae import ChunkedVAE
from vdm.autoencoder.latents import LatentNormalizer
from vdm.autoencoder.ltx_blocks import (
    Blocks,
    CentredConv3d,
    EnlargeByUnfold,
    LTXBlock,
    LTXPiece,
    ShrinkByConv,
    ShrinkByFold,
    make_normed_conv,
    told,
)
from vdm.autoencoder.wan_vae import FOLD, UNFOLD
from vdm.layers.conv import CausalConv3d, Frame, StreamState, Volume
from vdm.layers.embeddings import NoiseLevelEmbedding
from vdm.layers.pieces import is_short
from vdm.layers.positions import Axes
from vdm.types import Latents, Video
from vdm.utils.config import configurable


@dataclass(frozen=True)
class LTXEncoderSize:
    """How large an encoder is.

    Args:
        widths: Channels of every level, from the finest.
        depths: Blocks of every level that has some of its own.
        middle: Blocks at the end.
        strides: By how much frames, height and width shrink after every level; fewer than levels
            where the last do not shrink.
        folds: Whether they shrink by folding positions into the channels of the next level, as from
            version 0.9.5 on; otherwise by convolutions with strides of 2.

    Raises:
        ValueError: If there is not a width for every level, or a convolution has another stride.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    depths: tuple[int, ...] = (4, 3, 3, 3)
    middle: int = 4
    strides: tuple[Axes, ...] = ((2, 2, 2),) * 3
    folds: bool = False

    def __post_init__(self) -> None:
        """Check that the lengths fit together."""
        expected = len(self.depths) + self.folds
        if len(self.widths) != expected or len(self.strides) > len(self.depths):
            raise ValueError(
                f"got {len(self.widths)} widths and {len(self.strides)} strides for "
                f"{len(self.depths)} depths, expected {expected} and at most {len(self.depths)}"
            )
        if self.folds and len(self.strides) != len(self.depths):
            raise ValueError(f"got {len(self.strides)} strides, expected {len(self.depths)}")
        if not self.folds and any(tuple(stride) != (2, 2, 2) for stride in self.strides):
            raise ValueError(f"got strides {self.strides} of convolutions, expected (2, 2, 2)")


@dataclass(frozen=True)
class LTXDecoderSize:
    """How large a decoder is, and what it does besides.

    Args:
        widths: Channels of every level, from the finest.
        depths: Blocks of every level.
        middle: Blocks at the start.
        enlarges: Whether a level starts twice as large as the one before it.
        narrows: By how much the channels of a level are fewer than its width.
        has_shortcuts: Whether channels go past the convolutions that enlarge.
        grains: Whether noise is added in the blocks of a level, from the finest to the start.
        decode_time: The noise time that it is told; None for one that is not told.

    Raises:
        ValueError: If the lengths do not fit together.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    depths: tuple[int, ...] = (4, 3, 3, 3)
    middle: int = 4
    enlarges: tuple[bool, ...] = (True, True, True, False)
    narrows: int = 1
    has_shortcuts: bool = False
    grains: tuple[bool, ...] = (False,) * 5
    decode_time: float | None = None

    def __post_init__(self) -> None:
        """Check that the lengths fit together."""
        lengths = [len(self.widths), len(self.depths), len(self.enlarges), len(self.grains) - 1]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"got {lengths[0]} widths, {lengths[1]} depths, {lengths[2]} enlarges and "
                f"{lengths[3] + 1} grains, expected n, n, n, n + 1"
            )


class LTXDown(nn.Module):
    """A level of an encoder: blocks, the way to the next size, a block with more channels.

    Args:
        size: Of the encoder.
        level: Which.
    """

    def __init__(self, size: LTXEncoderSize, level: int) -> None:
        super().__init__()
        width = size.widths[level]
        wide = size.widths[min(level + 1, len(size.widths) - 1)]
        self.blocks = nn.ModuleList(LTXBlock(width, width) for _ in range(size.depths[level]))
        self.resize: ShrinkByFold | ShrinkByConv | None = None
        self.widen: LTXBlock | None = None
        if level < len(size.strides):
            stride = size.strides[level]
            self.resize = ShrinkByFold(width, wide, stride) if size.folds else ShrinkByConv(width)
        if wide != width and not size.folds:
            self.widen = LTXBlock(width, wide)

    def steps(self) -> list[nn.Module]:
        """Modules to be called one after the other."""
        further = (self.resize, self.widen)
        return [*self.blocks, *(module for module in further if module is not None)]


class LTXEncoder(nn.Module):
    """From frames to moments, causally.

    Args:
        size: How large.
        in_channels: Of squares of pixels.
        latent_channels: Channels of the latents.
    """

    def __init__(self, size: LTXEncoderSize, in_channels: int, latent_channels: int) -> None:
        super().__init__()
        width = size.widths[-1]
        self.embed = CausalConv3d(in_channels, size.widths[0], (3, 3, 3))
        self.levels = nn.ModuleList(LTXDown(size, level) for level in range(len(size.depths)))
        self.middle = nn.ModuleList(LTXBlock(width, width) for _ in range(size.middle))
        self.out = make_normed_conv(width, latent_channels + 1, is_causal=True)

    def forward(self, video: Volume, state: StreamState) -> Volume:
        """Means, and one log-variance for all of them, of a piece."""
        video = video.contiguous(memory_format=torch.channels_last_3d)
        levels = [step for level in self.levels for step in level.steps()]  # type: ignore[operator]
        steps = [*levels, *self.middle, self.out]
        return run(steps, self.embed(video, state), Piece(state))


class LTXUp(nn.Module):
    """A level of a decoder: a block with fewer channels, the way to its size, blocks.

    Args:
        size: Of the decoder.
        level: Which, from the finest.
        in_channels: Channels of the level before it, as it takes them.
    """

    def __init__(self, size: LTXDecoderSize, level: int, in_channels: int) -> None:
        super().__init__()
        width = size.widths[level] // size.narrows
        is_told, has_grain = size.decode_time is not None, size.grains[level]
        options = {"is_causal": False, "is_told": is_told, "has_grain": has_grain}
        self.widen: LTXBlock | None = None
        self.resize: EnlargeByUnfold | None = None
        if in_channels != width:
            self.widen = LTXBlock(in_channels, width, **options)
        if size.enlarges[level]:
            self.resize = EnlargeByUnfold(width * size.narrows, width, size.has_shortcuts)
        blocks = [LTXBlock(width, width, **options) for _ in range(size.depths[level])]
        self.group = Blocks(blocks, width if is_told else None)

    def steps(self) -> list[Callable[..., Tensor]]:
        """What is to be called one after the other."""
        first = (self.widen, self.resize)
        return [*(module for module in first if module is not None), *self.group.steps()]

    def stream(self, frames: Iterable[Frame], piece: Piece) -> Iterator[Frame]:
        """Transform a clip frame by frame."""
        for module in (self.widen, self.resize):
            frames = frames if module is None else module.stream(frames, piece)  # type: ignore[operator]
        return self.group.stream(frames, piece)


class LTXDecoder(nn.Module):
    """From latents to frames.

    Args:
        size: How large.
        latent_channels: Channels of the latents.
        out_channels: Of squares of pixels.

    Raises:
        ValueError: If it is told a noise level where channels become fewer in between.
    """

    def __init__(self, size: LTXDecoderSize, latent_channels: int, out_channels: int) -> None:
        super().__init__()
        width, is_told = size.widths[-1], size.decode_time is not None
        self.decode_time = size.decode_time
        self.has_grain = any(size.grains)
        self.embed = CentredConv3d(latent_channels, width, (3, 3, 3))
        options = {"is_causal": False, "is_told": is_told, "has_grain": size.grains[-1]}
        blocks = [LTXBlock(width, width, **options) for _ in range(size.middle)]
        self.middle = Blocks(blocks, width if is_told else None)
        levels = []
        for level in reversed(range(len(size.widths))):
            levels.append(LTXUp(size, level, width // size.narrows))
            width = size.widths[level] // size.narrows
            if is_told and levels[-1].widen is not None:
                raise ValueError(
                    f"got a decoder that is told a noise level with widths {size.widths}, which "
                    f"need further blocks, expected every width {size.narrows} times the one before"
                )
        self.levels = nn.ModuleList(levels)
        self.out = make_normed_conv(width, out_channels, False, 0 if is_told else None)
        self.time_embed = NoiseLevelEmbedding(2 * width) if is_told else None
        self.time_scale = nn.Parameter(torch.tensor(1000.0)) if is_told else None

    def forward(self, raw: Volume) -> Volume:
        """Frames of a whole clip; noise in between is the same in every call."""
        raw, piece = self._prepare(raw)
        levels = [step for each in self.levels for step in each.steps()]  # type: ignore[operator]
        x = run([*self.middle.steps(), *levels], self.embed(raw), piece)
        return self.out(x, told(piece, self.time_embed, 2))

    def stream(self, raw: Volume) -> Iterator[Frame]:
        """The same frames, one after the other, without gradients."""
        raw, piece = self._prepare(raw)
        frames = self.middle.stream(self.embed.stream(raw.unbind(2)), piece)
        for level in self.levels:
            frames = level.stream(frames, piece)  # type: ignore[operator]
        return self.out.stream(frames, told(piece, self.time_embed, 2))  # type: ignore[operator]

    def _prepare(self, raw: Volume) -> tuple[Volume, LTXPiece]:
        """Latents, and what is known besides."""
        raw = raw.contiguous(memory_format=torch.channels_last_3d)
        level: Tensor | None = None
        if self.time_scale is not None and self.decode_time is not None:
            level = (self.decode_time * self.time_scale).expand(len(raw))
        draws = torch.Generator("cpu").manual_seed(0) if self.has_grain else None
        return raw, LTXPiece(StreamState(), raw, level, draws=draws)


@configurable
class LTXVAE(ChunkedVAE):
    """The VAE of LTX-Video.

    Mean and deviation of every latent channel are among its weights.

    Args:
        encoder: How large the encoder is.
        decoder: How large the decoder is.
        latent_channels: Channels of the latents.
        patch_size: Side of the square of pixels that is folded into channels.

    Raises:
        ValueError: If the decoder does not enlarge what the encoder shrinks.

    Source:
        HaCohen et al. 2024, "LTX-Video: Realtime Video Latent Diffusion", arXiv:2501.00103,
        section 2.1.
    """

    is_causal = False

    def __init__(
        self,
        encoder: LTXEncoderSize = LTXEncoderSize(),
        decoder: LTXDecoderSize = LTXDecoderSize(),
        latent_channels: int = 128,
        patch_size: int = 4,
    ) -> None:
        super().__init__()
        times = (prod(axis) for axis in zip(*encoder.strides, strict=True))
        shrinks = tuple(times) or (1, 1, 1)
        if set(shrinks) != {2 ** sum(decoder.enlarges)}:
            raise ValueError(
                f"got an encoder that shrinks (t, h, w) {shrinks} times and a decoder that "
                f"enlarges them {2 ** sum(decoder.enlarges)} times, expected the same"
            )
        self.latent_channels, self.patch_size = latent_channels, patch_size
        self.strides = (shrinks[0], patch_size * shrinks[1], patch_size * shrinks[2])
        pixels = 3 * patch_size**2
        self.encoder = LTXEncoder(encoder, pixels, latent_channels)
        self.decoder = LTXDecoder(decoder, latent_channels, pixels)
        self.scale = LatentNormalizer(latent_channels)

    def encode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """One frame, then those of one latent frame at a time."""
        alone = [1] * is_start
        return alone + [self.strides[0]] * ((num_frames - len(alone)) // self.strides[0])

    def decode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """All at once.

        Raises:
            ValueError: If the clip has begun.
        """
        if not is_start:
            raise ValueError(
                f"got {num_frames} latent frames to go on with, expected the whole clip: the "
                "decoder looks ahead"
            )
        return [num_frames]

    def encode_chunk(self, video: Video, state: StreamState) -> tuple[Latents, Latents]:
        """All channels have the same variance."""
        folded = rearrange(video, FOLD, ph=self.patch_size, pw=self.patch_size)
        moments = self.encoder(folded, state)
        mean, logvar = moments[:, :-1], moments[:, -1:]
        return mean, logvar.clamp(-30, 20).expand_as(mean)

    def decode_chunk(self, raw: Latents, state: StreamState) -> Video:
        """All frames of a clip."""
        return self._unfold(self.decoder(raw))

    def _pieces(self, latents: Latents, state: StreamState) -> Iterator[Video]:
        if torch.is_grad_enabled() or is_short(latents):
            yield from super()._pieces(latents, state)
            return
        self.decode_sizes(latents.shape[2], not state.has_started(self))
        state.remember(self, None)
        for frame in self.decoder.stream(self.scale.denormalize(latents)):
            yield self._unfold(frame[:, :, None])

    def _unfold(self, folded: Volume) -> Video:
        return rearrange(folded, UNFOLD, ph=self.patch_size, pw=self.patch_size)
