"""Causal 3D convolution: how it runs on a clip in pieces and gives the same result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Frame = Float[Tensor, "b _ _ _"]
Volume = Float[Tensor, "b _ _ _ _"]
Memory = Tensor | tuple[Tensor, ...] | None


class Sums(tuple[Tensor, ...]):
    """What past frames add to the results at the next ones, remembered instead of past frames."""


class StreamState:
    """What causal layers remember between the chunks of a clip: the last frames each has seen.

    Nothing is hidden in the modules: a fresh state starts a new clip, and a copy of a state is a
    point to go back to.

    Args:
        memory: What layers remember.
        is_whole: Whether the next chunk is all of a clip, of which nothing needs to be remembered
            once a layer is through with it.
    """

    def __init__(
        self, memory: dict[nn.Module, Memory] | None = None, is_whole: bool = False
    ) -> None:
        self._memory, self.is_whole = dict(memory or {}), is_whole

    def copy(self) -> StreamState:
        """An independent continuation of the same past: layers may write into what they keep."""
        copies = {layer: _copy(kept) for layer, kept in self._memory.items()}
        return StreamState(copies, self.is_whole)

    def has_started(self, layer: nn.Module) -> bool:
        """Whether the layer has already seen a chunk."""
        return layer in self._memory

    def recall(self, layer: nn.Module) -> Tensor | None:
        """The layer's memory of past frames as one tensor; None if there is none.

        Raises:
            ValueError: If it remembers sums.
        """
        found = self._frames(layer)
        if isinstance(found, tuple):
            return torch.stack(found, dim=2) if found else None
        return found

    def recall_frames(self, layer: nn.Module) -> tuple[Frame, ...]:
        """The layer's memory of past frames, one by one.

        Raises:
            ValueError: If it remembers sums.
        """
        found = self._frames(layer)
        return tuple(found.unbind(2)) if isinstance(found, Tensor) else found or ()

    def recall_sums(self, layer: nn.Module) -> Sums | None:
        """The layer's memory of what past frames add to the next ones; None if there is none.

        Raises:
            ValueError: If it remembers frames.
        """
        found = self._memory.get(layer)
        if found is None or isinstance(found, Sums):
            return found
        raise ValueError("got a clip that was begun with gradients, expected to go on with them")

    def _frames(self, layer: nn.Module) -> Memory:
        found = self._memory.get(layer)
        if isinstance(found, Sums):
            raise ValueError(
                "got a clip that was begun without gradients, expected to go on without them"
            )
        return found

    def remember(self, layer: nn.Module, value: Memory) -> None:
        """Replace the layer's memory."""
        self._memory[layer] = value

    def leave(self, layer: nn.Module) -> None:
        """Let go of a layer's memory if nothing of the clip comes after the chunk it has seen."""
        if self.is_whole:
            self._memory.pop(layer, None)

    @property
    def num_bytes(self) -> int:
        """Bytes of tensors remembered."""
        kept = (v if isinstance(v, tuple) else (v,) for v in self._memory.values())
        return sum(v.nbytes for values in kept for v in values if v is not None)


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

    memory_order = (2, 0, 3, 4, 1)
    """Axes of its kernel as they are read fastest: what belongs to a frame, channels last."""

    def forward(self, x: Volume, state: StreamState | None = None) -> Volume:  # type: ignore[override]
        """Convolve a clip, or the next chunk of one.

        Args:
            x: The clip or chunk.
            state: The past of the clip, advanced by this call; None convolves a whole clip.

        Raises:
            ValueError: If a chunk does not fill the temporal stride.
        """
        kt, st = self.kernel_size[0], self.stride[0]
        if state is not None:
            _check_chunk(x.shape[2], st, is_first=not state.has_started(self))
        if not torch.is_grad_enabled() and x.stride(1) == 1:
            return self._frame_by_frame(x, state)
        if kt == 1:
            return super().forward(x)
        past: Tensor | None
        if state is None or not state.has_started(self):
            past = self.before(x)
        else:
            past = state.recall(self)
        joined = x if past is None else torch.cat([past, x], dim=2)
        if state is not None:
            keep = kt - st
            # The kept frames are copied, so that a state does not hold the whole chunk in memory.
            state.remember(self, joined[:, :, -keep:].clone() if keep else None)
            state.leave(self)
        return super().forward(joined)

    def _frame_by_frame(self, x: Volume, state: StreamState | None) -> Volume:
        """The same of channels-last video, where nothing is differentiated."""
        frames = [self.padded(frame) for frame in x.unbind(2)]
        state = StreamState(is_whole=True) if state is None else state
        window, made = [*self._past(frames[0], state)], []
        for frame in frames:
            window.append(frame)
            if len(window) == self.kernel_size[0]:
                made.append(self.join(window))
                window = window[self.stride[0] :]
        if self.kernel_size[0] > 1:
            # Copies, so that a state does not hold the whole chunk in memory.
            state.remember(self, tuple(frame.clone() for frame in window))
            state.leave(self)
        return made[0][:, :, None] if len(made) == 1 else torch.stack(made, dim=2)

    def next(self, frame: Frame, state: StreamState) -> Frame:
        """Convolve the next frame of a clip, without stride in time or gradients.

        Args:
            frame: The frame, channels last. It is kept, so nobody may write over it.
            state: The past of the clip, advanced by this call.
        """
        frame = self.padded(frame)
        seen = (*self._past(frame, state), frame)
        if len(seen) > 1:
            state.remember(self, seen[1:])
        return self.join(seen)

    def join(self, frames: Iterable[Frame]) -> Frame:
        """One frame, made of as many as the kernel is long.

        A convolution of each is added up, because PyTorch's own ones in three dimensions take up to
        seven times as long on a CPU where there are few frames.
        """
        padding = (0, 0) if self.padding_mode == "replicate" else self.padding[1:]
        weights, stride = self.weight.unbind(2), self.stride[1:]
        out: Tensor | None = None
        for frame, weight in zip(frames, weights, strict=True):
            if out is None:
                out = functional.conv2d(frame, weight, self.bias, stride, padding)
            else:
                out += functional.conv2d(frame, weight, None, stride, padding)
        assert out is not None
        return out

    def padded(self, frame: Frame) -> Frame:
        """A frame as :meth:`join` takes it."""
        if self.padding_mode != "replicate":
            return frame
        _, kh, kw = self.kernel_size
        sides = (kw // 2, kw // 2, kh // 2, kh // 2)
        return functional.pad(frame, sides, mode="replicate")

    def _past(self, first: Frame, state: StreamState) -> tuple[Frame, ...]:
        """The frames before one, of which there are none before the first of a clip."""
        if self.kernel_size[0] > 1 and not state.has_started(self):
            return tuple(self.before(first[:, :, None]).unbind(2))
        return state.recall_frames(self)

    def before(self, x: Volume) -> Volume:
        """What is before the first frame of a clip."""
        return x[:, :, :1].expand(-1, -1, self.kernel_size[0] - 1, -1, -1)


class CausalConv3dFromZero(CausalConv3d):
    """Before the first frame there are zeros.

    What past frames add to the results at the next ones, which starts as the offset, can therefore
    be remembered instead of the frames: it is written over when the next frame has come, a few rows
    at a time.
    """

    def before(self, x: Volume) -> Volume:
        """What is before the first frame of a clip."""
        return torch.zeros_like(x[:, :, :1]).expand(-1, -1, self.kernel_size[0] - 1, -1, -1)

    def sums(self, like: Frame, height: int, state: StreamState) -> Sums:
        """What past frames add to the results at the next frame and those after it.

        Args:
            like: Some rows of the next frame.
            height: Rows of frames.
            state: The past of the clip, which remembers the result.
        """
        found = state.recall_sums(self)
        if found is None:
            shape = (len(like), height, like.shape[3], self.out_channels)
            found = Sums(
                like.new_zeros(shape).permute(0, 3, 1, 2) for _ in range(self.kernel_size[0] - 1)
            )
            if self.bias is not None:
                for each in found:
                    each.add_(self.bias[:, None, None])
            state.remember(self, found)
        return found

    def rows(self, window: Frame, sums: Sequence[Frame], start: int) -> Frame:
        """Some rows of the result at the next frame, without stride or gradients.

        Args:
            window: The same rows of the frame, and those around them that the kernel reaches.
            sums: See :meth:`sums`; these rows of them are written over.
            start: The first of the rows.
        """
        _, kh, kw = self.kernel_size
        size, padding = window.shape[2] - 2 * (kh // 2), (0, kw // 2)
        *past, now = self.weight.unbind(2)
        rows = [each.narrow(2, start, size) for each in sums]
        made = functional.conv2d(window, now, None, 1, padding).add_(rows[0])
        oldest, *newer = past
        for weight, (to, since) in zip(reversed(newer), pairwise(rows), strict=True):
            torch.add(since, functional.conv2d(window, weight, None, 1, padding), out=to)
        rows[-1].copy_(functional.conv2d(window, oldest, self.bias, 1, padding))
        return made


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


def _copy(kept: Memory) -> Memory:
    if isinstance(kept, tuple):
        return type(kept)(tensor.clone() for tensor in kept)
    return None if kept is None else kept.clone()


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
