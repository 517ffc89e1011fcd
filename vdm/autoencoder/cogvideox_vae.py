"""The parts of CogVideoX's VAE.

Norms look at all frames of a piece, so the pieces of the reference are part of the result: eight
frames, two latent frames, and in the first piece what is left over.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vdm.autoencoder.causal_blocks import CausalDesign, FrameRule, Piece, PieceNorm
from vdm.autoencoder.image_vae import Enlarge, Shrink
from vdm.layers.conv import CausalConv3d, Volume

EPS = 1e-6


class PieceGroupNorm(PieceNorm):
    """Group normalisation with statistics of all frames of a piece.

    Args:
        channels: Channels.
        num_groups: Groups of channels that share statistics.
        eps: Added to the variance.

    Source:
        Wu & He 2018, "Group Normalization", arXiv:1803.08494, eq. 1 and 2.
    """

    def __init__(self, channels: int, num_groups: int, eps: float = EPS) -> None:
        super().__init__()
        if channels % num_groups:
            raise ValueError(f"got num_groups={num_groups}, expected a divisor of {channels}")
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def line(self, x: Volume) -> tuple[Tensor, Tensor]:
        """Gain and offset of every channel that normalise a piece, ``b c 1 1``."""
        mean, variance = (
            each.repeat_interleave(x.shape[1] // self.num_groups, dim=1).to(x.dtype)
            for each in moments(x, self.num_groups)
        )
        gain = self.weight * torch.rsqrt(variance + self.eps)
        offset = self.bias - mean * gain
        return gain[:, :, None, None], offset[:, :, None, None]

    def rule(self, x: Volume, piece: Piece) -> FrameRule:
        """One gain and one offset for all frames."""
        gain, offset = self.line(x)

        def normalise(number: int, out: Tensor | None = None) -> Tensor:
            return torch.addcmul(offset, x[:, :, number], gain, out=out)

        return normalise


def moments(
    x: Volume, num_groups: int
) -> tuple[Float[Tensor, "b groups"], Float[Tensor, "b groups"]]:
    """Mean and variance of groups of channels over all frames and places, in float64.

    Sums of frames are added up in float64: PyTorch's own group norm of channels-last video loses
    two digits on large frames.
    """
    sums = []
    for frame in x.unbind(2):
        frame = frame if frame.dtype == torch.float64 else frame.float()
        both = torch.stack((frame.sum((2, 3)), frame.square().sum((2, 3))))
        sums.append(both.double().unflatten(2, (num_groups, -1)).mean(3))
    mean, square = torch.stack(sums).mean(0) / (x.shape[3] * x.shape[4])
    return mean, (square - mean.square()).clamp_min(0)


class LatentGroupNorm(PieceNorm):
    """Group normalisation of which gain and offset are read from the latents at each place.

    They are computed once for a latent, not for each of the pixels that it stands for.

    Args:
        channels: Channels.
        latent_channels: Channels of the latents.
        num_groups: Groups of channels that share statistics.

    Source:
        Zheng et al. 2022, "MoVQ", arXiv:2209.09002, eq. 5.
    """

    def __init__(self, channels: int, latent_channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm = PieceGroupNorm(channels, num_groups)
        self.to_gain = nn.Conv3d(latent_channels, channels, 1)
        self.to_offset = nn.Conv3d(latent_channels, channels, 1)

    def rule(self, x: Volume, piece: Piece) -> FrameRule:
        """A gain and an offset for every latent."""
        assert piece.latents is not None
        gain, offset = (each[:, :, None] for each in self.norm.line(x))
        modulation = self.to_gain(piece.latents)
        offset = torch.addcmul(self.to_offset(piece.latents), offset, modulation)
        gain = gain * modulation
        num_frames, (num_latents, h, w) = x.shape[2], gain.shape[2:]

        def normalise(number: int, out: Tensor | None = None) -> Tensor:
            latent = latent_of(number, num_frames, num_latents)
            each = (offset[:, :, latent], gain[:, :, latent])
            low, high = (table[:, :, :, None, :, None] for table in each)
            frame = blocks(x[:, :, number], h, w)
            if out is None:
                return torch.addcmul(low, frame, high).flatten(4, 5).flatten(2, 3)
            return torch.addcmul(low, frame, high, out=blocks(out, h, w))

        return normalise


def blocks(
    frame: Float[Tensor, "b c height width"], h: int, w: int
) -> Float[Tensor, "b c h rh w rw"]:
    """A view of frames as one block of pixels for each of ``h`` times ``w`` latents."""
    return frame.unflatten(3, (w, -1)).unflatten(2, (h, -1))


def latent_of(number: int, num_frames: int, num_latents: int) -> int:
    """The latent frame that a frame belongs to: of an odd number the first are a pair."""
    if num_frames > 1 and num_frames % 2:
        return 0 if number == 0 else 1 + (number - 1) * (num_latents - 1) // (num_frames - 1)
    return number * num_latents // num_frames


class ShrinkPairs(nn.Module):
    """Half as high and wide; before, pairs of frames are averaged if so wanted.

    Of an odd number of frames the first stays by itself.

    Args:
        channels: Channels.
        in_time: Whether there are half as many frames after.
    """

    def __init__(self, channels: int, in_time: bool) -> None:
        super().__init__()
        self.in_time = in_time
        self.resize = Shrink(channels)

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        if self.in_time:
            alone = x.shape[2] % 2
            frames = x.unbind(2)
            pairs = zip(frames[alone::2], frames[alone + 1 :: 2], strict=True)
            # Stacking frames, unlike other ways, keeps channels last.
            x = torch.stack([*frames[:alone], *((a + b) / 2 for a, b in pairs)], dim=2)
        return self.resize(x)


class EnlargePairs(nn.Module):
    """Twice as high and wide; after, frames are repeated if so wanted.

    Of an odd number of frames the first stays by itself. The reference repeats frames before it
    convolves each of them; the result is the same, for half the work.

    Args:
        channels: Channels.
        in_time: Whether there are twice as many frames after.
    """

    def __init__(self, channels: int, in_time: bool) -> None:
        super().__init__()
        self.in_time = in_time
        self.resize = Enlarge(channels)

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        x = self.resize(x)
        if not self.in_time:
            return x
        alone = x.shape[2] % 2
        frames = x.unbind(2)
        doubled = [frame for frame in frames[alone:] for _ in range(2)]
        return torch.stack([*frames[:alone], *doubled], dim=2)


@dataclass(frozen=True)
class CogVideoXDesign(CausalDesign):
    """The VAE of CogVideoX.

    Args:
        num_groups: Groups of the normalisations.

    Source:
        Yang et al. 2024, "CogVideoX", arXiv:2408.06072, section 2.1.
    """

    num_groups: int = 32

    is_causal = False

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> CausalConv3d:
        """Before the first frame time goes on as a still image."""
        return CausalConv3d(in_channels, out_channels, (kernel_size,) * 3)

    def norm(self, channels: int, latent_channels: int | None) -> PieceNorm:
        """Groups; in decoders, under the control of the latents."""
        if latent_channels is None:
            return PieceGroupNorm(channels, self.num_groups)
        return LatentGroupNorm(channels, latent_channels, self.num_groups)

    def middle(self, channels: int, latent_channels: int | None) -> list[nn.Module]:
        """Two blocks."""
        return [self.block(channels, channels, latent_channels) for _ in range(2)]

    def shrink(self, channels: int, in_time: bool) -> nn.Module:
        """Averages of pairs, then a strided convolution of frames."""
        return ShrinkPairs(channels, in_time)

    def enlarge(self, channels: int, in_time: bool) -> nn.Module:
        """Repeated pixels, a convolution of frames, repeated frames."""
        return EnlargePairs(channels, in_time)

    def encode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """Eight frames at a time."""
        return _sizes(num_frames, 8, is_start)

    def decode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """Two latent frames at a time."""
        return _sizes(num_frames, 2, is_start)

    def num_frames(self, num_latent_frames: int, stride: int) -> int:
        """Of an even number, the first does not stand for one frame alone."""
        if num_latent_frames % 2:
            return super().num_frames(num_latent_frames, stride)
        return stride * num_latent_frames


def _sizes(num_frames: int, at_a_time: int, is_start: bool) -> list[int]:
    count, rest = divmod(num_frames, at_a_time)
    if rest and not is_start:
        nearest = max(1, round(num_frames / at_a_time)) * at_a_time
        raise ValueError(
            f"got {num_frames} frames to go on with, expected a multiple of {at_a_time}; "
            f"nearest: {nearest}"
        )
    return [at_a_time + rest] + [at_a_time] * (count - 1) if count else [rest]
