import inspect
import sys
from types import SimpleNamespace

import pytest
import torch

from vdm.layers.attention_backends import MAX_SEQUENCES, _flash, _flash_obstacle, _sdpa, attend

B, HEADS, N, M, D = 2, 3, 5, 7, 4


def softmax_attention(q, k, v, bias):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias
    return scores.softmax(-1) @ v


@pytest.fixture
def qkv():
    return torch.randn(B, HEADS, N, D), torch.randn(B, HEADS, M, D), torch.randn(B, HEADS, M, D)


@pytest.mark.parametrize("backend", ["auto", "plain", "sdpa"])
@pytest.mark.parametrize("kind", ["none", "bool", "float"])
@pytest.mark.parametrize("shape", [(N, M), (B, 1, 1, M), (B, HEADS, N, M)])
def test_back_ends_agree_with_plain_softmax(qkv, backend, kind, shape):
    mask, bias = None, torch.zeros(())
    if kind == "bool":
        mask = torch.rand(shape) > 0.4
        mask[..., 0] = True
        bias = torch.zeros(shape).masked_fill(~mask, -torch.inf)
    elif kind == "float":
        mask = bias = torch.randn(shape)
    out = attend(*qkv, mask=mask, backend=backend)
    torch.testing.assert_close(out, softmax_attention(*qkv, bias), rtol=0, atol=2e-6)


@pytest.mark.parametrize("backend", ["plain", "sdpa"])
def test_a_query_that_sees_nothing_gives_zeros(qkv, backend):
    mask = torch.ones(B, 1, N, M, dtype=torch.bool)
    mask[1, :, 2] = False
    for given in (mask, torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)):
        out = attend(*qkv, mask=given, backend=backend)
        assert not out[1, :, 2].any()
        assert out.isfinite().all()


@pytest.mark.parametrize("backend", ["plain", "sdpa"])
def test_a_query_that_sees_nothing_has_a_zero_gradient(qkv, backend):
    mask = torch.ones(B, 1, N, M, dtype=torch.bool)
    mask[1, :, 2] = False
    q, k, v = (x.clone().requires_grad_() for x in qkv)
    attend(q, k, v, mask=mask, backend=backend).square().sum().backward()
    assert not q.grad[1, :, 2].any()
    assert all(x.grad.isfinite().all() and x.grad.any() for x in (q, k, v))


def test_training_in_half_precision_on_a_cpu_goes_without_the_slow_kernel(monkeypatch, qkv):
    def no_sdpa(*arguments):
        raise AssertionError("SDPA was called")

    monkeypatch.setattr("vdm.layers.attention_backends._sdpa", no_sdpa)
    q, k, v = (x.clone().requires_grad_() for x in qkv)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attend(q, k, v)
        with torch.no_grad(), pytest.raises(AssertionError, match="SDPA"):
            attend(q, k, v)
    attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    monkeypatch.setattr("vdm.layers.attention_backends.MAX_PLAIN_QUERIES", N - 1)
    for inputs in ((q, k, v), (q.bfloat16(), k.bfloat16(), v.bfloat16())):
        with pytest.raises(AssertionError, match="SDPA"):
            attend(*inputs)


def test_gradients_agree(qkv):
    mask = torch.rand(N, M) > 0.3
    grads = []
    for backend in ("plain", "sdpa"):
        inputs = [x.clone().requires_grad_() for x in qkv]
        grads.append(
            torch.autograd.grad(attend(*inputs, mask=mask, backend=backend).square().sum(), inputs)
        )
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["auto", "plain", "sdpa"])
@pytest.mark.parametrize("trains", [False, True])
def test_a_float_mask_may_be_wider_than_the_tensors(qkv, backend, trains):
    half = [x.bfloat16().requires_grad_(trains) for x in qkv]
    mask = torch.randn(N, M)
    out = attend(*half, mask=mask, backend=backend)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), softmax_attention(*qkv, mask), rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
