"""The transformers of a U-Net: tokens of its activations, which attend in space, time or text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.attention import Attention, DecoupledAttention
from vdm.layers.embeddings import NoiseLevelEmbedding
from vdm.layers.factorization import Factorization
from vdm.layers.feedforward import make_feedforward
from vdm.layers.norms import LayerNorm, Statistics, make_group_norm
from vdm.layers.pieces import add_branch, add_to_each, may_overwrite, plus
from vdm.layers.positions import RelativeBias, RotaryTable, axial_rope
from vdm.layers.relative_attention import RelativeAttention
from vdm.layers.temporal import attend_frames, frame_sincos
from vdm.models.unet3d_blocks import Heads, Place, Signals

Volume = Float[Tensor, "b c t h w"]
VideoTokens = Float[Tensor, "b t h w d"]
FramePositions = Literal["none", "sincos", "rotary", "relative"]

TO_TOKENS = "b c t h w -> b t h w c"
TO_VOLUME = "b t h w c -> b c t h w"


def _places(positions: FramePositions, tokens: Tensor, start: int) -> Tensor | None:
    """What is added to the tokens of every frame."""
    if positions != "sincos":
        return None
    places = frame_sincos(tokens.shape[1], tokens.shape[4], start, tokens.device)
    return rearrange(places.to(tokens.dtype), "t d -> t 1 1 d")


def _table(
    positions: FramePositions, num_rotated: int, tokens: Tensor, start: int
) -> RotaryTable | None:
    """By how much queries and keys of every frame are turned."""
    if positions != "rotary":
        return None
    grid = (tokens.shape[1], tokens.shape[2], tokens.shape[3])
    # Convolutions tell places apart already.
    return axial_rope(grid, (num_rotated, 0, 0), frame_offset=start, device=tokens.device)


def _blind_axis(
    rule: Factorization, signals: Signals, places: Tensor | None, table: RotaryTable | None
) -> int:
    """Along which axis attention may be computed piece by piece."""
    if signals.stream is not None:  # which remembers all tokens in one
        return 0
    knows_frames = places is not None or table is not None
    return 0 if rule.blind_axis == 1 and knows_frames else rule.blind_axis


def _make_attention(
    place: Place, dim: int, heads: Heads | None = None, positions: FramePositions = "none"
) -> Attention:
    """Attention of tokens to each other as the network's options have it."""
    options = place.options
    number, head_dim = (heads or options.heads).of(dim)
    bias, norm = options.qkv_bias, options.qk_norm
    if positions == "relative":
        return RelativeAttention(dim, number, head_dim=head_dim, qkv_bias=bias, qk_norm=norm)
    return Attention(
        dim, number, head_dim=head_dim, qkv_bias=bias, qk_norm=norm, backend=options.backend
    )


def _make_cross_attention(place: Place, dim: int, heads: Heads | None) -> Attention:
    """Attention to what the network is told in states."""
    options = place.options
    number, head_dim = (heads or options.heads).of(dim)
    kind = DecoupledAttention if options.context == "both" else Attention
    return kind(
        dim,
        number,
        place.context_dim or dim,
        head_dim=head_dim,
        qkv_bias=options.qkv_bias,
        qk_norm=options.qk_norm,
        backend=options.backend,
    )


class AttentionSublayer(nn.Module):
    """One attention over time, normalised before and added: a guest in a block of another.

    Args:
        place: Where it sits.
        rule: Who attends to whom.
        positions: How it knows the frame.
        num_rotated: At most so many channels of a head are turned by rotary positions.
        has_bias: Whether scores depend on the distance of frames by learned numbers, too.
    """

    def __init__(
        self,
        place: Place,
        rule: Factorization,
        positions: FramePositions,
        num_rotated: int,
        has_bias: bool,
    ) -> None:
        super().__init__()
        self.rule, self.positions = rule, positions
        self.norm = LayerNorm(place.channels, place.options.eps.layer)
        self.attention = _make_attention(place, place.channels, positions=positions)
        self.num_rotated = min(num_rotated, self.attention.head_dim)
        self.bias = RelativeBias(self.attention.num_heads) if has_bias else None

    def close(self) -> None:
        """Start as the identity."""
        nn.init.zeros_(self.attention.to_out.weight)
        nn.init.zeros_(self.attention.to_out.bias)

    def forward(self, tokens: VideoTokens, signals: Signals) -> VideoTokens:
        """Couple the frames."""
        places = _places(self.positions, tokens, signals.start)
        table = _table(self.positions, self.num_rotated, tokens, signals.start)

        def mix(tokens: Tensor) -> Tensor:
            normed = self.norm(tokens)
            normed = normed if places is None else plus(normed, places)
            return attend_frames(
                self.rule, normed, self.attention, table, signals.stream, self.bias
            )

        return add_branch(tokens, mix, _blind_axis(self.rule, signals, places, table))


