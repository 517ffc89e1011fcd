"""One transformer block over video tokens, and the map from tokens back to patches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vdm.layers.attention import Attention, DecoupledAttention, KVCache, QKNorm
from vdm.layers.attention_backends import Backend
from vdm.layers.embeddings import NoiseLevelEmbedding
from vdm.layers.factorization import Factorization, Spatial
from vdm.layers.feedforward import FeedForwardKind, make_feedforward
from vdm.layers.norms import AdaLNLinear, AdaLNTable, NormKind, make_norm, modulate
from vdm.layers.pieces import add_gated, plus
from vdm.layers.position_rules import Positions
from vdm.layers.positions import RotaryTable

VideoTokens = Float[Tensor, "b t h w d"]
Modulation = Literal["single", "per_block"]
TimePositions = Literal["absolute", "rotary"]


@dataclass(frozen=True)
class PictureOptions:
    """How pictures are told in tokens beside the words.

    Args:
        width: Width of ``cond.image``.
        num_tokens: How many there are, where each has a learned vector of its own; None for any.
    """

    width: int = 1280
    num_tokens: int | None = None


@dataclass(frozen=True)
class CrossOptions:
    """How blocks attend to text.

    Args:
        norm: Whether tokens are normalised before it.
        in_temporal: Whether blocks in which frames meet do so; otherwise those alone that look at
            single frames.
        projects_text: Whether the text's states are first brought to the width of the tokens, once
            for all blocks.
        picture: How pictures are told beside the text; None without.
        qk_norm: Whether queries and keys are normalised there as in self-attention.
        num_null: Tokens of a text of the network's own that stands for none, see
            :attr:`vdm.models.dit.VideoDiT.null_text`; None for a network without.
    """

    norm: bool = True
    in_temporal: bool = True
    projects_text: bool = False
    picture: PictureOptions | None = None
    qk_norm: bool = True
    num_null: int | None = None


@dataclass(frozen=True)
class BlockOptions:
    """What is inside a transformer block.

    Args:
        feedforward: Kind of feed-forward network.
        mlp_ratio: Its hidden width, in units of the block's width.
        norm: Kind of the normalisation before each branch; it has no parameters of its own.
        qk_norm: Normalisation of queries and keys, or None.
        qkv_bias: Whether the maps to queries, keys and values have offsets.
        modulation: ``single`` shares one projection of the noise level between all blocks and gives
            each a table; ``per_block`` gives each a projection of its own.
        backend: Attention kernel, see :func:`vdm.layers.attention_backends.attend`.
        gradient_checkpointing: In training, compute a block's activations again instead of keeping
            them.
        time_positions: How tokens know their frame. ``absolute`` adds sin-cos positions to the
            tokens, so frames beyond those of training look like nothing seen before; ``rotary``
            leaves time to the rotary positions, which tell attention how far apart two frames are
            and nothing else. Places are told both ways.
        cross: How text is attended to.
        positions: How tokens know their places, instead of all that.
        predicts_variance: Whether the last layer has as many outputs again, of a learned variance,
            which :meth:`vdm.models.dit.VideoDiT.with_variance` alone gives.
        final_norm: Kind of the normalisation in the last layer, if it is another.
    """

    feedforward: FeedForwardKind = "gelu_tanh"
    mlp_ratio: float = 4.0
    norm: NormKind = "layer"
    qk_norm: QKNorm | None = field(default_factory=QKNorm)
    qkv_bias: bool = True
    modulation: Modulation = "single"
    backend: Backend = "auto"
    gradient_checkpointing: bool = False
    time_positions: TimePositions = "absolute"
    cross: CrossOptions = field(default_factory=CrossOptions)
    positions: Positions | None = None
    predicts_variance: bool = False
    final_norm: NormKind | None = None

    def __post_init__(self) -> None:
        """Check the closed choice that no layer checks."""
        if self.time_positions not in get_args(TimePositions):
            raise ValueError(
                f"got time_positions={self.time_positions!r}, expected 'absolute' or 'rotary'"
            )


def make_modulation(
    kind: Modulation, dim: int, num_chunks: int, cond_dim: int | None = None
) -> AdaLNTable | AdaLNLinear:
    """A block's modulation.

    Args:
        kind: Which one.
        dim: Width of the tokens.
        num_chunks: How many vectors to make.
        cond_dim: Width of the conditioning vector, if it has a projection of its own; that of the
            tokens if not given.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind == "single":
        return AdaLNTable(dim, num_chunks)
    if kind == "per_block":
        return AdaLNLinear(dim, num_chunks, cond_dim)
    raise ValueError(f"got modulation {kind!r}, expected 'single' or 'per_block'")


