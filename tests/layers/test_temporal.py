import pytest
import torch
from torch.nn.functional import conv3d, pad

from vdm.layers.attention import Attention
from vdm.layers.factorization import Spatial, Temporal
from vdm.layers.temporal import (
    Additive,
    Fixed,
    Learned,
    Stream,
    TemporalConv,
    attend_frames,
    frame_sincos,
)

B, C, T, H, W, OUT = 2, 3, 5, 4, 6, 7


@pytest.fixture
def x():
    return torch.randn(B, C, T, H, W)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_it_is_the_3d_convolution(x, size):
    conv = TemporalConv(C, OUT, size)
    expected = conv3d(x, conv.weight, conv.bias, padding=(size // 2, 0, 0))
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("size", [3, 5])
def test_before_a_causal_clip_time_stands_still(x, size):
    conv = TemporalConv(C, OUT, size, is_causal=True)
    before = pad(x, (0, 0, 0, 0, size - 1, 0), mode="replicate")
    torch.testing.assert_close(conv(x), conv3d(before, conv.weight, conv.bias))


@pytest.mark.parametrize("is_causal", [False, True])
def test_channels_last_video_stays_so(x, is_causal):
    last = x.contiguous(memory_format=torch.channels_last_3d)
    out = TemporalConv(C, OUT, 3, is_causal)(last)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_causal_convolution_sees_no_later_frame():
    conv = TemporalConv(C, OUT, 3, is_causal=True)
    x = torch.randn(B, C, T, H, W, requires_grad=True)
    for k, frame in enumerate(conv(x).unbind(2)):
        (grad,) = torch.autograd.grad(frame.sum(), x, retain_graph=True)
        assert not grad[:, :, k + 1 :].any()
        assert grad[:, :, k].any()


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="got kernel_size=2, expected an odd number"):
        TemporalConv(C, OUT, 2)


@pytest.mark.parametrize("chunks", [(1,) * T, (2, 3), (4, 1), (T,)], ids=str)
def test_chunk_by_chunk_equals_the_whole(x, chunks):
    conv = TemporalConv(C, OUT, 5, is_causal=True)
    rule, attention = Temporal(is_causal=True, window=3), Attention(C, 1)
    tokens, stream, start = x.movedim(1, -1), Stream(), 0
    frames, seen = [], []
    for size in chunks:
        part = slice(start, start + size)
        frames.append(conv(x[:, :, part], stream))
        seen.append(attend_frames(rule, tokens[:, part], attention, stream=stream))
        start += size
    torch.testing.assert_close(torch.cat(frames, 2), conv(x), rtol=0, atol=1e-6)
    whole = attend_frames(rule, tokens, attention)
    torch.testing.assert_close(torch.cat(seen, 1), whole, rtol=0, atol=1e-6)


def test_a_copy_of_a_stream_goes_on_by_itself(x):
    conv, stream = TemporalConv(C, OUT, 3, is_causal=True), Stream()
    conv(x[:, :, :2], stream)
    copy = stream.copy()
    first = conv(x[:, :, 2:], copy)
    assert torch.equal(conv(x[:, :, 2:], stream.copy()), first)
    assert not torch.equal(conv(x[:, :, 2:], copy), first)
    assert stream.num_bytes == 4 * B * C * 2 * H * W


def test_frames_that_do_not_see_each_other_leave_no_memory(x):
    stream = Stream()
    attend_frames(Spatial(), x.movedim(1, -1), Attention(C, 1), stream=stream)
    assert stream.num_bytes == 0


def test_positions_go_on_where_a_stream_is():
    whole = frame_sincos(T, 6)
    assert torch.equal(whole[2:], frame_sincos(T - 2, 6, start=2))
    assert torch.equal(whole[0], torch.tensor([0.0, 1, 0, 1, 0, 1]))
    angle = torch.tensor(3 / 10_000 ** (1 / 3))
    torch.testing.assert_close(whole[3, 2:4], torch.stack((angle.sin(), angle.cos())))


def test_blends(x):
    after = torch.randn_like(x)
    assert torch.equal(Additive().make()(x, after), after)
    torch.testing.assert_close(Fixed(0.25).make()(x, after), 0.25 * x + 0.75 * after)
    share = torch.tensor(0.3).sigmoid()
    torch.testing.assert_close(Learned(0.3).make()(x, after), share * x + (1 - share) * after)
    switched = Learned(0.3, switched=True).make()
    torch.testing.assert_close(switched(x, after), (1 - share) * x + share * after)
    switched(x, after).sum().backward()
    assert switched.mix_factor.grad.any()


def test_a_share_is_a_share():
    with pytest.raises(ValueError, match=r"got before=1\.5, expected a share in"):
        Fixed(1.5)
