"""What the VAEs of LTX-Video are put together from.

Encoders are causal. Decoders look one frame ahead in every convolution; later ones are told a noise
level besides, because they take out the last noise of the latents, and some add noise of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.autoencoder.causal_blocks import FrameRule, NormedConv, Piece, PieceNorm
from vdm.autoencoder.wan_vae import FOLD_ALL, UNFOLD_ALL, MeanDown
from vdm.layers.conv import CausalConv3d, StreamState, Volume, empty_frames
from vdm.layers.embeddings import NoiseLevelEmbedding
from vdm.layers.norms import LayerNorm
from vdm.layers.positions import Axes

EPS = 1e-8


@dataclass(frozen=True)
class LTXPiece(Piece):
    """What layers of a decoder know besides.

    Args:
        noise_level: What a decoder is told of the noise in the latents; None if it is not.
        vectors: Shift and scale of both norms of a block, before its own are added.
        draws: Where noise comes from that is added in between.
    """

    noise_level: Float[Tensor, " b"] | None = None
    vectors: Float[Tensor, "b rows c"] | None = None
    draws: torch.Generator | None = None


class PieceRMSNorm(PieceNorm):
    """Divide by the root mean square over channels, at every position on its own.

    Source:
        Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", arXiv:1910.07467, eq. 4.
    """

    def rule(self, x: Volume, piece: Piece) -> FrameRule:
        """Every frame by itself."""

        def normalise(number: int, out: Tensor | None = None) -> Tensor:
            frame = x[:, :, number]
            wide = frame if frame.dtype == torch.float64 else frame.float()
            scale = torch.rsqrt(wide.square().mean(1, keepdim=True) + EPS).to(x.dtype)
            return torch.mul(frame, scale, out=out)

        return normalise


class ToldRMSNorm(PieceRMSNorm):
    """The same, then shift and scale: a table, and what is made of the noise level.

    Args:
        channels: Channels.
        row: Which of the vectors of a piece is the shift; the next is the scale.
    """

    def __init__(self, channels: int, row: int) -> None:
        super().__init__()
        self.row = row
        self.table = nn.Parameter(torch.zeros(2, channels))

    def rule(self, x: Volume, piece: Piece) -> FrameRule:
        """Every frame by itself."""
        assert isinstance(piece, LTXPiece)
        assert piece.vectors is not None
        told = (piece.vectors[:, self.row : self.row + 2] + self.table)[..., None, None]
        shift, scale = told[:, 0], 1 + told[:, 1]
        plain = super().rule(x, piece)

        def normalise(number: int, out: Tensor | None = None) -> Tensor:
            return torch.addcmul(shift, plain(number, out), scale, out=out)

        return normalise


class CentredConv3d(CausalConv3d):
    """A convolution that looks as far ahead as back: both ends of a clip go on as still images."""

    def forward(self, x: Volume, state: StreamState | None = None) -> Volume:  # type: ignore[override]
        """Convolve a whole clip."""
        reach = self.kernel_size[0] // 2
        ends = (x[:, :, :1], x[:, :, -1:])
        first, last = (end.expand(-1, -1, reach, -1, -1) for end in ends)
        return nn.Conv3d.forward(self, torch.cat((first, x, last), dim=2))

    def seen(self, frames: slice, count: int) -> list[int]:
        """Numbers of the frames that some frames of a clip of ``count`` are made from."""
        reach = self.kernel_size[0] // 2
        numbers = range(frames.start - reach, frames.stop + reach)
        return [min(max(number, 0), count - 1) for number in numbers]

    def inside(self, room: Volume) -> Volume:
        """Convolve frames that have their neighbours around them."""
        return nn.Conv3d.forward(self, room)


class CentredNormedConv(nn.Module):
    """Norm, SiLU, a convolution that looks ahead.

    Args:
        norm: The norm.
        conv: The convolution.
    """

    def __init__(self, norm: PieceNorm, conv: CentredConv3d) -> None:
        super().__init__()
        self.norm, self.conv = norm, conv

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a whole clip; without gradients, few frames at a time."""
        if torch.is_grad_enabled():
            return self.conv(F.silu(self.norm(x, piece)))
        rule, out = self.norm.rule(x, piece), empty_frames(x, x.shape[2], self.conv.out_channels)
        for frames in self.conv.slabs(x):
            numbers = self.conv.seen(frames, x.shape[2])
            room = empty_frames(x, len(numbers), x.shape[1])
            for place, number in enumerate(numbers):
                rule(number, out=room[:, :, place])
            out[:, :, frames] = self.conv.inside(F.silu(room, inplace=True))
        return out


class Grain(nn.Module):
    """Noise of single places, the same in all frames and channels but for its strength.

    Args:
        channels: Channels.

    Source:
        Karras et al. 2019, "StyleGAN", arXiv:1812.04948, section 3.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Add noise."""
        assert isinstance(piece, LTXPiece)
        noise = torch.randn(x.shape[3:], generator=piece.draws, dtype=torch.float32, device="cpu")
        return x + torch.einsum("c, h w -> c h w", self.strength, noise.to(x))[:, None]


def make_normed_conv(
    in_channels: int, out_channels: int, is_causal: bool, row: int | None = None
) -> NormedConv | CentredNormedConv:
    """Norm, SiLU and convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        is_causal: Whether the convolution does not look ahead.
        row: Which vector shifts the norm, see :class:`ToldRMSNorm`; None for a plain one.
    """
    norm = PieceRMSNorm() if row is None else ToldRMSNorm(in_channels, row)
    if is_causal:
        return NormedConv(norm, CausalConv3d(in_channels, out_channels, (3, 3, 3)))
    return CentredNormedConv(norm, CentredConv3d(in_channels, out_channels, (3, 3, 3)))


