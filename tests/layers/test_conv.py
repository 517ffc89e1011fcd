"""Causal convolution: chunked equals whole, and no frame sees the future."""

import pytest
import torch
from torch.nn import functional

from vdm.layers.conv import (
    CausalConv3d,
    CausalConv3dFromZero,
    StreamState,
    depth_to_space,
    space_to_depth,
)
from vdm.layers.resample import Downsample, Upsample


def in_chunks(layer, x, sizes):
    state = StreamState()
    return torch.cat([layer(chunk, state) for chunk in x.split(sizes, dim=2)], dim=2)


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3), (5, 1, 3)])
@pytest.mark.parametrize("sizes", [[1, 6], [3, 4], [2, 1, 4], [7]])
def test_chunked_convolution_equals_whole(kernel, sizes):
    layer = CausalConv3d(3, 5, kernel)
    x = torch.randn(2, 3, 7, 4, 6)
    torch.testing.assert_close(in_chunks(layer, x, sizes), layer(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("stride", [(2, 2, 2), (2, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("sizes", [[1, 8], [1, 2, 6], [3, 2, 4], [1, 2, 2, 2, 2]])
def test_chunked_downsampling_equals_whole(stride, sizes):
    layer = Downsample(3, 5, stride)
    x = torch.randn(2, 3, 9, 4, 6)
    whole = layer(x)
    assert whole.shape == (2, 5, 1 + 8 // stride[0], 4 // stride[1], 6 // stride[2])
    torch.testing.assert_close(in_chunks(layer, x, sizes), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("stride", [(2, 2, 2), (2, 1, 1), (1, 2, 2), (3, 1, 1)])
@pytest.mark.parametrize("sizes", [[5], [1, 4], [2, 2, 1]])
def test_chunked_upsampling_equals_whole(stride, sizes):
    layer = Upsample(3, 4, stride)
    x = torch.randn(2, 3, 5, 4, 6)
    whole = layer(x)
    assert whole.shape == (2, 4, 1 + 4 * stride[0], 4 * stride[1], 6 * stride[2])
    torch.testing.assert_close(in_chunks(layer, x, sizes), whole, atol=1e-6, rtol=0)


def test_no_frame_sees_the_future():
    layer = CausalConv3d(3, 5, (3, 3, 3))
    x = torch.randn(2, 3, 7, 4, 6, requires_grad=True)
    layer(x)[:, :, 2].sum().backward()
    assert x.grad[:, :, 3:].abs().max() == 0
    assert x.grad[:, :, :3].abs().amax(dim=(0, 1, 3, 4)).min() > 0


def test_a_still_image_convolves_to_a_still_image():
    layer = CausalConv3d(3, 5, (3, 3, 3))
    y = layer(torch.randn(2, 3, 1, 4, 6).expand(-1, -1, 5, -1, -1))
    torch.testing.assert_close(y, y[:, :, :1].expand_as(y), atol=1e-6, rtol=0)


def test_a_copied_state_is_a_point_to_go_back_to():
    layer = CausalConv3d(3, 5, (3, 1, 1))
    x = torch.randn(2, 3, 7, 4, 6)
    state = StreamState()
    layer(x[:, :, :3], state)
    fork = state.copy()
    first = layer(x[:, :, 3:], state)
    layer(torch.randn(2, 3, 2, 4, 6), state)
    assert torch.equal(layer(x[:, :, 3:], fork), first)


def next_by_sums(layer, frame, state, size):
    """The result at the next frame, some rows at a time."""
    height, reach = frame.shape[2], layer.padding[1]
    sums = layer.sums(frame, height, state)
    padded = functional.pad(frame, (0, 0, reach, reach))
    starts = range(0, height, size)
    windows = [padded[:, :, start : start + size + 2 * reach] for start in starts]
    rows = [layer.rows(window, sums, start) for window, start in zip(windows, starts, strict=True)]
    return torch.cat(rows, dim=2)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (4, 1, 3), (2, 5, 1)])
@pytest.mark.parametrize("size", [1, 2, 7])
@torch.no_grad()
def test_sums_of_past_frames_replace_the_frames(kernel, size):
    layer, state = CausalConv3dFromZero(3, 5, kernel), StreamState()
    x = torch.randn(2, 3, 6, 7, 4)
    frames = [next_by_sums(layer, frame, state, size) for frame in x.unbind(2)]
    torch.testing.assert_close(torch.stack(frames, dim=2), layer(x), atol=1e-6, rtol=0)
    assert state.num_bytes == (kernel[0] - 1) * 2 * 5 * 7 * 4 * 4


@torch.no_grad()
def test_a_copied_state_has_sums_of_its_own():
    layer, state, x = CausalConv3dFromZero(3, 5, (3, 1, 1)), StreamState(), torch.randn(2, 3, 4, 6)
    next_by_sums(layer, x, state, 4)
    fork = state.copy()
    once = next_by_sums(layer, x, state, 4)
    next_by_sums(layer, -x, state, 4)
    assert torch.equal(next_by_sums(layer, x, fork, 4), once)


def test_a_clip_goes_on_as_it_was_begun():
    layer, x = CausalConv3dFromZero(3, 5, (3, 1, 1)), torch.randn(2, 3, 1, 4, 6)
    with_frames, with_sums = StreamState(), StreamState()
    layer(x, with_frames)
    with torch.no_grad():
        next_by_sums(layer, x[:, :, 0], with_sums, 4)
    with pytest.raises(ValueError, match="that was begun with gradients, expected to go on with"):
        layer.sums(x[:, :, 0], 4, with_frames)
    with pytest.raises(ValueError, match="that was begun without gradients, expected to go on"):
        layer(x, with_sums)


def test_memory_of_a_stream_is_constant():
    layer, state, sizes = CausalConv3d(3, 5, (3, 3, 3)), StreamState(), set()
    for _ in range(4):
        layer(torch.randn(2, 3, 3, 4, 6), state)
        sizes.add(state.num_bytes)
    assert sizes == {2 * 3 * 2 * 4 * 6 * 4}


def test_a_chunk_that_does_not_fill_a_stride_is_refused():
    layer, state = Downsample(3, 5, (2, 1, 1)), StreamState()
    layer(torch.randn(2, 3, 1, 4, 6), state)
    with pytest.raises(ValueError, match="got a chunk of 3 frames, expected a multiple of 2; near"):
        layer(torch.randn(2, 3, 3, 4, 6), state)


@pytest.mark.parametrize(("num_frames", "nearest"), [(2, 1), (4, 5)])
def test_a_first_chunk_holds_the_first_frame_and_whole_strides(num_frames, nearest):
    layer, state = Downsample(3, 5, (2, 1, 1)), StreamState()
    expected = (
        f"got a first chunk of {num_frames} frames, expected 1 plus a multiple of 2; "
        f"nearest: {nearest}"
    )
    with pytest.raises(ValueError, match=expected):
        layer(torch.randn(2, 3, num_frames, 4, 6), state)
    layer(torch.randn(2, 3, nearest, 4, 6), state)  # a refused chunk leaves no trace


def test_wrong_kernels_are_refused():
    with pytest.raises(ValueError, match="expected odd height and width"):
        CausalConv3d(3, 5, (3, 2, 3))
    with pytest.raises(ValueError, match="expected at most the kernel size"):
        CausalConv3d(3, 5, (1, 3, 3), (2, 1, 1))


def test_depth_to_space_inverts_space_to_depth():
    x = torch.randn(2, 3, 5, 4, 6)
    folded = space_to_depth(x, 2)
    assert folded.shape == (2, 12, 5, 2, 3)
    assert torch.equal(depth_to_space(folded, 2), x)
