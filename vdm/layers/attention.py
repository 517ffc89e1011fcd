"""Attention between tokens: projections, QK norm and positions around :func:`attend`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.attention_backends import Backend, Mask, attend
from vdm.layers.norms import NormKind, make_norm
from vdm.layers.pieces import may_overwrite
from vdm.layers.positions import RotaryTable, apply_rope

Tokens = Float[Tensor, "b n d"]
SplitTokens = Float[Tensor, "b n heads head_dim"]
MIN_COPIED = 512
"""Tokens from which they are copied heads first on a CPU: at most a twentieth of the kernel's time,
which is then a tenth shorter."""


@dataclass(frozen=True)
class QKNorm:
    """Normalisation of queries and keys before positions are applied.

    Args:
        kind: Layer or RMS normalisation. On a CPU, torch has a fused kernel for the first
            only.
        scope: Over each head, or over all heads at once.
        eps: Added to the variance or mean square.

    Source:
        Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion Parameters",
        arXiv:2302.05442, sec. 2.
    """

    kind: NormKind = "layer"
    scope: Literal["head", "full"] = "head"
    eps: float = 1e-6


@dataclass(frozen=True)
class KVCache:
    """Keys and values of earlier tokens, already normalised and rotated.

    Args:
        keys: Keys of the tokens that are kept, oldest first.
        values: Their values.
    """

    keys: Float[Tensor, "b heads n head_dim"]
    values: Float[Tensor, "b heads n head_dim"]

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors held."""
        return sum(x.numel() * x.element_size() for x in (self.keys, self.values))


def compact(x: Float[Tensor, "b heads n head_dim"]) -> Float[Tensor, "b heads n head_dim"]:
    """The tokens of a head side by side in memory, where it pays to copy them."""
    pays = may_overwrite() and x.device.type == "cpu" and x.shape[2] >= MIN_COPIED
    return x.contiguous() if pays else x


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves or to a context.

    Args:
        dim: Width of the tokens.
        num_heads: Number of heads.
        context_dim: Width of the context, for cross-attention; that of the tokens if not given.
        head_dim: Width of a head; ``dim / num_heads`` if not given.
        qkv_bias: Whether the maps to queries, keys and values have offsets.
        out_bias: Whether the output map has one.
        qk_norm: How queries and keys are normalised; None leaves them as they are.
        backend: Kernel, see :func:`attend`.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        context_dim: int | None = None,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        out_bias: bool = True,
        qk_norm: QKNorm | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        if head_dim is None and dim % num_heads:
            nearest = max(n for n in range(1, num_heads + 1) if dim % n == 0)
            raise ValueError(
                f"got num_heads={num_heads}, expected a divisor of {dim}, e.g. {nearest}"
            )
        self.num_heads = num_heads
        self.head_dim = head_dim or dim // num_heads
        inner, context_dim = self.num_heads * self.head_dim, context_dim or dim
        self.to_q = nn.Linear(dim, inner, bias=qkv_bias)
        self.to_k = nn.Linear(context_dim, inner, bias=qkv_bias)
        self.to_v = nn.Linear(context_dim, inner, bias=qkv_bias)
        self.to_out = nn.Linear(inner, dim, bias=out_bias)
        self.qk_norm, self.backend = qk_norm, backend
        self.norm_q: nn.Module = nn.Identity()
        self.norm_k: nn.Module = nn.Identity()
        if qk_norm is not None:
            width = self.head_dim if qk_norm.scope == "head" else inner
            self.norm_q = make_norm(qk_norm.kind, width, qk_norm.eps)
            self.norm_k = make_norm(qk_norm.kind, width, qk_norm.eps)

    def _split(self, flat: Tensor, norm: nn.Module) -> SplitTokens:
        dtype = flat.dtype  # autocast norms answer in float32, which no fast kernel takes
        if self.qk_norm is not None and self.qk_norm.scope == "full":
            flat = norm(flat).to(dtype)
        heads = rearrange(flat, "b n (heads d) -> b n heads d", heads=self.num_heads)
        if self.qk_norm is not None and self.qk_norm.scope == "head":
            heads = norm(heads).to(dtype)
        return heads

    def queries(
        self, x: Tokens, rope: RotaryTable | None = None, rope_start: int = 0
    ) -> Float[Tensor, "b heads n head_dim"]:
        """Queries of the tokens, normalised and rotated."""
        q = self._split(self.to_q(x), self.norm_q)
        q = q if rope is None else apply_rope(q, rope, rope_start)
        return rearrange(q, "b n heads d -> b heads n d")

    def keys_values(
        self, context: Tokens, rope: RotaryTable | None = None, rope_start: int = 0
    ) -> KVCache:
        """Keys of the context, normalised and rotated, and its values."""
        k = self._split(self.to_k(context), self.norm_k)
        k = k if rope is None else apply_rope(k, rope, rope_start)
        k = compact(rearrange(k, "b n heads d -> b heads n d"))  # lets the other one go
        v = rearrange(self.to_v(context), "b n (heads d) -> b heads n d", heads=self.num_heads)
        return KVCache(k, compact(v))

    def attend(
        self, q: Float[Tensor, "b heads n head_dim"], kv: KVCache, mask: Mask | None = None
    ) -> Float[Tensor, "b heads n head_dim"]:
        """What queries find in keys and values, the last of which are their own tokens'."""
        return attend(q, kv.keys, kv.values, mask, self.backend)

    def output(self, values: Float[Tensor, "b heads n head_dim"]) -> Tokens:
        """Join the heads and map them to the width of the tokens."""
        return self.to_out(rearrange(values, "b heads n d -> b n (heads d)"))

    def forward(
        self,
        x: Tokens,
        context: Float[Tensor, "b m c"] | None = None,
        mask: Mask | None = None,
        rope: RotaryTable | None = None,
        rope_start: int = 0,
    ) -> Tokens:
        """Attend to the context, or to the tokens themselves.

        Args:
            x: Tokens that ask.
            context: Tokens that are asked.
            mask: See :func:`attend`.
            rope: Positions of the tokens, for self-attention.
            rope_start: First token that has a position, see :func:`apply_rope`.

        Raises:
            ValueError: If positions are given for cross-attention, where they would mean nothing.
        """
        if context is not None and rope is not None:
            raise ValueError("got rotary positions for cross-attention, expected none")
        q = self.queries(x, rope, rope_start)
        if context is None:  # few keys are read faster than queries are copied
            q = compact(q)
        source = x if context is None else context
        return self.output(self.attend(q, self.keys_values(source, rope, rope_start), mask))

    def step(
        self,
        x: Tokens,
        cache: KVCache | None,
        mask: Mask | None = None,
        rope: RotaryTable | None = None,
    ) -> tuple[Tokens, KVCache]:
        """Self-attention of new tokens to cached ones and to themselves.

        Args:
            x: New tokens.
            cache: Earlier tokens; None if there are none.
            mask: See :func:`attend`; columns are the cached tokens, then the new ones.
            rope: Positions of the new tokens.

        Returns:
            The new tokens' output, and the keys and values of all tokens.
        """
        q, kv = self.queries(x, rope), self.keys_values(x, rope)
        if cache is not None:
            keys = torch.cat((cache.keys, kv.keys), dim=2)
            kv = KVCache(keys, torch.cat((cache.values, kv.values), dim=2))
        return self.output(self.attend(q, kv, mask)), kv


