"""What the VAEs of LTX-Video are put together from.

Encoders are causal. Decoders look one frame ahead in every convolution; later ones are told a noise
level besides, because they take out the last noise of the latents, and some add noise of their own.
What decoders are made of transforms a whole clip, or a stream of frames without gradients: then
each module keeps the few frames that its next result needs, so memory stops growing with the clip.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.autoencoder.causal_blocks import FrameRule, NormedConv, Piece, PieceNorm
from vdm.autoencoder.cogvideox_vae import blocks
from vdm.autoencoder.wan_vae import FOLD_ALL, UNFOLD_ALL, MeanDown
from vdm.layers.conv import CausalConv3d, Frame, StreamState, Volume, empty_frames
from vdm.layers.embeddings import NoiseLevelEmbedding
from vdm.layers.norms import LayerNorm
from vdm.layers.positions import Axes

EPS = 1e-8
T = TypeVar("T")
Made = TypeVar("Made")


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
        """Every frame by itself; its scales are kept for the next time that it is asked for."""
        scales: dict[int, Tensor] = {}

        def normalise(number: int, out: Tensor | None = None) -> Tensor:
            frame = x[:, :, number]
            if number not in scales:
                wide = frame if frame.dtype == torch.float64 else frame.float()
                scale = torch.rsqrt(wide.square().mean(1, keepdim=True) + EPS)
                scales[number] = scale.to(x.dtype)
            return torch.mul(frame, scales[number], out=out)

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

    def stream(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Convolve a clip frame by frame."""
        return self.over(frames, self.join)

    def over(self, frames: Iterable[T], make: Callable[[Sequence[T]], Made]) -> Iterator[Made]:
        """What is made of a window around every frame of a clip.

        Args:
            frames: The frames.
            make: From the frames of a window, which it must not keep. The oldest of them is let go
                of before anything is done with the result.
        """
        reach, frames = self.kernel_size[0] // 2, iter(frames)
        window = deque([next(frames)] * (reach + 1))

        def made() -> Made:
            result = make(window)
            window.popleft()
            return result

        for frame in chain(frames, repeat(None, reach)):
            window.append(window[-1] if frame is None else frame)
            del frame
            if len(window) > 2 * reach:
                yield made()


