"""Blocks in which text and video attend as one sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.attention import Attention, QKNorm
from vdm.layers.attention_backends import Backend
from vdm.layers.feedforward import FeedForwardKind, make_feedforward
from vdm.layers.norms import AdaLNLinear, LayerNorm, modulate
from vdm.layers.pieces import add_gated
from vdm.layers.positions import RotaryTable

Text = Float[Tensor, "b n d"]
Video = Float[Tensor, "b m d"]


@dataclass(frozen=True)
class JointOptions:
    """What is inside blocks of joint attention.

    Args:
        feedforward: Kind of feed-forward network.
        mlp_ratio: Its hidden width, in units of the block's width.
        qk_norm: Normalisation of queries and keys, or None.
        qkv_bias: Whether the maps to queries, keys and values have offsets.
        norm_eps: Added to the variance in normalisations before branches.
        backend: Attention kernel, see :func:`vdm.layers.attention_backends.attend`.
        gradient_checkpointing: In training, compute a block's activations again instead of keeping
            them.
    """

    feedforward: FeedForwardKind = "gelu_tanh"
    mlp_ratio: float = 4.0
    qk_norm: QKNorm | None = field(default_factory=QKNorm)
    qkv_bias: bool = True
    norm_eps: float = 1e-5
    backend: Backend = "auto"
    gradient_checkpointing: bool = False


class JointBlock(nn.Module, ABC):
    """A block over the tokens of a text and those of a clip."""

    @abstractmethod
    def forward(
        self, video: Video, text: Text, level: Float[Tensor, "b 1 c"], table: RotaryTable | None
    ) -> tuple[Video, Text]:
        """Transform both.

        Args:
            video: Tokens of the clip, frame by frame.
            text: Tokens of the text.
            level: Conditioning vector.
            table: Rotary positions ``(m, pairs)`` of the clip; text is not rotated.
        """


class SharedBlock(JointBlock):
    """Text and video through the same weights; only their modulations differ.

    Args:
        dim: Width of the tokens.
        num_heads: Number of attention heads.
        cond_dim: Width of the conditioning vector.
        options: What is inside.

    Source:
        Yang et al. 2024, "CogVideoX", arXiv:2408.06072, section 2.2: "expert adaptive layernorm".
    """

    def __init__(self, dim: int, num_heads: int, cond_dim: int, options: JointOptions) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, options.norm_eps)
        self.modulation1 = AdaLNLinear(dim, 6, cond_dim)
        self.attention = Attention(
            dim,
            num_heads,
            qkv_bias=options.qkv_bias,
            qk_norm=options.qk_norm,
            backend=options.backend,
        )
        self.norm2 = LayerNorm(dim, options.norm_eps)
        self.modulation2 = AdaLNLinear(dim, 6, cond_dim)
        self.feedforward = make_feedforward(options.feedforward, dim, options.mlp_ratio)

    def forward(
        self, video: Video, text: Text, level: Float[Tensor, "b 1 c"], table: RotaryTable | None
    ) -> tuple[Video, Text]:
        """Transform both, the text ahead of the clip in the sequence."""
        num_text = text.shape[1]
        vectors = [vector.flatten(1, 3) for vector in self.modulation1(level)]
        shift, scale, gate, text_shift, text_scale, text_gate = vectors
        streams = (
            modulate(self.norm1(text), text_shift, text_scale),
            modulate(self.norm1(video), shift, scale),
        )
        joint = torch.cat(streams, dim=1)
        mixed = self.attention(joint, rope=table, rope_start=0 if table is None else num_text)
        video = torch.addcmul(video, gate, mixed[:, num_text:])
        text = torch.addcmul(text, text_gate, mixed[:, :num_text])
        vectors = [vector.flatten(1, 3) for vector in self.modulation2(level)]
        return self._feed(video, vectors[:3]), self._feed(text, vectors[3:])

    def _feed(self, tokens: Float[Tensor, "b _ d"], vectors: list[Tensor]) -> Tensor:
        """Tokens after the feed-forward network, which nobody else reads before."""
        shift, scale, gate = vectors
        branch = lambda x: self.feedforward(modulate(self.norm2(x), shift, scale))  # noqa: E731
        return add_gated(tokens, gate, branch)
