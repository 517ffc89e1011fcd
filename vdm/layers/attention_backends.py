"""Which kernel computes attention: the only file that calls one."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

Backend = Literal["auto", "plain", "sdpa", "flash"]
Heads = Float[Tensor, "b heads n head_dim"]
Mask = Bool[Tensor, "*mask"] | Float[Tensor, "*mask"]

MAX_SEQUENCES = (
    65535  # CUDA's limit on the y and z axes of a launch grid, where kernels put the batch
)
MAX_PLAIN_QUERIES = 1024  # scores of one head: 4 MB in float32


@cache
def has_flash() -> bool:
    """Whether the flash-attn package is installed."""
    return importlib.util.find_spec("flash_attn") is not None


def attend(
    q: Heads,
    k: Float[Tensor, "b heads m head_dim"],
    v: Float[Tensor, "b heads m value_dim"],
    mask: Mask | None = None,
    backend: Backend = "auto",
) -> Float[Tensor, "b heads n value_dim"]:
    """Softmax attention.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: Broadcastable to ``(b, heads, n, m)``: true where a query may attend to a key, or
            numbers that are added to the scores. A query that may attend to nothing gives zeros.
        backend: ``auto`` takes flash-attn where it applies (CUDA, half precision, no mask), plain
            products for training on a CPU in half precision, and SDPA otherwise.

    Raises:
        ValueError: If the back end is unknown, or flash-attn does not apply.

    Source:
        Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, eq. 1.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"got backend {backend!r}, expected one of {', '.join(get_args(Backend))}")
    obstacle = _flash_obstacle(q, mask) if backend in ("auto", "flash") else None
    if backend == "flash" and obstacle:
        raise ValueError(f"flash attention needs {obstacle}; use backend 'auto' or 'sdpa'")
    if backend == "plain" or (backend == "auto" and _trains_in_half_on_cpu(q)):
        return _plain(q, k, v, mask)
    if backend == "sdpa" or obstacle:
        return _sdpa(q, k, v, mask)
    return _flash(q, k, v)


def _flash_obstacle(q: Tensor, mask: Tensor | None) -> str | None:
    if not _is_cuda(q):
        return f"a CUDA device, got {q.device.type}"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"float16 or bfloat16, got {q.dtype}"
    if mask is not None:
        return "no mask"
    if q.shape[-1] > 256:
        return f"a head dimension of at most 256, got {q.shape[-1]}"
    return None if has_flash() else "the flash-attn package"


def _trains_in_half_on_cpu(q: Tensor) -> bool:
    """Where SDPA's backward pass takes several times as long as plain products.

    Measured by ``tests/benchmark.py``. Short sequences only: plain products keep all scores.
    """
    if q.device.type != "cpu" or not (torch.is_grad_enabled() and q.requires_grad):
        return False
    half = q.dtype == torch.bfloat16 or (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )
    return half and q.shape[-2] <= MAX_PLAIN_QUERIES


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.einsum("bhnd,bhmd->bhnm", q * q.shape[-1] ** -0.5, k)
    if mask is None:
        return torch.einsum("bhnm,bhmd->bhnd", scores.softmax(-1).to(v.dtype), v)
    allowed = mask if mask.dtype == torch.bool else mask > -torch.inf
    scores = scores if mask.dtype == torch.bool else scores + mask
    # Finite, so that a query that may attend to nothing has a gradient: zero.
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1)
    weights = weights.masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    return torch.einsum("bhnm,bhmd->bhnd", weights.to(v.dtype), v)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q.dtype)
    if _is_cuda(q) and len(q) > MAX_SEQUENCES:
        pieces = [slice(i, i + MAX_SEQUENCES) for i in range(0, len(q), MAX_SEQUENCES)]
        per_sample = mask is not None and mask.ndim == 4 and len(mask) > 1
        return torch.cat(
            [_sdpa(q[i], k[i], v[i], mask[i] if per_sample else mask) for i in pieces]  # type: ignore[index]
        )
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _is_cuda(tensor: Tensor) -> bool:
    return tensor.is_cuda


def _flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from flash_attn import flash_attn_func

    q, k, v = (rearrange(x, "b heads n d -> b n heads d") for x in (q, k, v))
    return rearrange(flash_attn_func(q, k, v), "b n heads d -> b heads n d")
