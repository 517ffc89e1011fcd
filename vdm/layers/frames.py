"""Layers that see one frame at a time: what image networks are made of, on video."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.pieces import FRAMES, map_pieces
from vdm.utils.tensors import fold_frames, unfold_frames

Volume = Float[Tensor, "b c t h w"]


class FrameConv(nn.Conv2d):
    """A 2D convolution of every frame; the size is kept, or divided by the stride and rounded up.

    Channels-last video stays so, and its frames are a view of it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd size.
        stride: In space.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)

    def close(self) -> None:
        """Start at zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    memory_order = (0, 2, 3, 1)
    """Axes of its kernel as they are read fastest beside channels-last frames."""

    def forward(self, input: Volume) -> Float[Tensor, "b c_out t h_out w_out"]:
        """Convolve every frame."""
        if self.kernel_size == (1, 1) and self.stride == (1, 1):
            # A matrix: the library's convolutions would move channels to the front and back.
            tokens = rearrange(input, "b c t h w -> b t h w c")
            matrix = rearrange(self.weight, "c_out c 1 1 -> c_out c")
            return rearrange(F.linear(tokens, matrix, self.bias), "b t h w c -> b c t h w")
        frames = fold_frames(input)
        return unfold_frames(super().forward(frames), len(input))


class FrameUpsample(nn.Module):
    """Repeat pixels up to a given size, then a convolution of every frame.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output; as many if not given.
    """

    def __init__(self, channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        self.conv = FrameConv(channels, out_channels or channels)

    def forward(self, x: Volume, size: tuple[int, int]) -> Float[Tensor, "b c_out t h_out w_out"]:
        """Enlarge every frame to the size of the skip that it will meet; sizes may be odd."""

        def enlarge(x: Volume) -> Tensor:
            frames = fold_frames(x)
            frames = F.interpolate(frames, size=size, mode="nearest")
            return self.conv(unfold_frames(frames, len(x)))

        return map_pieces(enlarge, x, axis=FRAMES)