@pytest.mark.parametrize("under_autocast", [True, False])
def test_training_in_half_precision_is_nearly_attention_in_float32(qkv, kind, under_autocast):
    masks = {"none": None, "bool": torch.rand(N, M) > 0.3, "float": torch.randn(N, M)}
    mask = bias = masks[kind]
    if kind == "bool":
        mask[:, 0] = True
        bias = torch.zeros(N, M).masked_fill(~mask, -torch.inf)
    exact = [x.clone().requires_grad_() for x in qkv]
    expected = softmax_attention(*exact, torch.zeros(()) if bias is None else bias)
    given = [(x if under_autocast else x.bfloat16()).detach().requires_grad_() for x in qkv]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=under_autocast):
        got = attend(*given, mask=mask)
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.03)
    weights = torch.randn(expected.shape)
    expected_grads = torch.autograd.grad((expected * weights).sum(), exact)
    for got_grad, grad in zip(
        torch.autograd.grad((got.float() * weights).sum(), given), expected_grads, strict=True
    ):
        assert (got_grad.float() - grad).norm() < 0.02 * grad.norm()


def test_more_sequences_than_a_launch_grid_holds_are_taken_in_parts(monkeypatch, qkv):
    monkeypatch.setattr("vdm.layers.attention_backends._is_cuda", lambda tensor: True)
    monkeypatch.setattr("vdm.layers.attention_backends.MAX_SEQUENCES", 1)
    for mask in (None, torch.rand(N, M) > 0.2, torch.rand(1, 1, N, M) > 0.2):
        parts = _sdpa(*qkv, mask)
        torch.testing.assert_close(parts, attend(*qkv, mask=mask, backend="plain"))
    mask = torch.rand(B, 1, 1, M) > 0.2
    torch.testing.assert_close(_sdpa(*qkv, mask), attend(*qkv, mask=mask, backend="plain"))
    assert MAX_SEQUENCES == 65535


def test_flash_attention_says_what_it_lacks(qkv):
    with pytest.raises(ValueError, match="flash attention needs a CUDA device, got cpu"):
        attend(*qkv, backend="flash")


def test_an_unknown_back_end_is_refused(qkv):
    with pytest.raises(ValueError, match="got backend 'fast', expected one of auto, plain"):
        inspect.unwrap(attend)(*qkv, backend="fast")


def test_flash_attention_is_handed_tokens_before_heads(monkeypatch, qkv):
    def flash_attn_func(q, k, v):
        return softmax_attention(*(x.transpose(1, 2) for x in (q, k, v)), 0).transpose(1, 2)

    fake = SimpleNamespace(flash_attn_func=flash_attn_func)
    monkeypatch.setitem(sys.modules, "flash_attn", fake)
    torch.testing.assert_close(_flash(*qkv), attend(*qkv, backend="plain"))


@pytest.mark.parametrize(
    ("q", "mask", "lack"),
    [
        (torch.empty(1, 1, 2, 8), None, "float16 or bfloat16, got torch.float32"),
        (torch.empty(1, 1, 2, 8).half(), torch.ones(2, 2), "no mask"),
        (torch.empty(1, 1, 2, 264).half(), None, "a head dimension of at most 256, got 264"),
        (torch.empty(1, 1, 2, 8).half(), None, "the flash-attn package"),
    ],
)
def test_flash_attention_is_taken_only_where_it_applies(monkeypatch, q, mask, lack):
    monkeypatch.setattr("vdm.layers.attention_backends._is_cuda", lambda tensor: True)
    monkeypatch.setattr("vdm.layers.attention_backends.has_flash", lambda: "package" not in lack)
    assert _flash_obstacle(q, mask) == lack
    if "package" in lack:
        monkeypatch.setattr("vdm.layers.attention_backends.has_flash", lambda: True)
        assert _flash_obstacle(q, mask) is None


@pytest.mark.gpu
def test_auto_agrees_with_plain_on_a_gpu(qkv):
    half = [x.half().cuda() for x in qkv]
    expected = attend(*qkv, backend="plain")
    torch.testing.assert_close(attend(*half).float().cpu(), expected, rtol=0, atol=5e-3)
