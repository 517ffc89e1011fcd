"""Self-attention whose keys and values depend on how far apart two tokens are."""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn

from vdm.layers.attention import Attention, KVCache, QKNorm
from vdm.layers.attention_backends import Mask

Heads = Float[Tensor, "b heads n head_dim"]


class RelativeTable(nn.Module):
    """A learned vector for every distance of two tokens, shared by the heads.

    Args:
        head_dim: Width of a head.
        max_distance: Tokens that are further apart count as so far apart.
    """

    def __init__(self, head_dim: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.empty(2 * max_distance + 1, head_dim))
        nn.init.xavier_uniform_(self.table)

    def forward(self, ahead: Int[Tensor, "n m"]) -> Float[Tensor, "n m head_dim"]:
        """The vectors of distances, positive where the key comes after the query."""
        return self.table[ahead.clamp(-self.max_distance, self.max_distance) + self.max_distance]


class RelativeAttention(Attention):
    """Multi-head self-attention with relative positions in keys and in values.

    No kernel knows positions in values, so it is computed plainly whatever the back end.

    Args:
        dim: Width of the tokens.
        num_heads: Number of heads.
        max_distance: See :class:`RelativeTable`.
        head_dim: Width of a head; ``dim / num_heads`` if not given.
        qkv_bias: Whether the maps to queries, keys and values have offsets.
        qk_norm: How queries and keys are normalised; None leaves them as they are.

    Source:
        Shaw et al. 2018, "Self-Attention with Relative Position Representations",
        arXiv:1803.02155, eq. 3-4.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        max_distance: int = 16,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        qk_norm: QKNorm | None = None,
    ) -> None:
        super().__init__(
            dim, num_heads, head_dim=head_dim, qkv_bias=qkv_bias, qk_norm=qk_norm, backend="plain"
        )
        self.relative_k = RelativeTable(self.head_dim, max_distance)
        self.relative_v = RelativeTable(self.head_dim, max_distance)

    def attend(self, q: Heads, kv: KVCache, mask: Mask | None = None) -> Heads:
        """What queries find in keys and values, the last of which are their own tokens'.

        Raises:
            ValueError: If there are fewer keys than queries: some have no token of their own.
        """
        n, m = q.shape[2], kv.keys.shape[2]
        if m < n:
            raise ValueError(f"got {m} keys for {n} queries, expected those of the same tokens")
        places = torch.arange(m, device=q.device)
        ahead = places[None, :] - places[m - n :, None]
        q = q * self.head_dim**-0.5
        scores = einsum(q, kv.keys, "b heads n d, b heads m d -> b heads n m")
        scores = scores + einsum(q, self.relative_k(ahead), "b heads n d, n m d -> b heads n m")
        if mask is not None:
            is_bool = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, -torch.inf) if is_bool else scores + mask
        weights = scores.softmax(-1)
        found = einsum(weights, kv.values, "b heads n m, b heads m d -> b heads n d")
        return found + einsum(weights, self.relative_v(ahead), "b heads n m, n m d -> b heads n d")