class CentredNormedConv(nn.Module):
    """Norm, SiLU, a convolution that looks ahead.

    Args:
        norm: The norm.
        conv: The convolution.
    """

    def __init__(self, norm: PieceNorm, conv: CentredConv3d) -> None:
        super().__init__()
        self.norm, self.conv = norm, conv

    def forward(self, x: Volume, piece: Piece, out: Volume | None = None) -> Volume:
        """Transform a whole clip; memory for the result is not used."""
        return self.conv(F.silu(self.norm(x, piece)))

    def stream(
        self, frames: Iterable[Frame], piece: Piece, is_shared: bool = False
    ) -> Iterator[Frame]:
        """Transform a clip frame by frame.

        Args:
            frames: The frames.
            piece: What is known besides.
            is_shared: Whether others keep the frames as well. They are then normalised anew for
                every use, where others are written over.
        """

        def normalise(frame: Frame) -> Frame:
            rule = self.norm.rule(frame[:, :, None], piece)
            rule(0, out=frame)
            return F.silu(frame, inplace=True)

        if not is_shared:
            return self.conv.stream(map(normalise, frames))
        rules = map(lambda frame: self.norm.rule(frame[:, :, None], piece), frames)
        return self.conv.over(
            rules,
            lambda window: self.conv.join(F.silu(rule(0), inplace=True) for rule in window),
        )


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
        """Add noise to a whole clip."""
        return x + self._draw(x[:, :, 0], piece)[:, None]

    def stream(self, frames: Iterable[Frame], piece: Piece) -> Iterator[Frame]:
        """Add the same noise to every frame of a clip, in place."""
        noise: list[Tensor] = []

        def add(frame: Frame) -> Frame:
            if not noise:  # in the order of the modules: none before the frames that it is for
                noise.append(self._draw(frame, piece))
            return frame.add_(noise[0])

        return map(add, frames)

    def _draw(self, frame: Frame, piece: Piece) -> Float[Tensor, "c h w"]:
        assert isinstance(piece, LTXPiece)
        size = frame.shape[2:]
        noise = torch.randn(size, generator=piece.draws, dtype=torch.float32, device="cpu")
        return torch.einsum("c, h w -> c h w", self.strength, noise.to(frame))


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
        h = self.second(h, piece, out=h)
        h = self.grains[1](h, piece) if self.grains else h
        if self.shortcut is None or self.shortcut_norm is None:
            return h.add_(x)
        normed = self.shortcut_norm(rearrange(x, "b c t h w -> b t h w c"))
        return h + self.shortcut(rearrange(normed, "b t h w c -> b c t h w"))

    def stream(self, frames: Iterable[Frame], piece: Piece) -> Iterator[Frame]:
        """Transform a clip frame by frame, in a decoder."""
        assert isinstance(self.first, CentredNormedConv)
        assert isinstance(self.second, CentredNormedConv)
        kept: deque[Frame] = deque()

        def keep(frame: Frame) -> Frame:
            kept.append(frame)
            return frame

        h = self.first.stream(map(keep, frames), piece, is_shared=True)
        h = self.grains[0].stream(h, piece) if self.grains else h  # type: ignore[operator]
        h = self.second.stream(h, piece)
        h = self.grains[1].stream(h, piece) if self.grains else h  # type: ignore[operator]
        # Nothing here may hold a frame while the next is on its way: maps do not.
        return map(lambda frame: frame.add_(self._past_convs(kept.popleft())), h)

    def _past_convs(self, frame: Frame) -> Frame:
        if self.shortcut is None or self.shortcut_norm is None:
            return frame
        normed = self.shortcut_norm(rearrange(frame, "b c h w -> b h w c"))
        return self.shortcut.join([rearrange(normed, "b h w c -> b c h w")])


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

    def stream(self, frames: Iterable[Frame], piece: Piece) -> Iterator[Frame]:
        """Transform a clip frame by frame."""
        piece = told(piece, self.time_embed, 4)
        for block in self.blocks:
            frames = block.stream(frames, piece)  # type: ignore[operator]
        return iter(frames)


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
        large = rearrange(self.conv(x), UNFOLD_ALL, pt=2, p1=2, p2=2)
        if self.has_shortcut:
            plain = rearrange(x, UNFOLD_ALL, pt=2, p1=2, p2=2)
            large = large + plain.repeat(1, self.out_channels // plain.shape[1], 1, 1, 1)
        return large[:, :, 1:]

    def stream(self, frames: Iterable[Frame], piece: Piece) -> Iterator[Frame]:
        """Transform a clip frame by frame."""
        halves = [1]  # of the block of the first frame, the last is kept
        pairs = self.conv.over(
            frames, lambda window: (self.conv.join(window), window[len(window) // 2])
        )
        for made, middle in pairs:
            # Both at once, so that what they are made of is let go of before either is used.
            ready = deque(self._half(made, middle, half) for half in halves)
            halves = [0, 1]
            del made, middle
            while ready:
                yield ready.popleft()

    def _half(self, made: Frame, middle: Frame, half: int) -> Frame:
        """One of the two frames that are unfolded from one."""
        large = _unfold(made, half)
        if self.has_shortcut:
            plain = _unfold(middle, half)
            large += plain.repeat(1, self.out_channels // plain.shape[1], 1, 1)
        return large


def _unfold(frame: Frame, half: int) -> Frame:
    """One of two frames, channels last, that are twice as high and wide."""
    parts = frame.unflatten(1, (-1, 2, 2, 2))[:, :, half]
    b, c, _, _, h, w = parts.shape
    out = empty_frames(frame.new_empty(b, 0, 0, 2 * h, 2 * w), 1, c)[:, :, 0]
    blocks(out, h, w).copy_(rearrange(parts, "b c p1 p2 h w -> b c h p1 w p2"))
    return out
