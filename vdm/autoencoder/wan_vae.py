"""The parts of the VAEs of Wan 2.1 and 2.2.

Every position is normalised by itself and attends within its frame, so no frame sees a later one
and the pieces do not matter. The first frame of a clip stays outside of everything that changes the
frame rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from vdm.autoencoder.causal_blocks import (
    CausalDesign,
    FrameRule,
    Level,
    Piece,
    PieceNorm,
    ResBlock,
    Step,
    run,
)
from vdm.autoencoder.image_vae import Enlarge, Shrink
from vdm.autoencoder.row_blocks import RowBlock, RowConv
from vdm.layers.attention import Attention
from vdm.layers.conv import CausalConv3d, CausalConv3dFromZero, Volume

EPS = 1e-12
FOLD = "b c t (h ph) (w pw) -> b (c pw ph) t h w"
UNFOLD = "b (c pw ph) t h w -> b c t (h ph) (w pw)"
AVERAGE = "b (c group) t h w -> b c group t h w"
FOLD_ALL = "b c (t pt) (h p1) (w p2) -> b (c pt p1 p2) t h w"
UNFOLD_ALL = "b (c pt p1 p2) t h w -> b c (t pt) (h p1) (w p2)"


class PieceChannelNorm(PieceNorm):
    """Divide by the root mean square over channels, at every position on its own.

    Args:
        channels: Channels.

    Source:
        Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", arXiv:1910.07467, eq. 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def rule(self, x: Volume, piece: Piece) -> FrameRule:
        """Every frame by itself."""
        weight = (self.weight * x.shape[1] ** 0.5)[:, None, None]

        def normalise(number: int, out: Tensor | None = None) -> Tensor:
            frame = x[:, :, number]
            wide = frame if frame.dtype == torch.float64 else frame.float()
            length = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
            length = length.clamp_min(EPS).to(x.dtype)
            if out is None:
                return frame / length * weight
            return torch.div(frame, length, out=out).mul_(weight)

        return normalise


class FrameAttention(nn.Module):
    """One head of attention over the places of every frame, normalised before and added.

    Args:
        norm: The norm.
        channels: Channels.
    """

    def __init__(self, norm: PieceNorm, channels: int) -> None:
        super().__init__()
        self.norm, self.attention = norm, Attention(channels, 1)

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Let the places of every frame attend to each other."""
        b, _, t, h, w = x.shape
        mixed = self.attention(rearrange(self.norm(x, piece), "b c t h w -> (b t) (h w) c"))
        return x + rearrange(mixed, "(b t) (h w) c -> b c t h w", b=b, t=t, h=h, w=w)


class ShrinkThenTime(nn.Module):
    """Half as high and wide, then half as many frames but for the first.

    Args:
        channels: Channels.
        in_time: Whether there are fewer frames after.
    """

    def __init__(self, channels: int, in_time: bool) -> None:
        super().__init__()
        self.resize = Shrink(channels)
        self.in_time: nn.Conv3d | None = None
        if in_time:
            self.in_time = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece: one frame, then even numbers of them.

        Raises:
            ValueError: If there are other numbers of them.
        """
        x = self.resize(x)
        if self.in_time is None:
            return x
        before = piece.state.recall(self)
        if x.shape[2] % 2 != (before is None):
            expected = "an odd number of" if before is None else "an even number of further"
            raise ValueError(f"got {x.shape[2]} frames, expected {expected} frames")
        piece.state.remember(self, x[:, :, -1:].clone())
        if before is not None:
            return self.in_time(torch.cat([before, x], dim=2))
        return x if x.shape[2] == 1 else torch.cat([x[:, :, :1], self.in_time(x)], dim=2)


class TimeThenEnlarge(nn.Module):
    """Twice as many frames but for the first, then twice as high and wide.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
        in_time: Whether there are more frames after.
    """

    def __init__(self, channels: int, out_channels: int, in_time: bool) -> None:
        super().__init__()
        self.in_time: CausalConv3d | None = None
        if in_time:
            self.in_time = CausalConv3dFromZero(channels, 2 * channels, (3, 1, 1))
        self.resize = Enlarge(channels, out_channels)

    def steps(self) -> list[Step]:
        """Twice as many frames, and twice as large ones."""
        return [self._enlarge] if self.in_time is None else [self._double, self._enlarge]

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        return run(self.steps(), x, piece)

    def _double(self, x: Volume, piece: Piece) -> Volume:
        assert self.in_time is not None
        alone = 0 if piece.state.has_started(self) else 1
        piece.state.remember(self, None)
        frames = list(x[:, :, :alone].unbind(2))
        if x.shape[2] > alone:
            both = self.in_time(x[:, :, alone:], piece.state).chunk(2, dim=1)
            pairs = zip(*(half.unbind(2) for half in both), strict=True)
            frames += [frame for pair in pairs for frame in pair]
        return torch.stack(frames, dim=2)

    def _enlarge(self, x: Volume, piece: Piece) -> Volume:
        return self.resize(x)


class MeanDown(nn.Module):
    """Blocks of positions folded into channels, of which groups are averaged.

    Args:
        channels: Channels of the output.
        stride: Size of the blocks (time, height, width).

    Source:
        Chen et al. 2024, "Deep Compression Autoencoder", arXiv:2410.10733, section 3.1.
    """

    def __init__(self, channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Volume) -> Volume:
        """Shrink; what is missing of the first block of frames is zero."""
        pt, p1, p2 = self.stride
        x = torch.nn.functional.pad(x, (0, 0, 0, 0, -x.shape[2] % pt, 0))
        folded = rearrange(x, FOLD_ALL, pt=pt, p1=p1, p2=p2)
        return rearrange(folded, AVERAGE, c=self.channels).mean(2)