class DecoupledAttention(Attention):
    """Cross-attention to words and, with keys and values of its own, to tokens of a picture.

    The queries are the same, and what they find in both is added.

    Args:
        dim: Width of the tokens.
        num_heads: Number of heads.
        context_dim: Width of the words' states, and of the picture's tokens.
        head_dim: Width of a head; ``dim / num_heads`` if not given.
        qkv_bias: Whether the maps to queries, keys and values have offsets.
        qk_norm: How queries and keys are normalised, the picture's keys on their own; None leaves
            them as they are.
        backend: Kernel, see :func:`attend`.

    Source:
        Ye et al. 2023, "IP-Adapter", arXiv:2308.06721, sec. 3.2: decoupled cross-attention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        context_dim: int,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        qk_norm: QKNorm | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(
            dim,
            num_heads,
            context_dim=context_dim,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            backend=backend,
        )
        inner = self.num_heads * self.head_dim
        self.to_k_image = nn.Linear(context_dim, inner, bias=qkv_bias)
        self.to_v_image = nn.Linear(context_dim, inner, bias=qkv_bias)
        self.norm_k_image = copy.deepcopy(self.norm_k)

    def forward(  # type: ignore[override]
        self,
        x: Tokens,
        context: Float[Tensor, "b m c"],
        mask: Mask | None = None,
        image: Float[Tensor, "b k c"] | None = None,
    ) -> Tokens:
        """Attend to the words, and to the picture.

        Args:
            x: Tokens that ask.
            context: States of the words.
            mask: See :func:`attend`; of the words.
            image: Tokens of the picture.

        Raises:
            ValueError: If there is no picture.
        """
        if image is None:
            raise ValueError("got no tokens of a picture, expected some")
        q = self.queries(x)
        found = self.attend(q, self.keys_values(context), mask)
        return self.output(found + self.attend(q, self.keys_values_of_image(image)))

    def keys_values_of_image(self, image: Float[Tensor, "b k c"]) -> KVCache:
        """Keys of a picture's tokens, normalised, and their values."""
        k = self._split(self.to_k_image(image), self.norm_k_image)
        v = rearrange(self.to_v_image(image), "b n (heads d) -> b heads n d", heads=self.num_heads)
        return KVCache(rearrange(k, "b n heads d -> b heads n d"), v)
