"""Causal 3D convolution: how it runs on a clip in pieces and gives the same result."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Volume = Float[Tensor, "b _ _ _ _"]

SMALL = 20_480
"""Rows of pixels over samples, channels and frames, up to which PyTorch is slow on CPUs."""


class StreamState:
    """What causal layers remember between the chunks of a clip: the last frames each has seen.

    Nothing is hidden in the modules: a fresh state starts a new clip, and a copy of a state is a
    point to go back to. Layers replace entries and never write into the tensors, so a shallow copy
    is enough.
    """

    def __init__(self, memory: dict[nn.Module, Tensor | None] | None = None) -> None:
        self._memory = dict(memory or {})

    def copy(self) -> StreamState:
        """An independent continuation of the same past."""
        return StreamState(self._memory)

    def has_started(self, layer: nn.Module) -> bool:
        """Whether the layer has already seen a chunk."""
        return layer in self._memory

    def recall(self, layer: nn.Module) -> Tensor | None:
        """The layer's memory of the past; None if there is none."""
        return self._memory.get(layer)

    def remember(self, layer: nn.Module, value: Tensor | None) -> None:
        """Replace the layer's memory."""
        self._memory[layer] = value

    @property
    def num_bytes(self) -> int:
        """Bytes of tensors remembered."""
        return sum(v.numel() * v.element_size() for v in self._memory.values() if v is not None)


class CausalConv3d(nn.Conv3d):
    """A 3D convolution whose output at a frame depends on that frame and earlier ones only.

    In space it is zero-padded to keep the size (divided by the stride). Before the first frame,
    time is continued by repeating that frame, as if the clip had been a still image until then.

    With a temporal stride ``s`` the first frame gives the first output frame and every further
    ``s`` frames one more. Of a clip in chunks, the first must hold one frame plus a multiple of
    ``s``, the others a multiple of ``s``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd sizes (time, height, width).
        stride: (time, height, width).
        bias: Whether to add a learned offset.

    Raises:
        ValueError: If a spatial kernel size is even, or the temporal stride exceeds the kernel
            size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        bias: bool = True,
    ) -> None:
        kt, kh, kw = kernel_size
        if kh % 2 == 0 or kw % 2 == 0:
            raise ValueError(f"got kernel_size={kernel_size}, expected odd height and width")
        if stride[0] > kt:
            raise ValueError(
                f"got temporal stride {stride[0]}, expected at most the kernel size {kt}"
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding=(0, kh // 2, kw // 2), bias=bias
        )

    def forward(self, x: Volume, state: StreamState | None = None) -> Volume:  # type: ignore[override]
        """Convolve a clip, or the next chunk of one.

        Args:
            x: The clip or chunk.
            state: The past of the clip, advanced by this call; None convolves a whole clip.

        Raises:
            ValueError: If a chunk does not fill the temporal stride.
        """
        kt, st = self.kernel_size[0], self.stride[0]
        if kt == 1:
            return super().forward(x)
        past: Tensor | None
        if state is None or not state.has_started(self):
            past = self.before(x)
        else:
            past = state.recall(self)
        if state is not None:
            _check_chunk(x.shape[2], st, is_first=not state.has_started(self))
        joined = x if past is None else torch.cat([past, x], dim=2)
        if state is not None:
            keep = kt - st
            # The kept frames are copied, so that a state does not hold the whole chunk in memory.
            state.remember(self, joined[:, :, -keep:].clone() if keep else None)
        return super().forward(joined)

    def before(self, x: Volume) -> Volume:
        """What is before the first frame of a clip."""
        return x[:, :, :1].expand(-1, -1, self.kernel_size[0] - 1, -1, -1)

    def in_room(self, room: Volume, state: StreamState) -> Volume:
        """Convolve frames without stride that have room for the past before them.

        Args:
            room: As many frames as the kernel looks back, which are overwritten, then the next
                frames.
            state: The past of the clip, advanced by this call.
        """
        back = self.kernel_size[0] - 1
        if back == 0:
            return super().forward(room)
        past = state.recall(self)
        room[:, :, :back] = self.before(room[:, :, back:]) if past is None else past
        state.remember(self, None)  # two memories at once would be one too many
        state.remember(self, room[:, :, -back:].clone())
        return super().forward(room)

    def slabs(self, x: Volume) -> list[slice]:
        """Frames to convolve at a time: few, for little memory, but no more slowly than all."""
        b, c, num_frames, h, _ = x.shape
        at_a_time = max(1, SMALL // (b * c * h) + 2 - self.kernel_size[0])
        count = max(1, num_frames // at_a_time)
        stops = [num_frames * part // count for part in range(count + 1)]
        return [slice(*ends) for ends in pairwise(stops)]


class CausalConv3dFromZero(CausalConv3d):
    """Before the first frame there are zeros."""

    def before(self, x: Volume) -> Volume:
        """What is before the first frame of a clip."""
        return torch.zeros_like(x[:, :, :1]).expand(-1, -1, self.kernel_size[0] - 1, -1, -1)


class CausalConv3dReplicated(CausalConv3d):
    """Beyond the borders of a frame there are copies of the pixels at the border."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, bias)
        if max(kernel_size[1:]) > 1:
            self.padding_mode = "replicate"


def empty_frames(like: Volume, num_frames: int, num_channels: int) -> Volume:
    """Memory for video of the same size as other video, channels last."""
    b, _, _, h, w = like.shape
    return torch.empty(
        (b, num_channels, num_frames, h, w),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last_3d,
    )


def _check_chunk(num_frames: int, stride: int, is_first: bool) -> None:
    alone = int(is_first)  # the first frame of a clip stands for itself
    if (num_frames - alone) % stride:
        name, plus = ("a first chunk", "1 plus ") if is_first else ("a chunk", "")
        nearest = alone + max(1 - alone, round((num_frames - alone) / stride)) * stride
        raise ValueError(
            f"got {name} of {num_frames} frames, expected {plus}a multiple of {stride}; "
            f"nearest: {nearest}"
        )


def space_to_depth(x: Volume, size: int) -> Volume:
    """Move ``size`` x ``size`` squares of pixels into channels."""
    b, c, t, h, w = x.shape
    folded = functional.pixel_unshuffle(x.transpose(1, 2).reshape(b * t, c, h, w), size)
    return folded.unflatten(0, (b, t)).transpose(1, 2)


def depth_to_space(x: Volume, size: int) -> Volume:
    """The inverse of :func:`space_to_depth`."""
    b, c, t, h, w = x.shape
    unfolded = functional.pixel_shuffle(x.transpose(1, 2).reshape(b * t, c, h, w), size)
    return unfolded.unflatten(0, (b, t)).transpose(1, 2)