class RepeatUp(nn.Module):
    """Channels repeated and laid out as blocks of positions.

    Args:
        channels: Channels of the output.
        stride: Size of the blocks (time, height, width).

    Source:
        Chen et al. 2024, "Deep Compression Autoencoder", arXiv:2410.10733, section 3.1.
    """

    def __init__(self, channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Volume, is_start: bool) -> Volume:
        """Enlarge; of the first frame of a clip, the last of its block alone is kept."""
        pt, p1, p2 = self.stride
        times = self.channels * pt * p1 * p2 // x.shape[1]
        x = rearrange(x.repeat_interleave(times, dim=1), UNFOLD_ALL, pt=pt, p1=p1, p2=p2)
        return x[:, :, pt - 1 :] if is_start else x


class DownWithMean(Level):
    """A level around which the input goes as averages.

    Args:
        blocks: The blocks.
        resize: The way to the next size; None at the end.
        shortcut: Makes the input as large as the output.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], resize: nn.Module | None, shortcut: MeanDown
    ) -> None:
        super().__init__(blocks, resize)
        self.shortcut = shortcut

    def steps(self) -> list[Step]:
        """The level as a whole: what goes in is wanted at its end."""
        return [self]

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        return super().forward(x.clone(), piece) + self.shortcut(x)


class UpWithRepeat(Level):
    """A level around which the input goes repeated.

    Args:
        blocks: The blocks.
        resize: The way to the next size.
        shortcut: Makes the input as large as the output.
    """

    def __init__(self, blocks: Sequence[nn.Module], resize: nn.Module, shortcut: RepeatUp) -> None:
        super().__init__(blocks, resize)
        self.shortcut = shortcut

    def steps(self) -> list[Step]:
        """The level as a whole: what goes in is wanted at its end."""
        return [self]

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        is_start = not piece.state.has_started(self)
        piece.state.remember(self, None)
        return super().forward(x.clone(), piece).add_(self.shortcut(x, is_start))


@dataclass(frozen=True)
class WanDesign(CausalDesign):
    """The VAE of Wan 2.1.

    Source:
        Wan Team 2025, "Wan: Open and Advanced Large-Scale Video Generative Models",
        arXiv:2503.20314, section 4.1.
    """

    is_causal = True
    maps_latents = True
    normed_conv = RowConv
    res_block = RowBlock

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> CausalConv3d:
        """Before the first frame there is nothing."""
        return CausalConv3dFromZero(in_channels, out_channels, (kernel_size,) * 3)

    def norm(self, channels: int, latent_channels: int | None) -> PieceNorm:
        """Position by position."""
        return PieceChannelNorm(channels)

    def middle(self, channels: int, latent_channels: int | None) -> list[nn.Module]:
        """Two blocks, attention within frames between them."""
        first, last = (self.block(channels, channels, latent_channels) for _ in range(2))
        return [first, FrameAttention(self.norm(channels, None), channels), last]

    def shrink(self, channels: int, in_time: bool) -> nn.Module:
        """Frames first, then pairs of them."""
        return ShrinkThenTime(channels, in_time)

    def enlarge(self, channels: int, in_time: bool) -> nn.Module:
        """Pairs of frames first."""
        return TimeThenEnlarge(channels, self.enlarged(channels), in_time)

    def enlarged(self, channels: int) -> int:
        """Half as many."""
        return channels // 2

    def encode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """One frame, then four at a time."""
        rest = num_frames - is_start
        return [1] * is_start + [4] * (rest // 4) + [rest % 4] * (rest % 4 > 0)

    def decode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """One at a time."""
        return [1] * num_frames

    def unfold(self, folded: Volume) -> Volume:
        """Nothing beyond the range of pixels."""
        return folded.clamp(-1, 1)


@dataclass(frozen=True)
class WanResidualDesign(WanDesign):
    """The VAE of Wan 2.2's 5B model: shortcuts around levels, and squares of pixels as channels.

    Args:
        patch_size: Side of the squares.
    """

    patch_size: int = 2

    def enlarged(self, channels: int) -> int:
        """As many."""
        return channels

    def down_level(
        self, blocks: list[ResBlock], in_channels: int, channels: int, in_time: bool | None
    ) -> Level:
        """With averages around it."""
        stride = (1, 1, 1) if in_time is None else (1 + in_time, 2, 2)
        resize = None if in_time is None else self.shrink(channels, in_time)
        return DownWithMean(blocks, resize, MeanDown(channels, stride))

    def up_level(
        self, blocks: list[ResBlock], in_channels: int, channels: int, in_time: bool | None
    ) -> Level:
        """With repetitions around it, but for the last."""
        if in_time is None:
            return super().up_level(blocks, in_channels, channels, in_time)
        shortcut = RepeatUp(channels, (1 + in_time, 2, 2))
        return UpWithRepeat(blocks, self.enlarge(channels, in_time), shortcut)

    def fold(self, video: Volume) -> Volume:
        """Squares of pixels as channels, columns before rows."""
        return rearrange(video, FOLD, ph=self.patch_size, pw=self.patch_size)

    def unfold(self, folded: Volume) -> Volume:
        """The way back, and nothing beyond the range of pixels."""
        pixels = rearrange(folded, UNFOLD, ph=self.patch_size, pw=self.patch_size)
        return super().unfold(pixels)
