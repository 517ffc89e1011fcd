"""Causal VAEs that take a long clip in windows of time which overlap and are blended."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from torch import Tensor

from vdm.autoencoder.causal_blocks import CausalDesign
from vdm.autoencoder.causal_vae import CausalVAE
from vdm.layers.conv import StreamState, Volume
from vdm.types import Latents, Video
from vdm.utils.config import configurable

Run = Callable[[Tensor], Tensor]


class WindowedDesign(CausalDesign, ABC):
    """A design whose models take clips in windows.

    Every window is a clip of its own: its first latent frame holds one frame. But for the first
    window that frame is only there for what comes after it, and is left out of the result.
    """

    window: int | None
    """Latent frames of a window besides its first; None for all of a clip."""
    step: int
    """Latent frames from one window to the next."""

    def encode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """A window is one piece."""
        return [num_frames]

    def decode_sizes(self, num_frames: int, is_start: bool) -> list[int]:
        """A window is one piece."""
        return [num_frames]


@configurable
class WindowedVAE(CausalVAE):
    """A causal VAE that takes a long clip in windows, as published.

    Its design is a :class:`WindowedDesign`. What overlaps is blended from one window to the next,
    so frames are what they would be at once as far as a window sees.

    Source:
        Kong et al. 2024, "HunyuanVideo", arXiv:2412.03603, section 4.1, "inference".
    """

    design: WindowedDesign

    def encode_raw_moments(self, video: Video) -> tuple[Latents, Latents]:
        """Mean and log-variance of clips of whole latent frames."""
        stride = self.strides[0]

        def encode(frames: Tensor) -> Tensor:
            return torch.cat(self.encode_chunk(frames, StreamState(is_whole=True)), dim=1)

        parts = [*self._windows(video, encode, stride, 1)]
        mean, logvar = torch.cat(parts, dim=2).chunk(2, dim=1)
        return mean, logvar

    def decode_next(self, latents: Latents, state: StreamState) -> Video:
        """Decode a whole clip.

        Args:
            latents: In the scale that networks are trained with.
            state: Of a clip that has not begun.

        Raises:
            ValueError: If the clip has begun.
        """
        if state.has_started(self):
            raise ValueError(
                f"got {latents.shape[2]} latent frames to go on with, expected a whole clip at "
                "once: its windows overlap"
            )
        return super().decode_next(latents, state)

    def _pieces(self, latents: Latents, state: StreamState) -> Iterator[Video]:
        state.remember(self, None)

        def decode(window: Tensor) -> Tensor:
            return self.decode_chunk(self.scale.denormalize(window), StreamState(is_whole=True))

        return self._windows(latents, decode, 1, self.strides[0])

    def _windows(self, x: Volume, run: Run, size_in: int, size_out: int) -> Iterator[Tensor]:
        """Results of windows, blended, one behind the other.

        Args:
            x: A clip, or its latents.
            run: What is done with a window.
            size_in: Frames of ``x`` for each latent frame but the first.
            size_out: Likewise frames of the result.
        """
        window, step = self.design.window, self.design.step
        if window is None or x.shape[2] <= size_in * window:
            yield run(x)
            return
        before: Tensor | None = None
        for start in range(0, x.shape[2], size_in * step):
            frames = run(x[:, :, start : start + size_in * window + 1])
            if before is not None:
                frames = blend(before, frames[:, :, 1:], size_out * (window - step))
            yield frames[:, :, : size_out * step + (before is None)]
            before = frames


def blend(before: Volume, frames: Volume, count: int) -> Volume:
    """Frames of which the first pass over from the last ones of others.

    Args:
        before: The others.
        frames: Frames.
        count: How many pass over, if there are as many.
    """
    count = min(before.shape[2], frames.shape[2], count)
    if count == 0:
        return frames
    share = rearrange(torch.arange(count, device=frames.device) / count, "t -> t 1 1")
    mixed = before[:, :, -count:].lerp(frames[:, :, :count], share.to(frames.dtype))
    return torch.cat((mixed, frames[:, :, count:]), dim=2)
