"""The VAE of Open-Sora 1.2: an image VAE, and one that takes its latents over time.

Norms of the second look at all frames of a piece, and zeros in front of a piece fill groups of
frames up, so that pieces are part of the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vdm.autoencoder.causal_blocks import (
    CausalDesign,
    Level,
    NormedConv,
    Piece,
    PieceNorm,
    ResBlock,
)
from vdm.autoencoder.causal_vae import CausalVAE
from vdm.autoencoder.cogvideox_vae import PieceGroupNorm
from vdm.autoencoder.image_vae import ImageVAE
from vdm.autoencoder.latents import LatentScale, check_video, draw
from vdm.layers.conv import CausalConv3d, CausalConv3dFromZero, StreamState, Volume
from vdm.types import Autoencoder, Latents, Video
from vdm.utils.config import configurable
from vdm.utils.time_grid import TimeGrid

EPS = 1e-5


class HalveTime(nn.Module):
    """Half as many frames, of an even number.

    Args:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 3, stride=(2, 1, 1), padding=(0, 1, 1))

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece; one frame of zeros is before it."""
        return self.conv(F.pad(x, (0, 0, 0, 0, 1, 0)))


class DoubleTime(nn.Module):
    """Twice as many frames, two out of the channels of each.

    Args:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3dFromZero(channels, 2 * channels, (3, 3, 3))

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a piece."""
        both = self.conv(x, piece.state)
        return rearrange(both, "b (c two) t h w -> b c (t two) h w", two=2)


@dataclass(frozen=True)
class LatentTimeDesign(CausalDesign):
    """A VAE of another's latents, of which it changes the frame rate alone.

    Args:
        channels: Channels of the other's latents.
        num_middle: Blocks at the coarsest level besides its own.
        num_groups: Groups of the normalisations.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404, section 2, the released VAE of version
        1.2; the blocks are those of Yu et al. 2023, "MAGVIT-v2", arXiv:2310.05737.
    """

    channels: int = 4
    num_middle: int = 4
    num_groups: int = 32

    is_causal = False
    maps_latents = True
    shrinks_space = False

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> CausalConv3d:
        """Before the first frame there are zeros."""
        return CausalConv3dFromZero(in_channels, out_channels, (kernel_size,) * 3)

    def _bare(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> CausalConv3d:
        return CausalConv3dFromZero(in_channels, out_channels, (kernel_size,) * 3, bias=False)

    def encoder_in(self, channels: int, width: int) -> CausalConv3d:
        """Without an offset."""
        return self._bare(channels, width)

    def encoder_out(self, width: int, channels: int) -> CausalConv3d:
        """Of every position by itself."""
        return self.conv(width, channels, 1)

    def block(self, in_channels: int, channels: int, latent_channels: int | None) -> ResBlock:
        """A residual block whose convolutions have no offsets."""
        shortcut = None if in_channels == channels else self._bare(in_channels, channels, 1)
        return ResBlock(
            NormedConv(self.norm(in_channels, None), self._bare(in_channels, channels)),
            NormedConv(self.norm(channels, None), self._bare(channels, channels)),
            shortcut,
        )

    def norm(self, channels: int, latent_channels: int | None) -> PieceNorm:
        """Groups, over all frames of a piece."""
        return PieceGroupNorm(channels, self.num_groups, EPS)

    def middle(self, channels: int, latent_channels: int | None) -> list[nn.Module]:
        """Blocks alone."""
        return [self.block(channels, channels, None) for _ in range(self.num_middle)]

    def shrink(self, channels: int, in_time: bool) -> nn.Module:
        """Fewer frames."""
        return HalveTime(channels)

    def enlarge(self, channels: int, in_time: bool) -> nn.Module:
        """More frames."""
        return DoubleTime(channels)

    def down_level(
        self, blocks: list[ResBlock], in_channels: int, channels: int, in_time: bool | None
    ) -> Level:
        """Blocks, and the way to fewer frames where there are fewer."""
        return Level(blocks, self.shrink(channels, True) if in_time else None)

    def up_level(
        self, blocks: list[ResBlock], in_channels: int, channels: int, in_time: bool | None
    ) -> Level:
        """Blocks, and the way to more frames where there are more."""
        return Level(blocks, self.enlarge(channels, True) if in_time else None)

    def encode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """All that is handed over: :class:`TwoStageVAE` hands over single pieces."""
        return [num_frames]

    def decode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """Likewise."""
        return [num_frames]


@configurable
class TwoStageVAE(Autoencoder):
    """An image VAE, and one that takes its latents over time, in pieces by themselves.

    Args:
        image: Of single frames.
        time: Of its latents.
        scale: What the latents of both are put through before a network sees them.
        frames_per_piece: Frames of a piece.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404, section 2.
    """

    is_causal = False
    is_chunk_exact = True

    def __init__(
        self, image: ImageVAE, time: CausalVAE, scale: LatentScale, frames_per_piece: int = 17
    ) -> None:
        super().__init__()
        self.image, self.time, self.scale = image, time, scale
        self.frames_per_piece, self.latent_channels = frames_per_piece, time.latent_channels
        self.strides = (time.strides[0], *image.strides[1:])

    def encode_moments(
        self, video: Video, sample: bool = False, generator: torch.Generator | None = None
    ) -> tuple[Latents, Latents]:
        """Mean and log-variance of raw latents.

        Args:
            video: Clips in [-1, 1], of any number of frames.
            sample: Whether the image VAE draws its latents.
            generator: Where these draws come from.

        Raises:
            ValueError: If the height or width is not a multiple of the stride.
        """
        check_video(video, self.strides)
        means, logvars = [], []
        for piece in self.image.encode(video, sample, generator).split(self.frames_per_piece, 2):
            missing = -piece.shape[2] % self.strides[0]
            filled = F.pad(piece, (0, 0, 0, 0, missing, 0))
            mean, logvar = self.time.encode_chunk(filled, StreamState(is_whole=True))
            means.append(mean)
            logvars.append(logvar)
        return torch.cat(means, dim=2), torch.cat(logvars, dim=2)

    def encode(
        self, video: Video, sample: bool = False, generator: torch.Generator | None = None
    ) -> Latents:
        """Latents in the scale that networks are trained with.

        Args:
            video: Clips in [-1, 1], of any number of frames.
            sample: Draw from both posteriors instead of taking their means.
            generator: Where the draws come from, made there in float32 and then moved.

        Raises:
            ValueError: If the height or width is not a multiple of the stride.
        """
        mean, logvar = self.encode_moments(video, sample, generator)
        return self.scale.normalize(draw(mean, logvar, generator) if sample else mean)

    def decode(
        self, latents: Latents, num_frames: int | None = None, decode_frames: int | None = None
    ) -> Video:
        """Clips from latents.

        Args:
            latents: In the scale that networks are trained with.
            num_frames: Frames to return, of which the latents are; by default as many as they can
                be of.
            decode_frames: Frames that the image VAE decodes at a time: less memory, the same
                result.

        Returns:
            Clips, nominally in [-1, 1].

        Raises:
            ValueError: If the latents have the wrong number of channels or are of another number of
                frames.
        """
        if latents.ndim != 5 or latents.shape[1] != self.latent_channels:
            raise ValueError(
                f"got latents {tuple(latents.shape)}, expected (b, {self.latent_channels}, t, h, w)"
            )
        most = self._most_frames(latents.shape[2])
        count = most if num_frames is None else num_frames
        grid = TimeGrid(count, stride=self.strides[0], piece=self.frames_per_piece)
        if grid.num_latent_frames != latents.shape[2]:
            raise ValueError(
                f"got num_frames={num_frames}, which {grid.num_latent_frames} latent frames stand "
                f"for, and {latents.shape[2]} of them; nearest: {most}"
            )
        raw = self.scale.denormalize(latents)
        pieces = self._pieces(raw, count)
        return torch.cat([self.image.decode(piece, None, decode_frames) for piece in pieces], dim=2)

    def _most_frames(self, num_latent_frames: int) -> int:
        whole, rest = divmod(num_latent_frames, -(-self.frames_per_piece // self.strides[0]))
        return whole * self.frames_per_piece + rest * self.strides[0]

    def _pieces(self, raw: Tensor, num_frames: int) -> Iterator[Tensor]:
        """Latents of the image VAE, without those of what filled groups of frames up."""
        for piece in raw.split(-(-self.frames_per_piece // self.strides[0]), dim=2):
            count = min(num_frames, self.frames_per_piece)
            yield self.time.decode_chunk(piece, StreamState(is_whole=True))[:, :, -count:]
            num_frames -= count

    def reconstruct(self, video: Video) -> Video:
        """Encode and decode: the same number of frames comes back."""
        return self.decode(self.encode(video), num_frames=video.shape[2])