class TransformerBlock(nn.Module):
    """Attention after attention, then a feed-forward; each normalised before and added.

    Without gradients, the tokens that go in are written over.

    Args:
        place: Where the block sits.
        attends: Who attends to whom, one attention after the other; None for cross-attention.
        dim: Width of the tokens; that of the place if not given.
        heads: Attention heads; those of the place if not given.
        positions: How the self-attentions know the frame: not at all, from sines and cosines that
            are added to the normalised tokens, from rotary positions, or from learned vectors for
            distances of frames.
        has_feedforward_in: Whether there is a feed-forward before the attentions too.
        guests: Modules between the attentions and the feed-forward, from (tokens, signals) to
            tokens.
    """

    def __init__(
        self,
        place: Place,
        attends: Sequence[Factorization | None],
        dim: int | None = None,
        heads: Heads | None = None,
        positions: FramePositions = "none",
        has_feedforward_in: bool = False,
        guests: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        options, dim = place.options, dim or place.channels
        _, head_dim = (heads or options.heads).of(dim)
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
            _make_cross_attention(place, dim, heads)
            if rule is None
            else _make_attention(place, dim, heads, positions)
            for rule in attends
        )
        self.guests = nn.ModuleList(guests)
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

    def forward(self, tokens: VideoTokens, signals: Signals) -> VideoTokens:
        """Transform the tokens of a clip."""
        if self.has_feedforward_in:
            tokens = add_to_each(tokens, lambda x: self.feedforward_in(self.norm_in(x)))
        attentions = cast("Iterable[Attention]", self.attentions)
        for rule, norm, attention in zip(self.attends, self.norms, attentions, strict=True):
            if rule is None:
                tokens = _read_context(tokens, norm, attention, signals)
            else:
                tokens = self._attend(tokens, rule, norm, attention, signals)
        for guest in self.guests:
            tokens = guest(tokens, signals)
        return add_to_each(tokens, lambda x: self.feedforward(self.norm_out(x)))

    def _attend(
        self,
        tokens: Tensor,
        rule: Factorization,
        norm: nn.Module,
        attention: Attention,
        signals: Signals,
    ) -> Tensor:
        """Let tokens attend to each other."""
        places = _places(self.positions, tokens, signals.start)
        table = _table(self.positions, self.head_dim, tokens, signals.start)

        def mix(tokens: Tensor) -> Tensor:
            normed = norm(tokens)
            normed = normed if places is None else plus(normed, places)
            return attend_frames(rule, normed, attention, table, signals.stream)

        return add_branch(tokens, mix, _blind_axis(rule, signals, places, table))


def _read_context(
    tokens: Tensor, norm: nn.Module, attention: Attention, signals: Signals
) -> Tensor:
    """Let tokens attend to what the network is told; its keys and values are computed once."""
    context, mask = cast("Tensor", signals.context), signals.context_mask
    kv = attention.keys_values(context)
    of_image = None
    if isinstance(attention, DecoupledAttention):
        if signals.image is None:
            raise ValueError("got no tokens of a picture, expected some")
        of_image = attention.keys_values_of_image(signals.image)
    elif context.shape[1] == 1 and mask is None and may_overwrite():
        # The softmax over one token is 1, whatever is asked.
        return plus(tokens, rearrange(attention.output(kv.values), "b 1 d -> b 1 1 1 d"))

    def read(x: Tensor) -> Tensor:
        q = attention.queries(norm(x))
        found = attention.attend(q, kv, mask)
        return attention.output(
            found if of_image is None else found + attention.attend(q, of_image)
        )

    return add_to_each(tokens, read)


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
        return plus(rearrange(self.proj_out(tokens), TO_VOLUME), x)


def spatial_block(place: Place, guests: Sequence[nn.Module] = ()) -> TransformerBlock:
    """Attention over places, attention to the text if there is one, guests, feed-forward."""
    rule = None if place.reads_only else place.options.spatial
    attends = [rule] if place.context_dim is None else [rule, None]
    return TransformerBlock(place, attends, guests=guests)


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