def init_weights(network: nn.Module) -> None:
    """Xavier everywhere; small embeddings; closed branches and a zero prediction."""
    if next(network.parameters()).is_meta:  # nothing to draw
        return
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, NoiseLevelEmbedding):
            nn.init.normal_(module.fc1.weight, std=0.02)
            nn.init.normal_(module.fc2.weight, std=0.02)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, (AdaLNLinear, DiTBlock, FinalLayer)):
            module.close()


class DiTBlock(nn.Module):
    """Self-attention, cross-attention to text, feed-forward; each added to the tokens.

    Every branch starts closed, so a new block is the identity: the modulated ones by their gates,
    cross-attention by its output map.

    Args:
        dim: Width of the tokens.
        num_heads: Number of attention heads.
        factorization: Which tokens attend together.
        text_dim: Width of text tokens; None for a block without cross-attention.
        options: What is inside.

    Source:
        Peebles & Xie 2023, "Scalable Diffusion Models with Transformers", arXiv:2212.09748, fig. 3.
        Cross-attention without gate and modulation as in Chen et al. 2023, "PixArt-alpha",
        arXiv:2310.00426, fig. 4; here with a normalisation before it.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        factorization: Factorization,
        text_dim: int | None,
        options: BlockOptions,
    ) -> None:
        super().__init__()
        self.factorization = factorization
        rule = options.positions
        self.is_turned = not isinstance(factorization, Spatial) or rule is None or rule.turns_space
        self.modulation = make_modulation(options.modulation, dim, 6)
        common = {
            "qkv_bias": options.qkv_bias,
            "qk_norm": options.qk_norm,
            "backend": options.backend,
        }
        self.norm1 = make_norm(options.norm, dim, affine=False)
        self.attention = Attention(dim, num_heads, **common)  # type: ignore[arg-type]
        self.cross_attention: Attention | None = None
        if text_dim is not None:
            self.norm_cross = make_norm(options.norm, dim) if options.cross.norm else nn.Identity()
            if not options.cross.qk_norm:
                common["qk_norm"] = None
            kind = Attention if options.cross.picture is None else DecoupledAttention
            self.cross_attention = kind(dim, num_heads, text_dim, **common)  # type: ignore[arg-type]
        self.norm2 = make_norm(options.norm, dim, affine=False)
        self.feedforward = make_feedforward(options.feedforward, dim, options.mlp_ratio)

    def close(self) -> None:
        """Start at zero, where a branch has no gate."""
        if self.cross_attention is not None:
            nn.init.zeros_(self.cross_attention.to_out.weight)
            nn.init.zeros_(self.cross_attention.to_out.bias)

    def forward(
        self,
        x: VideoTokens,
        level: Float[Tensor, "b frames c"],
        table: RotaryTable | None,
        text: Float[Tensor, "b n text_dim"] | None = None,
        text_mask: Bool[Tensor, "b 1 1 n"] | None = None,
        image: Float[Tensor, "b m text_dim"] | None = None,
    ) -> VideoTokens:
        """Transform the tokens of a whole clip.

        Args:
            x: Tokens.
            level: Conditioning vector, or its shared projection, per sample or per frame.
            table: Rotary positions ``(t, h, w, pairs)``.
            text: Text tokens.
            text_mask: True where they are valid.
            image: Tokens of pictures.
        """
        x, rest = self.attend(x, level, table)
        return self._finish(x, rest, text, text_mask, image)

    def attend(
        self, x: VideoTokens, level: Float[Tensor, "b frames c"], table: RotaryTable | None
    ) -> tuple[VideoTokens, list[Tensor]]:
        """Self-attention, and the modulation that is left for what follows."""
        shift, scale, gate, *rest = self.modulation(level)
        tokens = modulate(self.norm1(x), shift, scale)
        mixed = self.factorization(tokens, self.attention, table if self.is_turned else None)
        return torch.addcmul(x, gate, mixed), rest

    def step(
        self,
        x: VideoTokens,
        level: Float[Tensor, "b frames c"],
        table: RotaryTable | None,
        text: Float[Tensor, "b n text_dim"] | None = None,
        text_mask: Bool[Tensor, "b 1 1 n"] | None = None,
        image: Float[Tensor, "b m text_dim"] | None = None,
        cache: KVCache | None = None,
    ) -> tuple[VideoTokens, KVCache | None]:
        """Transform the tokens of the next frames, given the cache of the frames before."""
        shift, scale, gate, *rest = self.modulation(level)
        tokens = modulate(self.norm1(x), shift, scale)
        mixed, cache = self.factorization.step(tokens, self.attention, table, cache)
        return self._finish(torch.addcmul(x, gate, mixed), rest, text, text_mask, image), cache

    def _finish(
        self,
        x: Tensor,
        modulation: list[Tensor],
        text: Tensor | None,
        text_mask: Tensor | None,
        image: Tensor | None,
    ) -> Tensor:
        """Cross-attention and feed-forward."""
        if self.cross_attention is not None:
            flat = rearrange(self.norm_cross(x), "b t h w d -> b (t h w) d")
            told = {} if image is None else {"image": image}
            x = plus(x, self.cross_attention(flat, text, text_mask, **told).view_as(x))
        if modulation[0].shape[1] > 1:  # frames have vectors of their own
            shift, scale, gate = modulation
            return torch.addcmul(x, gate, self.feedforward(modulate(self.norm2(x), shift, scale)))
        shift, scale, gate = (vector.flatten(1, 3) for vector in modulation)
        branch = lambda x: self.feedforward(modulate(self.norm2(x), shift, scale))  # noqa: E731
        return add_gated(x.flatten(1, 3), gate, branch).view_as(x)


class FinalLayer(nn.Module):
    """Modulated normalisation and a linear map to patches that starts at zero.

    Args:
        dim: Width of the tokens.
        patch_dim: Numbers in a patch.
        options: Kind of normalisation and modulation.
        norm: A normalisation instead of that of the options.
        cond_dim: Width of the conditioning vector; that of the tokens if not given.

    Source:
        Peebles & Xie 2023, arXiv:2212.09748, sec. 3.2, "transformer decoder".
    """

    def __init__(
        self,
        dim: int,
        patch_dim: int,
        options: BlockOptions,
        norm: nn.Module | None = None,
        cond_dim: int | None = None,
    ) -> None:
        super().__init__()
        kind = options.final_norm or options.norm
        self.norm = make_norm(kind, dim, affine=False) if norm is None else norm
        self.modulation = make_modulation(options.modulation, dim, 2, cond_dim)
        self.linear = nn.Linear(dim, patch_dim)

    def close(self) -> None:
        """Start with a prediction of zero."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self, x: VideoTokens, level: Float[Tensor, "b frames c"]
    ) -> Float[Tensor, "b t h w p"]:
        """Patches of the prediction.

        Args:
            x: Tokens.
            level: Conditioning vector per sample or per frame. With a table it is added to both of
                the table's rows as it is.
        """
        if isinstance(self.modulation, AdaLNTable):
            level = torch.cat((level, level), dim=-1)
        shift, scale = self.modulation(level)
        return self.linear(modulate(self.norm(x), shift, scale))
