"""The causal video VAE: how a clip becomes latents and comes back, frame by frame.

Every layer looks at the past only and normalises single positions, and the work is always done one
latent frame at a time. So decoding in chunks of any size gives the same bits as decoding at once,
the first latents do not depend on later frames, and tiles with a halo as wide as the receptive
field have no seams.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from vdm.autoencoder.latents import LatentNormalizer, check_video, draw
from vdm.autoencoder.vae_blocks import CausalStack, ChannelNorm, ResBlock
from vdm.layers.conv import CausalConv3d, StreamState, depth_to_space, space_to_depth
from vdm.layers.resample import Downsample, Upsample
from vdm.types import Autoencoder, Latents, Video
from vdm.utils.config import configurable
from vdm.utils.time_grid import TimeGrid

Stride = tuple[int, int, int]


class Activation(nn.Module):
    """Norm and SiLU before the last convolution of a stack."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(num_channels)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """Position by position: the state is not needed."""
        return functional.silu(self.norm(x))


@configurable
class VideoVAE(Autoencoder):
    """A causal convolutional video VAE.

    Squares of ``patch_size`` pixels are folded into channels, so that no convolution runs at full
    resolution; the encoder then goes down one level per entry of ``level_strides``. ``encode`` and
    ``decode`` speak latents of unit variance per channel; ``encode_moments`` and ``decode_raw``,
    for training, speak raw ones.

    Args:
        latent_channels: Channels of the latents.
        widths: Channels of each level, finest first.
        level_strides: Factors (time, height, width) between the levels, one fewer than ``widths``.
        encoder_blocks: Residual blocks of the encoder on each level.
        decoder_blocks: Residual blocks of the decoder on each level.
        patch_size: Side of the square of pixels that is folded into channels.

    Raises:
        ValueError: If the lengths of the tuples do not fit together.

    Source:
        Kingma and Welling 2014, "Auto-Encoding Variational Bayes", arXiv:1312.6114; causal in time
        as in Yu et al. 2023, "Language Model Beats Diffusion", arXiv:2310.05737, section 3.2, but
        with norms over channels only.
    """

    is_causal = True
    is_chunk_exact = True

    def __init__(
        self,
        latent_channels: int = 8,
        widths: tuple[int, ...] = (48, 96, 128),
        level_strides: tuple[Stride, ...] = ((2, 2, 2), (2, 1, 1)),
        encoder_blocks: tuple[int, ...] = (1, 1, 2),
        decoder_blocks: tuple[int, ...] = (2, 2, 2),
        patch_size: int = 4,
    ) -> None:
        super().__init__()
        levels = len(widths)
        if not len(level_strides) + 1 == len(encoder_blocks) == len(decoder_blocks) == levels:
            raise ValueError(
                f"got {levels} widths, {len(level_strides)} level_strides, {len(encoder_blocks)} "
                f"encoder_blocks and {len(decoder_blocks)} decoder_blocks; expected n, n - 1, n, n"
            )
        level_strides = tuple((int(st), int(sh), int(sw)) for st, sh, sw in level_strides)
        self.latent_channels = latent_channels
        self.patch_size = patch_size
        self.strides: Stride = (
            math.prod(s[0] for s in level_strides),
            patch_size * math.prod(s[1] for s in level_strides),
            patch_size * math.prod(s[2] for s in level_strides),
        )
        pixels = 3 * patch_size**2
        self.encoder = CausalStack([CausalConv3d(pixels, widths[0], (1, 3, 3))])
        for level, width in enumerate(widths):
            if level:
                self.encoder.append(Downsample(widths[level - 1], width, level_strides[level - 1]))
            self.encoder.extend(ResBlock(width) for _ in range(encoder_blocks[level]))
        self.encoder.extend(
            [Activation(widths[-1]), CausalConv3d(widths[-1], 2 * latent_channels, (1, 3, 3))]
        )

        self.decoder = CausalStack([CausalConv3d(latent_channels, widths[-1], (1, 3, 3))])
        for level in reversed(range(levels)):
            self.decoder.extend(ResBlock(widths[level]) for _ in range(decoder_blocks[level]))
            if level:
                self.decoder.append(
                    Upsample(widths[level], widths[level - 1], level_strides[level - 1])
                )
        self.decoder.extend([Activation(widths[0]), CausalConv3d(widths[0], pixels, (1, 3, 3))])
        self.latents = LatentNormalizer(latent_channels)

    # One chunk: the only implementation of either direction.

    def encode_chunk(
        self, video: Video, state: StreamState | None = None
    ) -> tuple[Latents, Latents]:
        """Mean and log-variance of the raw latents of the next frames of a clip.

        Args:
            video: The next frames: 1, then multiples of the temporal stride, when a state is given.
            state: The past of the clip, advanced by this call; None if this is the whole clip.
        """
        moments = self.encoder(space_to_depth(video, self.patch_size), state)
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-20, 10)

    def decode_chunk(self, raw: Latents, state: StreamState | None = None) -> Video:
        """The frames of the next raw latents of a clip.

        Args:
            raw: The next raw latents.
            state: The past of the clip, advanced by this call; None if this is the whole clip.
        """
        return depth_to_space(self.decoder(raw, state), self.patch_size)

    # Whole clips in one pass, differentiable, on raw latents: for training.

    def encode_moments(self, video: Video) -> tuple[Latents, Latents]:
        """Mean and log-variance of raw latents of clips completed to whole latent frames."""
        check_video(video, self.strides)
        grid = TimeGrid(video.shape[2], stride=self.strides[0])
        return self.encode_chunk(self._pad(video, grid.padded_frames))

    def decode_raw(self, raw: Latents, num_frames: int | None = None) -> Video:
        """Clips from raw latents, cut to ``num_frames``."""
        return self._cut(self.decode_chunk(raw), num_frames)

    # Whole clips as folds over latent frames, on latents of unit variance: for everything else.

    def encode(
        self, video: Video, sample: bool = False, generator: torch.Generator | None = None
    ) -> Latents:
        """Latents of unit variance per channel.

        Args:
            video: Clips in [-1, 1], of any number of frames.
            sample: Draw from the posterior instead of taking its mean.
            generator: Where the draw comes from. It is made there in float32 and then moved, so a
                generator on the CPU draws the same for every device and precision.

        Raises:
            ValueError: If there is no frame, or the height or width is not a multiple of the
                stride.
        """
        check_video(video, self.strides)
        grid = TimeGrid(video.shape[2], stride=self.strides[0])
        video = self._pad(video, grid.padded_frames)
        state = StreamState()
        sizes = [1] + [self.strides[0]] * (grid.num_latent_frames - 1)
        moments = [self.encode_chunk(chunk, state) for chunk in video.split(sizes, dim=2)]
        raw = torch.cat([mean for mean, _ in moments], dim=2)
        if sample:
            raw = draw(raw, torch.cat([logvar for _, logvar in moments], dim=2), generator)
        return self.latents.normalize(raw)

    def decode(
        self,
        latents: Latents,
        num_frames: int | None = None,
        decode_frames: int | None = None,
        tile_size: tuple[int, int] | None = None,
    ) -> Video:
        """Clips from latents of unit variance.

        Args:
            latents: Latents of unit variance per channel.
            num_frames: Frames to return; by default all that the latents hold.
            decode_frames: Latent frames handed over at a time. The result is the same, bit for bit,
                for every value.
            tile_size: Height and width, in latents, of tiles that are decoded one after the other
                to save memory.

        Returns:
            Clips, nominally in [-1, 1], not clamped.

        Raises:
            ValueError: If the latents have the wrong number of channels or cannot give
                ``num_frames``, or no latent frame is handed over at a time.
        """
        if latents.ndim != 5 or latents.shape[1] != self.latent_channels:
            raise ValueError(
                f"got latents {tuple(latents.shape)}, expected (b, {self.latent_channels}, t, h, w)"
            )
        if decode_frames is not None and decode_frames < 1:
            raise ValueError(f"got decode_frames={decode_frames}, expected at least 1")
        if tile_size is not None:
            return self._decode_tiles(latents, num_frames, decode_frames, tile_size)
        state = StreamState()
        chunks = latents.split(decode_frames or latents.shape[2], dim=2)
        return self._cut(
            torch.cat([self.decode_next(chunk, state) for chunk in chunks], dim=2), num_frames
        )

    def decode_next(self, latents: Latents, state: StreamState) -> Video:
        """Continue decoding a clip: a fold of :meth:`decode_chunk` over single latent frames.

        Args:
            latents: The next latents of unit variance, any number of latent frames.
            state: The past of the clip, advanced by this call.
        """
        raw = self.latents.denormalize(latents)
        return torch.cat([self.decode_chunk(frame, state) for frame in raw.split(1, dim=2)], dim=2)

    def decode_stream(self, latents: Latents) -> Iterator[Video]:
        """The frames of one latent frame after the other: memory does not grow with the clip."""
        state = StreamState()
        for frame in latents.split(1, dim=2):
            yield self.decode_next(frame, state)

    def reconstruct(self, video: Video) -> Video:
        """Encode and decode: the same number of frames comes back."""
        return self.decode(self.encode(video), num_frames=video.shape[2])

    @property
    def decoder_halo(self) -> int:
        """Latents on each side that an output pixel can depend on."""
        return math.ceil(self.decoder.reach())

    def _decode_tiles(
        self,
        latents: Latents,
        num_frames: int | None,
        decode_frames: int | None,
        tile_size: tuple[int, int],
    ) -> Video:
        """Decode tiles with a halo as wide as the receptive field, and keep their cores."""
        if min(tile_size) < 1:
            raise ValueError(f"got tile_size={tile_size}, expected at least (1, 1)")
        halo, (_, sh, sw) = self.decoder_halo, self.strides
        height, width = latents.shape[3:]
        rows = []
        for top in range(0, height, tile_size[0]):
            row = []
            y0, y1 = max(0, top - halo), min(height, top + tile_size[0] + halo)
            for left in range(0, width, tile_size[1]):
                x0, x1 = max(0, left - halo), min(width, left + tile_size[1] + halo)
                tile = self.decode(latents[..., y0:y1, x0:x1], num_frames, decode_frames)
                core_h = min(tile_size[0], height - top) * sh
                core_w = min(tile_size[1], width - left) * sw
                tile = tile[..., (top - y0) * sh :, (left - x0) * sw :]
                row.append(tile[..., :core_h, :core_w])
            rows.append(torch.cat(row, dim=-1))
        return torch.cat(rows, dim=-2)

    @staticmethod
    def _pad(video: Tensor, num_frames: int) -> Tensor:
        missing = num_frames - video.shape[2]
        if not missing:
            return video
        return torch.cat([video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)

    @staticmethod
    def _cut(video: Tensor, num_frames: int | None) -> Tensor:
        if num_frames is None:
            return video
        if not 1 <= num_frames <= video.shape[2]:
            raise ValueError(
                f"got num_frames={num_frames}, expected 1 to {video.shape[2]} for these latents"
            )
        return video[:, :, :num_frames]
