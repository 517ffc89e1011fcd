"""Without gradients branches run piece by piece, and nothing comes out otherwise."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vdm.layers import pieces
from vdm.layers.conv import CausalConv3d
from vdm.layers.frames import FrameConv
from vdm.layers.norms import at_rest, make_group_norm
from vdm.layers.pieces import FRAMES, HEIGHT, add_branch, add_to_each, map_pieces, plus, silu, times
from vdm.layers.temporal import Stream, TemporalConv, normed_conv
from vdm.utils.tensors import fold_frames, unfold_frames

B, C, T, H, W = 2, 6, 5, 4, 7


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    for name in ("PIECE", "MIN_TOKENS", "PIECE_OF_VOLUME", "MIN_PIXELS"):
        monkeypatch.setattr(pieces, name, 1)


@pytest.fixture
def clip():
    return torch.randn(B, C, T, H, W).contiguous(memory_format=torch.channels_last_3d)


def test_operations_write_over_what_nobody_needs_and_only_then():
    for operation in (lambda x: plus(x, x), lambda x: times(x, x), silu):
        x = torch.randn(3, 4)
        before = x.clone()
        kept = operation(x)
        assert torch.equal(x, before)
        with torch.no_grad():
            written = operation(x)
        assert written.data_ptr() == x.data_ptr()
        assert torch.allclose(written, kept)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_branches_are_added_piece_by_piece(axis):
    tokens, seen = torch.randn(B, T, H, C), []

    def branch(x):
        seen.append(x.shape[axis])
        return 2 * x

    whole = add_branch(tokens, branch, axis)
    with torch.no_grad():
        assert torch.allclose(add_branch(tokens, branch, axis), whole)
    assert seen == [tokens.shape[axis]] + [1] * tokens.shape[axis]


@torch.no_grad()
def test_tokens_are_treated_one_by_one_whatever_their_strides():
    tokens = torch.randn(B, H, T, C).transpose(1, 2)
    expected = 3 * tokens
    assert torch.equal(add_to_each(tokens, lambda x: 2 * x), expected)


@pytest.mark.parametrize("axis", [FRAMES, HEIGHT])
def test_volumes_are_mapped_piece_by_piece(clip, axis):
    told = torch.randn(B, C, T if axis == FRAMES else 1, 1, 1)

    def function(x, told):
        return (x + told).repeat(1, 2, 1, 1, 1)

    expected = map_pieces(function, clip, told, axis=axis)
    with torch.no_grad():
        found = map_pieces(function, clip, told, axis=axis)
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last_3d)
        over = map_pieces(lambda x, y: x + y, clip, clip.clone(), axis=axis, into=clip)
    assert over is clip


@pytest.mark.parametrize("statistics", ["frame", "clip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_normalisation_at_rest_is_the_same_for_parts(clip, statistics, dtype):
    norm = make_group_norm(C, 3, statistics=statistics)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    clip = (3 * clip + 5).to(dtype)
    assert at_rest(norm, clip) is norm
    expected = norm(clip.float())
    with torch.no_grad():
        rest = at_rest(norm, clip)
        parts = torch.cat([rest(row) for row in clip.split(1, dim=HEIGHT)], dim=HEIGHT)
        assert rest(clip).is_contiguous(memory_format=torch.channels_last_3d)
    assert parts.dtype == dtype
    assert torch.allclose(parts.float(), expected, atol=1e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("size", [(9, 15), (33, 32), (3, 4)], ids=str)
def test_frames_are_normalised_alike_with_and_without_gradients(size):
    norm = make_group_norm(C, 2)
    clip = torch.randn(B, C, T, *size).contiguous(memory_format=torch.channels_last_3d) + 2
    with torch.no_grad():
        found = norm(clip)
    assert torch.allclose(found, norm(clip), atol=1e-5)


@pytest.mark.parametrize("frames", [1, T])
@torch.no_grad()
def test_channels_stay_last_where_layers_of_frames_follow_each_other(clip, frames):
    clip = clip[:, :, :frames].contiguous(memory_format=torch.channels_last_3d)
    for b in (1, B):
        x = clip[:b]
        for layer in (make_group_norm(C, 3), FrameConv(C, 4), FrameConv(4, C, 1)):
            x = layer(x)
            # The library goes by strides; of a single frame, by those that mean nothing, too.
            found = F.conv2d(fold_frames(x), torch.ones(2, x.shape[1], 3, 3))
            assert found.stride()[1] == 1, layer


@pytest.mark.parametrize("frames", [1, T])
def test_pictures_become_the_clips_that_they_were(clip, frames):
    clip = clip[:, :, :frames]
    again = unfold_frames(fold_frames(clip), B)
    assert torch.equal(again, clip)
    assert again.stride()[:2] == clip.stride()[:2]
    assert again.stride()[3:] == clip.stride()[3:]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_convolutions_over_time_are_products(clip, is_causal, kernel_size, frames):
    conv, clip = TemporalConv(C, 4, kernel_size, is_causal), clip[:, :, :frames]
    with torch.no_grad():
        found = conv(clip)
    assert torch.allclose(found, conv(clip), atol=1e-5)


@pytest.mark.parametrize("has_stream", [False, True])
def test_a_normalised_convolution_over_time_is_the_same_in_pieces(clip, has_stream):
    norm, conv = make_group_norm(C, 2, statistics="frame"), TemporalConv(C, C, 3, is_causal=True)

    def run():
        stream = Stream() if has_stream else None
        return normed_conv(norm, conv, clip, stream, lambda h, x: h + 2 * x, clip.clone())

    with torch.no_grad():
        found = run()
    assert torch.allclose(found, run(), atol=1e-5)


def test_a_convolution_of_single_pixels_is_a_matrix(clip):
    conv = FrameConv(C, 4, 1)
    expected = nn.functional.conv2d(fold_frames(clip), conv.weight, conv.bias)
    found = conv(clip)
    assert torch.allclose(fold_frames(found), expected, atol=1e-6)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("samples", [1, B])
@pytest.mark.parametrize("frames", [1, T])
def test_folded_frames_keep_channels_last(clip, samples, frames):
    part = clip[:samples, :, :frames]
    folded = fold_frames(part)
    assert torch.equal(folded, torch.cat([sample.transpose(0, 1) for sample in part]))
    if samples == 1:
        result = nn.functional.conv2d(folded, torch.ones(3, C, 3, 3))
        assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("conv", [FrameConv(C, 9), CausalConv3d(C, 9, (3, 3, 3))], ids=["2D", "3D"])
@torch.no_grad()
def test_an_arranged_kernel_changes_no_bit(clip, conv):
    expected, kernel = conv(clip), conv.weight.detach().clone()
    order = conv.memory_order
    back = [order.index(axis) for axis in range(kernel.ndim)]
    conv.weight.data = kernel.permute(order).contiguous().permute(back)
    assert conv.weight.stride() != kernel.stride()
    assert torch.equal(conv.weight, kernel)
    assert torch.equal(conv(clip), expected)
