"""The parts of HunyuanVideo's VAE.

Norms look at all frames of a window, which is a clip of its own; attention in the middle sees a
frame and those before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import nn

from vdm.autoencoder.causal_blocks import Piece, PieceNorm
from vdm.autoencoder.cogvideox_vae import PieceGroupNorm, blocks
from vdm.autoencoder.windowed_vae import WindowedDesign
from vdm.layers.attention import Attention, KVCache
from vdm.layers.conv import CausalConv3d, CausalConv3dReplicated, Volume, empty_frames


class CausalFrameAttention(nn.Module):
    """One head of attention from every place to those of its frame and of earlier ones.

    Frame by frame, so that no mask is needed. Tokens are normalised before, and what they find is
    added.

    Args:
        norm: The norm.
        channels: Channels.
    """

    def __init__(self, norm: PieceNorm, channels: int) -> None:
        super().__init__()
        self.norm, self.attention = norm, Attention(channels, 1)

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Let the places of a clip attend to each other."""
        _, _, t, h, w = x.shape
        tokens = rearrange(self.norm(x, piece), "b c t h w -> b (t h w) c")
        kv = self.attention.keys_values(tokens)
        found = []
        for number, q in enumerate(self.attention.queries(tokens).split(h * w, dim=2), start=1):
            seen = KVCache(*(each[:, :, : number * h * w] for each in (kv.keys, kv.values)))
            found.append(self.attention.attend(q, seen))
        mixed = self.attention.output(torch.cat(found, dim=2))
        return x + rearrange(mixed, "b (t h w) c -> b c t h w", t=t, h=h, w=w)


class StridedShrink(nn.Module):
    """Half as high and wide, with about half the frames if so wanted, by one convolution.

    Args:
        channels: Channels.
        in_time: Whether there are fewer frames after.
    """

    def __init__(self, channels: int, in_time: bool) -> None:
        super().__init__()
        self.conv = CausalConv3dReplicated(channels, channels, (3, 3, 3), (1 + in_time, 2, 2))

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a window."""
        return self.conv(x, piece.state)


class RepeatedEnlarge(nn.Module):
    """Everything repeated, then a convolution; the first frame is not repeated in time.

    Without gradients one frame is repeated at a time, so that there are never all of them beside
    their result.

    Args:
        channels: Channels.
        in_time: Whether there are more frames after.
    """

    def __init__(self, channels: int, in_time: bool) -> None:
        super().__init__()
        self.in_time = in_time
        self.conv = CausalConv3dReplicated(channels, channels, (3, 3, 3))

    def forward(self, x: Volume, piece: Piece) -> Volume:
        """Transform a window."""
        b, c, t, h, w = x.shape
        times = 2 if self.in_time else 1
        sources = [0] + [number for number in range(1, t) for _ in range(times)]
        if torch.is_grad_enabled():
            # Stacking frames, unlike other ways, keeps channels last.
            wide = [repeat(x[:, :, k], "b c h w -> b c (h 2) (w 2)") for k in sources]
            return self.conv(torch.stack(wide, dim=2), piece.state)
        out = empty_frames(x.new_empty(b, 0, 0, 2 * h, 2 * w), len(sources), c)
        for number, k in enumerate(sources):
            frame = empty_frames(out, 1, c)[:, :, 0]
            blocks(frame, h, w).copy_(x[:, :, k, :, None, :, None])
            out[:, :, number] = self.conv.next(frame, piece.state)
        piece.state.leave(self.conv)
        return out


@dataclass(frozen=True)
class HunyuanVideoDesign(WindowedDesign):
    """The VAE of HunyuanVideo, also that of Open-Sora 2.0.

    Args:
        num_groups: Groups of the normalisations.
        window: Latent frames of a window besides its first; None for all of a clip.
        step: Latent frames from one window to the next.

    Source:
        Kong et al. 2024, "HunyuanVideo", arXiv:2412.03603, section 4.1.
    """

    num_groups: int = 32
    window: int | None = 4
    step: int = 3

    is_causal = False
    maps_latents = True

    def __post_init__(self) -> None:
        """Check that windows overlap by less than half."""
        if self.window is not None and not self.window / 2 <= self.step < self.window:
            raise ValueError(
                f"got step={self.step} for window={self.window}, expected less, but at least half"
            )

    def conv(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> CausalConv3d:
        """Beyond the borders and before the first frame everything goes on as it is there."""
        return CausalConv3dReplicated(in_channels, out_channels, (kernel_size,) * 3)

    def norm(self, channels: int, latent_channels: int | None) -> PieceNorm:
        """Groups."""
        return PieceGroupNorm(channels, self.num_groups)

    def middle(self, channels: int, latent_channels: int | None) -> list[nn.Module]:
        """Two blocks, attention between them."""
        first, last = (self.block(channels, channels, latent_channels) for _ in range(2))
        return [first, CausalFrameAttention(self.norm(channels, None), channels), last]

    def shrink(self, channels: int, in_time: bool) -> nn.Module:
        """A strided convolution."""
        return StridedShrink(channels, in_time)

    def enlarge(self, channels: int, in_time: bool) -> nn.Module:
        """Repetition, and a convolution."""
        return RepeatedEnlarge(channels, in_time)
