"""A transformer block that attends twice: within the frames, then over time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.layers.attention import Attention
from vdm.layers.factorization import SpatialThenTemporal, Temporal
from vdm.layers.norms import modulate
from vdm.layers.position_rules import SpaceAndTime
from vdm.layers.positions import RotaryTable
from vdm.models.dit_blocks import BlockOptions, DiTBlock, VideoTokens


class TwoWayBlock(DiTBlock):
    """Attention within frames, attention over time, cross-attention to text, feed-forward.

    What attends over time is neither normalised nor modulated, and comes in through the gate of the
    attention before it.

    Args:
        dim: Width of the tokens.
        num_heads: Number of attention heads.
        factorization: Which tokens attend together.
        text_dim: Width of text tokens; None for a block without cross-attention.
        options: What is inside.
        is_first: Whether it is the first block, the one that tells frames apart: their positions
            are added to what attends over time, and to nothing else.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404, section 3, the released model of version
        1.0.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        factorization: SpatialThenTemporal,
        text_dim: int | None,
        options: BlockOptions,
        is_first: bool = False,
    ) -> None:
        super().__init__(dim, num_heads, factorization, text_dim, options)
        self.in_time = Temporal()
        self.attention_in_time = Attention(
            dim,
            num_heads,
            qkv_bias=options.qkv_bias,
            qk_norm=options.qk_norm,
            backend=options.backend,
        )
        rule = options.positions
        self.places = rule if is_first and isinstance(rule, SpaceAndTime) else None

    def attend(
        self, x: VideoTokens, level: Float[Tensor, "b frames c"], table: RotaryTable | None
    ) -> tuple[VideoTokens, list[Tensor]]:
        """Both ways of self-attention, and the modulation that is left for what follows."""
        shift, scale, gate, *rest = self.modulation(level)
        mixed = self.factorization(modulate(self.norm1(x), shift, scale), self.attention)
        moved = x = torch.addcmul(x, gate, mixed)
        if self.places is not None:
            grid = (x.shape[1], x.shape[2], x.shape[3])
            moved = x + self.places.within(grid, x.shape[-1], x.device).to(x.dtype)
        return torch.addcmul(x, gate, self.in_time(moved, self.attention_in_time)), rest
