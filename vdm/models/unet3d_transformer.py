"""The transformers of a U-Net: tokens of its activations, which attend in space, time or text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.attention import Attention
from vdm.layers.embeddings import NoiseLevelEmbedding
from vdm.layers.factorization import Factorization, Spatial
from vdm.layers.feedforward import make_feedforward
from vdm.layers.norms import LayerNorm, Statistics, make_group_norm
from vdm.layers.positions import RotaryTable, axial_rope
from vdm.layers.temporal import attend_frames, frame_sincos
from vdm.models.unet3d_blocks import Heads, Place, Signals

Volume = Float[Tensor, "b c t h w"]
VideoTokens = Float[Tensor, "b t h w d"]
FramePositions = Literal["none", "sincos", "rotary"]

TO_TOKENS = "b c t h w -> b t h w c"
TO_VOLUME = "b t h w c -> b c t h w"


class TransformerBlock(nn.Module):
    """Attention after attention, then a feed-forward; each normalised before and added.

    Args:
        place: Where the block sits.
        attends: Who attends to whom, one attention after the other; None for cross-attention.
        dim: Width of the tokens; that of the place if not given.
        heads: Attention heads; those of the place if not given.
        positions: How the self-attentions know the frame: not at all, from sines and cosines that
            are added to the normalised tokens, or from rotary positions.
        has_feedforward_in: Whether there is a feed-forward before the attentions too.
    """

    def __init__(
        self,
        place: Place,
        attends: Sequence[Factorization | None],
        dim: int | None = None,
        heads: Heads | None = None,
        positions: FramePositions = "none",
        has_feedforward_in: bool = False,
    ) -> None:
        super().__init__()
        options, dim = place.options, dim or place.channels
        number, head_dim = (heads or options.heads).of(dim)
        self.attends, self.positions, self.head_dim = tuple(attends), positions, head_dim
        if positions == "rotary" and head_dim % 2:
            raise ValueError(f"got heads of width {head_dim}, expected an even one to rotate")
        eps = options.eps.layer
        feedforward = (options.feedforward, dim, options.mlp_ratio)
        self.has_feedforward_in = has_feedforward_in
        if has_feedforward_in:
            self.norm_in = LayerNorm(dim, eps)
            self.feedforward_in = make_feedforward(*feedforward)
        self.norms = nn.ModuleList(LayerNorm(dim, eps) for _ in attends)
        self.attentions = nn.ModuleList(
            Attention(
                dim,
                number,
                context_dim=place.context_dim if rule is None else None,
                head_dim=head_dim,
                qkv_bias=options.qkv_bias,
                qk_norm=options.qk_norm,
                backend=options.backend,
            )
            for rule in attends
        )
        self.norm_out = LayerNorm(dim, eps)
        self.feedforward = make_feedforward(*feedforward)

    def close(self) -> None:
        """Start as the identity, branch by branch."""
        maps = [attention.to_out for attention in cast("Iterable[Attention]", self.attentions)]
        maps.append(self.feedforward.fc2)
        if self.has_feedforward_in:
            maps.append(self.feedforward_in.fc2)
        for linear in maps:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def _places(self, tokens: Tensor, start: int) -> Tensor | None:
        """What is added to the tokens of every frame."""
        if self.positions != "sincos":
            return None
        places = frame_sincos(tokens.shape[1], tokens.shape[4], start, tokens.device)
        return rearrange(places.to(tokens.dtype), "t d -> t 1 1 d")

    def _table(self, tokens: Tensor, start: int) -> RotaryTable | None:
        """By how much queries and keys of every frame are turned."""
        if self.positions != "rotary":
            return None
        grid = (tokens.shape[1], tokens.shape[2], tokens.shape[3])
        # Convolutions tell places apart already.
        return axial_rope(grid, (self.head_dim, 0, 0), frame_offset=start, device=tokens.device)

    def forward(self, tokens: VideoTokens, signals: Signals) -> VideoTokens:
        """Transform the tokens of a clip."""
        if self.has_feedforward_in:
            tokens = tokens + self.feedforward_in(self.norm_in(tokens))
        places, table = self._places(tokens, signals.start), self._table(tokens, signals.start)
        attentions = cast("Iterable[Attention]", self.attentions)
        for rule, norm, attention in zip(self.attends, self.norms, attentions, strict=True):
            normed = norm(tokens)
            if rule is None:
                flat = rearrange(normed, "b t h w d -> b (t h w) d")
                mixed = attention(flat, signals.context, signals.context_mask).view_as(tokens)
            else:
                normed = normed if places is None else normed + places
                mixed = attend_frames(rule, normed, attention, table, signals.stream)
            tokens = tokens + mixed
        return tokens + self.feedforward(self.norm_out(tokens))


class Transformer(nn.Module):
    """Group normalisation, a linear map, transformer blocks, a linear map that starts at zero.

    Convolutions with a 1x1 kernel in the place of the linear maps are the same thing.

    Args:
        place: Where it sits.
        blocks: The blocks; each takes (tokens, signals).
        statistics: Whether the normalisation sees one frame at a time or all of a clip.
        dim: Width of the tokens; that of the place if not given.

    Source:
        Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models",
        arXiv:2112.10752, appendix E.2.1.
    """

    def __init__(
        self,
        place: Place,
        blocks: Sequence[nn.Module],
        statistics: Statistics = "frame",
        dim: int | None = None,
    ) -> None:
        super().__init__()
        options, channels = place.options, place.channels
        eps = options.eps.transformer
        self.norm = make_group_norm(channels, options.num_groups, eps, statistics)
        self.proj_in = nn.Linear(channels, dim or channels)
        self.blocks = nn.ModuleList(blocks)
        self.proj_out = nn.Linear(dim or channels, channels)

    def close(self) -> None:
        """Start as the identity."""
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Volume, signals: Signals) -> Volume:
        """Transform a clip."""
        tokens = self.proj_in(rearrange(self.norm(x), TO_TOKENS))
        for block in self.blocks:
            tokens = block(tokens, signals)
        return x + rearrange(self.proj_out(tokens), TO_VOLUME)


def spatial_block(place: Place) -> TransformerBlock:
    """Attention within frames, attention to the text if there is one, feed-forward."""
    has_context = place.context_dim is not None
    return TransformerBlock(place, [Spatial(), None] if has_context else [Spatial()])


class FrameIndexEmbedding(nn.Module):
    """A learned vector for the number of each frame, which starts at zero.

    Args:
        dim: Width.

    Source:
        Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, appendix D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = NoiseLevelEmbedding(dim, sinusoid_dim=dim, hidden=4 * dim)

    def close(self) -> None:
        """Start at zero."""
        nn.init.zeros_(self.embed.fc2.weight)
        nn.init.zeros_(self.embed.fc2.bias)

    def forward(self, tokens: VideoTokens, start: int = 0) -> VideoTokens:
        """Add its vector to the tokens of every frame.

        Args:
            tokens: Tokens.
            start: Number of the first frame.
        """
        frames = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        return tokens + rearrange(self.embed(frames.float()), "t d -> t 1 1 d")
