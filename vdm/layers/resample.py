"""Causal resampling in space and time: which frames a frame at another rate stands for."""

from __future__ import annotations

from einops import rearrange
from torch import nn

from vdm.layers.conv import CausalConv3d, StreamState, Volume

UNFOLD = "b (c st sh sw) t h w -> b c (t st) (h sh) (w sw)"


class Downsample(nn.Module):
    """A strided causal convolution. The first frame is kept, further frames are merged in groups.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Factors (time, height, width), each 1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        kernel_size = (2 * stride[0] - 1, 3, 3)
        self.conv = CausalConv3d(in_channels, out_channels, kernel_size, stride)

    def forward(self, x: Volume, state: StreamState | None = None) -> Volume:
        """Halve the axes with stride 2; ``t`` frames become ``1 + (t - 1) / 2``."""
        return self.conv(x, state)


class Upsample(nn.Module):
    """A convolution to more channels, laid out in time and space (Shi et al. 2016, 1609.05158).

    The first frame of a clip gives one frame, every further one gives ``stride[0]``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Factors (time, height, width).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.stride = stride
        size = 3 if stride[1:] != (1, 1) else 1
        self.conv = CausalConv3d(
            in_channels, out_channels * stride[0] * stride[1] * stride[2], (1, size, size)
        )

    def forward(self, x: Volume, state: StreamState | None = None) -> Volume:
        """Multiply the axes; the first ``t`` frames become ``1 + (t - 1) * stride[0]``."""
        st, sh, sw = self.stride
        y = rearrange(self.conv(x), UNFOLD, st=st, sh=sh, sw=sw)
        is_start = state is None or not state.has_started(self)
        if state is not None:
            state.remember(self, None)
        return y[:, :, st - 1 :] if is_start else y
