"""Blocks over video and text, first with weights of their own, then with the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vdm.layers.attention import Attention, KVCache
from vdm.layers.embeddings import NoiseLevelEmbedding
from vdm.layers.feedforward import make_feedforward
from vdm.layers.fused import linear_gelu
from vdm.layers.norms import AdaLNLinear, LayerNorm, modulate
from vdm.layers.positions import RotaryTable
from vdm.models.joint_blocks import JointOptions, Text, Video

Levels = Float[Tensor, "b levels c"]
Mask = Bool[Tensor, "b 1 1 keys"]


def _vectors(modulation: AdaLNLinear, levels: Levels) -> list[Float[Tensor, "b levels d"]]:
    """What a modulation makes of every level."""
    return [vector.flatten(1, 3) for vector in modulation(levels)]


def _modulated(x: Video, shift: Tensor, scale: Tensor, num_first: int) -> Video:
    """Tokens modulated; with two levels, the first tokens by the first of them."""
    if shift.shape[1] == 1:
        return modulate(x, shift, scale)
    first = modulate(x[:, :num_first], shift[:, :1], scale[:, :1])
    rest = modulate(x[:, num_first:], shift[:, 1:], scale[:, 1:])
    return torch.cat((first, rest), dim=1)


def _added(x: Video, gate: Tensor, branch: Video, num_first: int) -> Video:
    """Tokens, and a branch through its gate; with two levels, likewise."""
    if gate.shape[1] == 1:
        return torch.addcmul(x, gate, branch)
    first = torch.addcmul(x[:, :num_first], gate[:, :1], branch[:, :num_first])
    rest = torch.addcmul(x[:, num_first:], gate[:, 1:], branch[:, num_first:])
    return torch.cat((first, rest), dim=1)


def _attention(dim: int, num_heads: int, options: JointOptions) -> Attention:
    return Attention(
        dim,
        num_heads,
        qkv_bias=options.qkv_bias,
        qk_norm=options.qk_norm,
        backend=options.backend,
    )


class Stream(nn.Module):
    """One of two streams: its normalisations, modulation, projections and feed-forward network.

    Args:
        dim: Width of the tokens.
        num_heads: Number of attention heads.
        options: What is inside.
    """

    def __init__(self, dim: int, num_heads: int, options: JointOptions) -> None:
        super().__init__()
        self.modulation = AdaLNLinear(dim, 6)
        self.norm1 = LayerNorm(dim, options.norm_eps, affine=False)
        self.attention = _attention(dim, num_heads, options)
        self.norm2 = LayerNorm(dim, options.norm_eps, affine=False)
        self.feedforward = make_feedforward(options.feedforward, dim, options.mlp_ratio)

    def ask(
        self, x: Video, vectors: Sequence[Tensor], table: RotaryTable | None, num_first: int
    ) -> tuple[Float[Tensor, "b heads n head_dim"], KVCache]:
        """Queries, and keys with values, of the normalised and modulated tokens."""
        x = _modulated(self.norm1(x), vectors[0], vectors[1], num_first)
        return self.attention.queries(x, table), self.attention.keys_values(x, table)

    def finish(
        self,
        x: Video,
        found: Float[Tensor, "b heads n head_dim"],
        vectors: Sequence[Tensor],
        num_first: int,
    ) -> Video:
        """Tokens with what they found, and with what the feed-forward network makes of that."""
        _, _, gate, shift, scale, gate_out = vectors
        x = _added(x, gate, self.attention.output(found), num_first)
        inner = self.feedforward(_modulated(self.norm2(x), shift, scale, num_first))
        return _added(x, gate_out, inner, num_first)


class DoubleBlock(nn.Module):
    """Video and text attend as one sequence; all else they do with weights of their own.

    Args:
        dim: Width of the tokens.
        num_heads: Number of attention heads.
        options: What is inside.

    Source:
        Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image
        Synthesis", arXiv:2403.03206, fig. 2b; Kong et al. 2024, "HunyuanVideo", arXiv:2412.03603,
        section 4.2: "dual-stream".
    """

    def __init__(self, dim: int, num_heads: int, options: JointOptions) -> None:
        super().__init__()
        self.video = Stream(dim, num_heads, options)
        self.text = Stream(dim, num_heads, options)

    def forward(
        self,
        video: Video,
        text: Text,
        levels: Levels,
        table: RotaryTable | None,
        mask: Mask | None,
        num_first: int = 0,
    ) -> tuple[Video, Text]:
        """Transform both.

        Args:
            video: Tokens of the clip, frame by frame.
            text: Tokens of the text.
            levels: The conditioning vector, or one for the first tokens of the clip and one for all
                others.
            table: Rotary positions ``(m, pairs)`` of the clip; text is not rotated.
            mask: Which of the clip's tokens and, behind them, the text's are attended to.
            num_first: How many tokens take the first of two levels.
        """
        seen = _vectors(self.video.modulation, levels)
        told = _vectors(self.text.modulation, levels[:, -1:])
        queries, keys = self.video.ask(video, seen, table, num_first)
        text_queries, text_keys = self.text.ask(text, told, None, 0)
        both = KVCache(
            torch.cat((keys.keys, text_keys.keys), dim=2),
            torch.cat((keys.values, text_keys.values), dim=2),
        )
        joint = torch.cat((queries, text_queries), dim=2)
        found = self.video.attention.attend(joint, both, mask)
        num_video = video.shape[1]
        return (
            self.video.finish(video, found[:, :, :num_video], seen, num_first),
            self.text.finish(text, found[:, :, num_video:], told, 0),
        )


class SingleBlock(nn.Module):
    """Attention and feed-forward side by side, over video and text as one sequence.

    Args:
        dim: Width of the tokens.
        num_heads: Number of attention heads.
        options: What is inside; the feed-forward network has a tanh-approximated GELU.

    Source:
        Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion Parameters",
        arXiv:2302.05442, eq. 1, as in Black Forest Labs 2024, FLUX.1; Kong et al. 2024,
        "HunyuanVideo", arXiv:2412.03603, section 4.2: "single-stream".
    """

    def __init__(self, dim: int, num_heads: int, options: JointOptions) -> None:
        super().__init__()
        hidden = round(options.mlp_ratio * dim)
        self.modulation = AdaLNLinear(dim, 3)
        self.norm = LayerNorm(dim, options.norm_eps, affine=False)
        self.attention = _attention(dim, num_heads, options)
        self.to_hidden = nn.Linear(dim, hidden)
        # One map closes both branches.
        self.attention.to_out = nn.Linear(dim + hidden, dim)

    def forward(
        self,
        x: Float[Tensor, "b m_and_n d"],
        levels: Levels,
        table: RotaryTable | None,
        mask: Mask | None,
        num_first: int = 0,
    ) -> Float[Tensor, "b m_and_n d"]:
        """Transform the sequence.

        Args:
            x: Tokens of the clip, then those of the text.
            levels: As in :class:`DoubleBlock`.
            table: Rotary positions of the clip.
            mask: Which tokens are attended to.
            num_first: How many tokens take the first of two levels.
        """
        shift, scale, gate = _vectors(self.modulation, levels)
        inner = _modulated(self.norm(x), shift, scale, num_first)
        queries = self.attention.queries(inner, table)
        found = self.attention.attend(queries, self.attention.keys_values(inner, table), mask)
        hidden = linear_gelu(self.to_hidden, inner, "tanh")
        flat = rearrange(found, "b heads n d -> b n (heads d)")
        branch = self.attention.to_out(torch.cat((flat, hidden), dim=-1))
        return _added(x, gate, branch, num_first)


class RefinerBlock(nn.Module):
    """Self-attention and feed-forward over a text, whose gates alone depend on the noise level.

    Args:
        dim: Width of the tokens.
        num_heads: Number of attention heads.
        options: Of the blocks that follow; here queries and keys are not normalised.
    """

    def __init__(self, dim: int, num_heads: int, options: JointOptions) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, options.norm_eps)
        self.attention = Attention(dim, num_heads, backend=options.backend)
        self.norm2 = LayerNorm(dim, options.norm_eps)
        hidden = round(options.mlp_ratio * dim)
        self.feedforward = nn.Sequential(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, dim))
        self.gates = AdaLNLinear(dim, 2)

    def forward(self, text: Text, level: Levels, mask: Mask | None) -> Text:
        """Transform the tokens."""
        gate, gate_out = _vectors(self.gates, level)
        text = torch.addcmul(text, gate, self.attention(self.norm1(text), mask=mask))
        return torch.addcmul(text, gate_out, self.feedforward(self.norm2(text)))


class TokenRefiner(nn.Module):
    """From the states of a language model to tokens that attend both ways.

    Args:
        text_dim: Width of the states.
        dim: Width of the tokens.
        num_heads: Number of attention heads.
        depth: Number of blocks.
        options: Of the blocks that follow.

    Source:
        Kong et al. 2024, "HunyuanVideo", arXiv:2412.03603, section 4.3: "bidirectional token
        refiner".
    """

    def __init__(
        self, text_dim: int, dim: int, num_heads: int, depth: int, options: JointOptions
    ) -> None:
        super().__init__()
        self.time_embed = NoiseLevelEmbedding(dim)
        self.mean_embed = nn.Sequential(nn.Linear(text_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.embed = nn.Linear(text_dim, dim)
        self.blocks = nn.ModuleList(RefinerBlock(dim, num_heads, options) for _ in range(depth))

    def forward(
        self,
        text: Float[Tensor, "b n text_dim"],
        level: Float[Tensor, " b"],
        valid: Float[Tensor, "b n"] | None,
        mask: Mask | None,
    ) -> Text:
        """Tokens of the text.

        Args:
            text: States.
            level: Noise level of every sample.
            valid: 1 where a state is valid; the mean is taken of these.
            mask: The same for attention.
        """
        if valid is None:
            mean = text.mean(dim=1)
        else:
            weights = rearrange(valid.float(), "b n -> b n 1")
            mean = ((text * weights).sum(dim=1) / weights.sum(dim=1)).to(text.dtype)
        told = rearrange(self.time_embed(level) + self.mean_embed(mean), "b d -> b 1 d")
        tokens = self.embed(text)
        for block in self.blocks:
            tokens = block(tokens, told, mask)
        return tokens