class LTXBlock(nn.Module):
    """Two convolutions with a shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        is_causal: Whether convolutions do not look ahead.
        is_told: Whether norms are told the noise level.
        has_grain: Whether noise is added after the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        is_causal: bool = True,
        is_told: bool = False,
        has_grain: bool = False,
    ) -> None:
        super().__init__()
        rows = (0, 2) if is_told else (None, None)
        self.first = make_normed_conv(in_channels, out_channels, is_causal, rows[0])
        self.second = make_normed_conv(out_channels, out_channels, is_causal, rows[1])
        self.grains = nn.ModuleList(Grain(out_channels) for _ in range(2 * has_grain))
        self.shortcut_norm: LayerNorm | None = None
        self.shortcut: CausalConv3d | None = None
        if in_channels != out_channels:
            self.shortcut_norm = LayerNorm(in_channels, 1e-6)
            self.shortcut = CausalConv3d(in_channels, out_channels, (1, 1, 1))

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        h = self.first(x, piece)
        h = self.grains[0](h, piece) if self.grains else h
        h = self.second(h, piece)
        h = self.grains[1](h, piece) if self.grains else h
        if self.shortcut is None or self.shortcut_norm is None:
            return h.add_(x)
        normed = self.shortcut_norm(rearrange(x, "b c t h w -> b t h w c"))
        return h + self.shortcut(rearrange(normed, "b t h w c -> b c t h w"))


class Blocks(nn.Module):
    """Blocks of one size, which share what they make of the noise level.

    Args:
        blocks: The blocks.
        channels: Their channels, if they are told the noise level.
    """

    def __init__(self, blocks: Sequence[LTXBlock], channels: int | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.time_embed = None if channels is None else NoiseLevelEmbedding(4 * channels)

    def steps(self) -> list[Callable[..., Tensor]]:
        """What is to be called one after the other, so that nobody keeps what went in before."""
        return [partial(self._step, block) for block in self.blocks]

    def _step(self, block: nn.Module, x: Volume, piece: Piece) -> Volume:
        return block(x, told(piece, self.time_embed, 4))


def told(piece: Piece, embed: NoiseLevelEmbedding | None, rows: int) -> Piece:
    """A piece with vectors made of its noise level, where something makes them."""
    if embed is None:
        return piece
    assert isinstance(piece, LTXPiece)
    assert piece.noise_level is not None
    vectors = rearrange(embed(piece.noise_level), "b (rows c) -> b rows c", rows=rows)
    return replace(piece, vectors=vectors)


class ShrinkByConv(nn.Module):
    """A strided convolution: half as high and wide, half as many frames but for the first.

    Args:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, (3, 3, 3), (2, 2, 2))

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        return self.conv(x, piece.state)


class ShrinkByFold(nn.Module):
    """Blocks of positions folded into channels: of a convolution, and of averages beside it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Size of the blocks (time, height, width).

    Source:
        Chen et al. 2024, "Deep Compression Autoencoder", arXiv:2410.10733, section 3.1.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Axes) -> None:
        super().__init__()
        pt, p1, p2 = stride
        self.stride = stride
        self.conv = CausalConv3d(in_channels, out_channels // (pt * p1 * p2), (3, 3, 3))
        self.shortcut = MeanDown(out_channels, stride)

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece: what is missing of the first block is the first frame again."""
        pt, p1, p2 = self.stride
        if not piece.state.has_started(self):
            x = torch.cat([x[:, :, :1]] * (pt - 1) + [x], dim=2)
        piece.state.remember(self, None)
        folded = rearrange(self.conv(x, piece.state), FOLD_ALL, pt=pt, p1=p1, p2=p2)
        return folded + self.shortcut(x)


class EnlargeByUnfold(nn.Module):
    """Channels of a convolution unfolded into blocks of positions, but for the first frames.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
        has_shortcut: Whether channels of the input are unfolded and repeated beside it.
    """

    def __init__(self, channels: int, out_channels: int, has_shortcut: bool) -> None:
        super().__init__()
        self.has_shortcut, self.out_channels = has_shortcut, out_channels
        self.conv = CentredConv3d(channels, 8 * out_channels, (3, 3, 3))

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a whole clip; of the block of the first frame, the last is kept."""
        if torch.is_grad_enabled():
            return self._unfold(self.conv(x), x)[:, :, 1:]
        b, _, t, h, w = x.shape
        size, layout = (b, self.out_channels, 2 * t - 1, 2 * h, 2 * w), torch.channels_last_3d
        out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
        for frames in self.conv.slabs(x):
            made = self.conv.inside(x[:, :, self.conv.seen(frames, t)])
            start = max(2 * frames.start - 1, 0)
            stop = 2 * frames.stop - 1
            out[:, :, start:stop] = self._unfold(made, x[:, :, frames])[:, :, start - stop :]
        return out

    def _unfold(self, made: Volume, x: Volume) -> Volume:
        """What a convolution made of frames, and what goes past it."""
        large = rearrange(made, UNFOLD_ALL, pt=2, p1=2, p2=2)
        if not self.has_shortcut:
            return large
        plain = rearrange(x, UNFOLD_ALL, pt=2, p1=2, p2=2)
        return large + plain.repeat(1, self.out_channels // plain.shape[1], 1, 1, 1)
