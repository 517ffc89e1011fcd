"""The causal VAEs of published video transformers: how a clip passes through one, piece by piece.

One class for those that are built level by level; what differs is the :class:`CausalDesign` that
it is given, which says what the layers are and in which pieces a clip is taken. That of LTX-Video
is built in another way (:mod:`vdm.autoencoder.ltx_vae`); clips pass through it likewise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from vdm.autoencoder.causal_blocks import CausalDesign, Decoder, Encoder
from vdm.autoencoder.latents import LatentNormalizer, LatentScale, check_video, draw
from vdm.layers.conv import StreamState, Volume
from vdm.types import Autoencoder, Latents, Video
from vdm.utils.config import configurable
from vdm.utils.time_grid import TimeGrid


class ChunkedVAE(Autoencoder, ABC):
    """A video VAE that is handed clips piece by piece.

    A class of it sets what is named here, and implements one piece of either direction.
    """

    is_chunk_exact = True

    scale: LatentScale | LatentNormalizer
    """What raw latents are put through before a network sees them."""
    latent_channels: int
    is_causal: bool
    """Whether no frame depends on a later one."""
    strides: tuple[int, int, int]
    """Frames and pixels per latent along (t, h, w)."""

    @abstractmethod
    def encode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """Frames of the pieces that the next frames of a clip are encoded in."""

    @abstractmethod
    def decode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """Latent frames of the pieces that the next ones of a clip are decoded in."""

    @abstractmethod
    def encode_chunk(self, video: Volume, state: StreamState) -> tuple[Latents, Latents]:
        """Mean and log-variance of the raw latents of the next frames of a clip.

        Args:
            video: The next frames, one piece of them.
            state: The past of the clip, advanced by this call.
        """

    @abstractmethod
    def decode_chunk(self, raw: Latents, state: StreamState) -> Volume:
        """The frames of the next raw latents of a clip.

        Args:
            raw: The next raw latents, one piece of them.
            state: The past of the clip, advanced by this call.
        """

    def num_frames(self, num_latent_frames: int) -> int:
        """How many frames latents of a clip are decoded to."""
        return 1 + (num_latent_frames - 1) * self.strides[0]

    def encode_moments(self, video: Video) -> tuple[Latents, Latents]:
        """Mean and log-variance of raw latents of clips completed to whole latent frames.

        Raises:
            ValueError: If there is no frame, or the height or width is not a multiple of the
                stride.
        """
        check_video(video, self.strides)
        missing = TimeGrid(video.shape[2], stride=self.strides[0]).padded_frames - video.shape[2]
        if missing:
            last = video[:, :, -1:].expand(-1, -1, missing, -1, -1)
            video = torch.cat([video, last], dim=2)
        return self.encode_raw_moments(video)

    def encode_raw_moments(self, video: Video) -> tuple[Latents, Latents]:
        """The same, of clips that fill whole latent frames."""
        sizes = self.encode_sizes(video.shape[2], True)
        state = StreamState(is_whole=len(sizes) == 1)
        moments = [self.encode_chunk(chunk, state) for chunk in video.split(sizes, dim=2)]
        means, logvars = zip(*moments, strict=True)
        return torch.cat(means, dim=2), torch.cat(logvars, dim=2)

    def encode(
        self, video: Video, sample: bool = False, generator: torch.Generator | None = None
    ) -> Latents:
        """Latents in the scale that networks are trained with.

        Args:
            video: Clips in [-1, 1], of any number of frames.
            sample: Draw from the posterior instead of taking its mean.
            generator: Where the draw comes from, made there in float32 and then moved.

        Raises:
            ValueError: If there is no frame, or the height or width is not a multiple of the
                stride.
        """
        mean, logvar = self.encode_moments(video)
        return self.scale.normalize(draw(mean, logvar, generator) if sample else mean)

    def decode(
        self, latents: Latents, num_frames: int | None = None, decode_frames: int | None = None
    ) -> Video:
        """Clips from latents.

        Args:
            latents: In the scale that networks are trained with.
            num_frames: Frames to return; by default all that the latents give.
            decode_frames: Latent frames handed over at a time. Pieces are always those of
                the model, so the result is the same for every value.

        Returns:
            Clips, nominally in [-1, 1].

        Raises:
            ValueError: If the latents have the wrong number of channels or cannot give
                ``num_frames``, or no latent frame is handed over at a time.
        """
        if decode_frames is not None and decode_frames < 1:
            raise ValueError(f"got decode_frames={decode_frames}, expected at least 1")
        video, start = None, 0
        for piece in self.decode_stream(latents):
            if video is None:  # all of it at once, so that there are never two of it
                size = list(piece.shape)
                size[2] = self.num_frames(latents.shape[2])
                video = piece.new_empty(size)
            video[:, :, start : start + piece.shape[2]] = piece
            start += piece.shape[2]
            del piece  # the next is not made beside it
        assert video is not None
        if num_frames is None:
            return video
        return _cut(video, num_frames, 1 + (latents.shape[2] - 1) * self.strides[0])

    def decode_stream(self, latents: Latents) -> Iterator[Video]:
        """The frames of a clip, piece by piece: memory does not grow with the clip.

        Raises:
            ValueError: If the latents have the wrong number of channels.
        """
        if latents.ndim != 5 or latents.shape[1] != self.latent_channels:
            raise ValueError(
                f"got latents {tuple(latents.shape)}, expected (b, {self.latent_channels}, t, h, w)"
            )
        is_whole = len(self.decode_sizes(latents.shape[2], True)) == 1
        return self._pieces(latents, StreamState(is_whole=is_whole))

    def decode_next(self, latents: Latents, state: StreamState) -> Video:
        """Continue decoding a clip: a fold of :meth:`decode_chunk` over the pieces of the model.

        Args:
            latents: The next latents, in the scale that networks are trained with.
            state: The past of the clip, advanced by this call.

        Raises:
            ValueError: If the latents cannot be taken in pieces of the model.
        """
        return torch.cat(list(self._pieces(latents, state)), dim=2)

    def _pieces(self, latents: Latents, state: StreamState) -> Iterator[Video]:
        is_start = not state.has_started(self)
        state.remember(self, None)
        sizes = self.decode_sizes(latents.shape[2], is_start)
        for piece in latents.split(sizes, dim=2):
            yield self.decode_chunk(self.scale.denormalize(piece), state)

    def reconstruct(self, video: Video) -> Video:
        """Encode and decode: the same number of frames comes back."""
        return self.decode(self.encode(video), num_frames=video.shape[2])


@configurable
class CausalVAE(ChunkedVAE):
    """A causal video VAE as published.

    Args:
        design: What its parts are.
        scale: What raw latents are put through before a network sees them.
        latent_channels: Channels of the latents.
        widths: Channels of every level, from the finest.
        encoder_depth: Blocks of every level of the encoder.
        decoder_depth: Blocks of every level of the decoder.
        halves_time: Whether frames are fewer after a level of the encoder, for all but the last.
        doubles_time: Whether frames are more after a level of the decoder, for all but the last.
        decoder_widths: Channels of the decoder's levels, if they are others.

    Raises:
        ValueError: If the lengths do not fit together, or time is not halved as often as doubled.
    """

    def __init__(
        self,
        design: CausalDesign,
        scale: LatentScale,
        latent_channels: int = 16,
        widths: Sequence[int] = (128, 256, 256, 512),
        encoder_depth: int = 3,
        decoder_depth: int = 4,
        halves_time: Sequence[bool] = (True, True, False),
        doubles_time: Sequence[bool] = (True, True, False),
        decoder_widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        lengths = [len(widths), len(decoder_widths or widths)]
        lengths += [len(halves_time) + 1, len(doubles_time) + 1]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"got {lengths[0]} widths, {lengths[1]} for the decoder, {len(halves_time)} "
                f"halves_time and {len(doubles_time)} doubles_time; expected n, n, n - 1, n - 1"
            )
        if sum(halves_time) != sum(doubles_time):
            raise ValueError(
                f"got time halved {sum(halves_time)} times and doubled {sum(doubles_time)} times, "
                "expected as often"
            )
        self.design, self.scale, self.latent_channels = design, scale, latent_channels
        self.is_causal = design.is_causal
        side = design.patch_size * (2 ** len(halves_time) if design.shrinks_space else 1)
        self.strides = (2 ** sum(halves_time), side, side)
        self.encoder = Encoder(design, latent_channels, widths, encoder_depth, halves_time)
        self.to_moments: nn.Module = nn.Identity()
        self.from_latents: nn.Module = nn.Identity()
        if design.maps_latents:
            self.to_moments = design.conv(2 * latent_channels, 2 * latent_channels, 1)
            self.from_latents = design.conv(latent_channels, latent_channels, 1)
        widths = widths if decoder_widths is None else decoder_widths
        self.decoder = Decoder(design, latent_channels, widths, decoder_depth, doubles_time)

    def encode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """Those of the design."""
        return self.design.encode_sizes(num_frames, is_start)

    def decode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """Those of the design."""
        return self.design.decode_sizes(num_frames, is_start)

    def num_frames(self, num_latent_frames: int) -> int:
        """As the design has it."""
        return self.design.num_frames(num_latent_frames, self.strides[0])

    def encode_chunk(self, video: Volume, state: StreamState) -> tuple[Latents, Latents]:
        """Through the encoder, and the map behind it."""
        moments = self.to_moments(self.encoder(self.design.fold(video), state))
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode_chunk(self, raw: Latents, state: StreamState) -> Volume:
        """Through the map before the decoder, and it."""
        return self.design.unfold(self.decoder(self.from_latents(raw), state))


def _cut(video: Tensor, num_frames: int, on_grid: int) -> Tensor:
    """The frames wanted: those beyond the time grid are before it, the first latent frame's."""
    if not 1 <= num_frames <= video.shape[2]:
        raise ValueError(
            f"got num_frames={num_frames}, expected 1 to {video.shape[2]} for these latents"
        )
    start = video.shape[2] - max(num_frames, on_grid)
    return video[:, :, start : start + num_frames]
