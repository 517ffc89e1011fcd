import inspect

import pytest
import torch
import torch.nn.functional as F

from vdm.layers.norms import (
    AdaLNLinear,
    AdaLNTable,
    LayerNorm,
    PerFrameGroupNorm,
    RMSNorm,
    make_norm,
    modulate,
)

B, C, T, H, W = 2, 6, 5, 3, 4


def test_rms_norm_agrees_with_torch():
    norm = RMSNorm(C, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(B, T, C)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (C,), norm.weight, 1e-5))


def test_rms_norm_normalises_the_axis_that_it_is_told():
    norm = RMSNorm(C, axis=1)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(B, C, T, H, W)
    last = RMSNorm(C)
    last.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x), last(x.movedim(1, -1)).movedim(-1, 1))


def test_a_norm_without_gain_has_no_parameters():
    for norm in (RMSNorm(C, affine=False), make_norm("layer", C, affine=False)):
        assert not list(norm.parameters())
    assert "affine=False" in repr(RMSNorm(C, affine=False))


def test_norms_in_float32_lose_nothing_to_half_precision():
    x = (torch.randn(B, T, C) * 3 + 10).bfloat16()
    for norm in (LayerNorm(C, in_float32=True), RMSNorm(C)):
        out = norm.bfloat16()(x)
        assert out.dtype == torch.bfloat16
        exact = norm.double()(x.double())
        torch.testing.assert_close(out.double(), exact, rtol=1e-2, atol=1e-2)


def test_layer_norm_agrees_with_torch():
    x = torch.randn(B, T, C)
    torch.testing.assert_close(LayerNorm(C, eps=1e-5)(x), F.layer_norm(x, (C,)))


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="got norm 'batch', expected 'layer' or 'rms'"):
        inspect.unwrap(make_norm)("batch", C)


def test_group_norm_sees_one_frame_at_a_time():
    norm = PerFrameGroupNorm(3, C)
    x = torch.randn(B, C, T, H, W)
    alone = torch.cat([norm(x[:, :, k : k + 1]) for k in range(T)], dim=2)
    torch.testing.assert_close(norm(x), alone)
    torch.testing.assert_close(norm(x)[:, :, 2], F.group_norm(x[:, :, 2], 3))


@pytest.mark.parametrize("frames", [1, T])
def test_modulation_is_per_sample_or_per_frame(frames):
    x = torch.randn(B, T, H, W, C)
    shift, scale = torch.randn(2, B, frames, 1, 1, C)
    torch.testing.assert_close(modulate(x, shift, scale), x * (1 + scale) + shift)


@pytest.mark.parametrize("frames", [1, T])
def test_modulation_starts_closed(frames):
    linear, table = AdaLNLinear(C, 3, cond_dim=7), AdaLNTable(C, 3)
    for chunks in (linear(torch.randn(B, frames, 7)), table(torch.zeros(B, frames, 3 * C))):
        assert len(chunks) == 3
        for chunk in chunks:
            assert chunk.shape == (B, frames, 1, 1, C)
            assert not chunk.any()


def test_a_table_leaves_tokens_in_half_precision():
    chunks = AdaLNTable(C, 3)(torch.randn(B, 1, 3 * C).bfloat16())
    assert {chunk.dtype for chunk in chunks} == {torch.bfloat16}


def test_a_table_adds_to_the_shared_projection():
    table = AdaLNTable(C, 2)
    torch.nn.init.normal_(table.table)
    shared = torch.randn(B, T, 2 * C)
    shift, scale = table(shared)
    torch.testing.assert_close(shift[:, :, 0, 0], shared[..., :C] + table.table[0])
    torch.testing.assert_close(scale[:, :, 0, 0], shared[..., C:] + table.table[1])
