"""The blocks of the causal video VAE: causal in time, normalising single positions only.

A norm with statistics over space or time would make a pixel depend on the whole frame or clip; then
neither chunks nor tiles could be exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vdm.layers.conv import CausalConv3d, StreamState, Volume
from vdm.layers.resample import Upsample


class ChannelNorm(nn.Module):
    """Divide by the root mean square over channels, at every position on its own.

    Source:
        Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", arXiv:1910.07467, eq. 4.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))

    def forward(self, x: Volume) -> Volume:
        """Normalise; the scale is folded into the per-position factor's broadcast."""
        inverse = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-6)
        return x * inverse * self.weight.reshape(-1, 1, 1, 1)


class ResBlock(nn.Module):
    """Two convolutions with a shortcut: the first within the frame, the second into the past."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(num_channels)
        self.conv1 = CausalConv3d(num_channels, num_channels, (1, 3, 3))
        self.norm2 = ChannelNorm(num_channels)
        self.conv2 = CausalConv3d(num_channels, num_channels, (3, 3, 3))
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Volume, state: StreamState | None = None) -> Volume:
        """The identity at initialisation."""
        h = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(h)), state)


class CausalStack(nn.ModuleList):
    """Causal layers one after the other, all sharing one stream state."""

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """Apply the layers to a clip, or to the next chunk of one."""
        for layer in self:
            x = layer(x, state)
        return x

    def reach(self) -> float:
        """How far, in input positions, an output position looks up, down or sideways at most."""
        return max(self._reach_along(axis) for axis in (1, 2))

    def _reach_along(self, axis: int) -> float:
        total, scale = 0.0, 1.0
        for layer in self.modules():
            if isinstance(layer, CausalConv3d):
                total += (layer.kernel_size[axis] // 2) * scale
                scale *= layer.stride[axis]
            if isinstance(layer, Upsample):
                # Its convolution, visited next, still works at the coarse scale.
                total += (layer.conv.kernel_size[axis] // 2) * scale * (1 - 1 / layer.stride[axis])
                scale /= layer.stride[axis]
        return total
