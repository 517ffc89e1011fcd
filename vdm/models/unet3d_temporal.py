"""How the frames of a U-Net are coupled in time: components that a recipe chooses from.

A coupling is a list of frozen choices; the network asks each what it puts at every place. An empty
list couples nothing, and every new coupling is the identity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.factorization import Factorization, Temporal
from vdm.layers.norms import Statistics, make_group_norm
from vdm.layers.pieces import plus
from vdm.layers.temporal import Additive, Blend, Learned, TemporalConv, normed_conv
from vdm.models.unet3d_blocks import Heads, Place, Signals, Stage, check_choice
from vdm.models.unet3d_transformer import (
    AttentionSublayer,
    FrameIndexEmbedding,
    FramePositions,
    Transformer,
    TransformerBlock,
)

Volume = Float[Tensor, "b c t h w"]
VideoTokens = Float[Tensor, "b t h w d"]


class TemporalCoupling(ABC):
    """What is put where, so that frames know of each other; nothing, where nothing is said."""

    @property
    @abstractmethod
    def is_causal(self) -> bool:
        """Whether no frame sees a later one."""

    @property
    def is_endless(self) -> bool:
        """Whether it is causal and does the same at every frame, however far into a clip."""
        return self.is_causal

    def at_input(self, place: Place) -> nn.Module | None:
        """A module after the first convolution, from (video, signals) to video."""
        return None

    def in_resblock(self, place: Place) -> list[TemporalConv]:
        """Convolutions over time, one after each convolution of a residual block."""
        return []

    def after_resblock(self, place: Place) -> nn.Module | None:
        """A module after a residual block, from (video, signals) to video."""
        return None

    def before_transformer(self, place: Place) -> nn.Module | None:
        """A module before a spatial transformer, where there is one, likewise."""
        return None

    def in_block(self, place: Place) -> nn.Module | None:
        """A module before the feed-forward of a block of a spatial transformer, likewise."""
        return None

    def in_transformer(self, place: Place) -> nn.Module | None:
        """A module after a block of a spatial transformer, from (tokens, signals) to tokens."""
        return None

    def after_transformer(self, place: Place) -> nn.Module | None:
        """A module at the end of a layer, from (video, signals) to video."""
        return None

    def after_level(self, place: Place) -> nn.Module | None:
        """A module after a level and its change of size, or after the middle, likewise."""
        return None

    def acts_at(self, place: Place) -> bool:
        """Whether anything is put there."""
        with torch.device("meta"):
            if place.stage == "input":
                return self.at_input(place) is not None
            around = self.before_transformer(place) or self.in_block(place)
            inside = place.has_attention and (around or self.in_transformer(place)) is not None
            after = self.after_resblock(place) or self.after_transformer(place)
            after = after or self.after_level(place)
            return inside or bool(self.in_resblock(place)) or after is not None


@dataclass(frozen=True)
class FactorizedConv(TemporalCoupling):
    """(2+1)D: every convolution of a residual block is followed by one over time.

    Args:
        kernel_size: Odd number of frames.
        is_causal: See earlier frames only.

    Source:
        Singer et al. 2022, "Make-A-Video", arXiv:2209.14792, sec. 3.2.1. There it starts as the
        identity kernel, here as zero beside a shortcut.
    """

    kernel_size: int = 3
    is_causal: bool = False  # type: ignore[assignment]

    def in_resblock(self, place: Place) -> list[TemporalConv]:
        """Two, as wide as the block."""
        width = place.channels
        return [TemporalConv(width, width, self.kernel_size, self.is_causal) for _ in range(2)]


@dataclass(frozen=True)
class TemporalConvStack(TemporalCoupling):
    """After every residual block, some convolutions over time, added to what goes in.

    Args:
        depth: How many.
        kernel_size: Odd number of frames.
        is_causal: See earlier frames only.
        statistics: Whether normalisations see one frame or the whole clip, which no causal network
            may.
        eps: Added to the variance.
        blend: How the result meets what went in.

    Source:
        Wang et al. 2023, "ModelScope Text-to-Video Technical Report", arXiv:2308.06571, sec. 3.3;
        there of depth 4. Their dropout in training is left out.
    """

    depth: int = 1
    kernel_size: int = 3
    is_causal: bool = False  # type: ignore[assignment]
    statistics: Statistics = "frame"
    eps: float = 1e-5
    blend: Blend = field(default_factory=Additive)

    def __post_init__(self) -> None:
        """Check that what is called causal is."""
        if self.depth < 1:
            raise ValueError(f"got depth={self.depth}, expected at least 1")
        _check_causal(self.is_causal, self.statistics)

    def after_resblock(self, place: Place) -> nn.Module | None:
        """The stack."""
        return ConvStack(place, self)


@dataclass(frozen=True)
class TemporalResBlock(TemporalCoupling):
    """After every residual block, another one whose convolutions are over time.

    Args:
        kernel_size: Odd number of frames.
        is_causal: See earlier frames only.
        statistics: Whether normalisations see one frame or the whole clip.
        blend: How the result meets what went in.
        second_kernel_size: Of the second convolution; as the first if None.

    Source:
        Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, appendix D, after "Align
        your Latents", arXiv:2304.08818, sec. 3.1.
    """

    kernel_size: int = 3
    is_causal: bool = False  # type: ignore[assignment]
    statistics: Statistics = "frame"
    blend: Blend = field(default_factory=Learned)
    second_kernel_size: int | None = None

    def __post_init__(self) -> None:
        """Check that what is called causal is."""
        _check_causal(self.is_causal, self.statistics)

    def after_resblock(self, place: Place) -> nn.Module:
        """The block."""
        return ResBlockInTime(place, self)


@dataclass(frozen=True)
class TemporalTransformer(TemporalCoupling):
    """At the end of every layer, a transformer whose tokens attend as a factorization says.

    Args:
        factorization: Which tokens attend together.
        num_attentions: Self-attentions in its block, before the feed-forward.
        heads: Attention heads; those of the network if not given.
        positions: How attention knows the frame.
        statistics: Whether its normalisation sees one frame or the whole clip.
        stages: Where in the network.
        needs_attention: Only in layers that have a spatial transformer.
        blend: How the result meets what went in.

    Source:
        Guo et al. 2023, "AnimateDiff", arXiv:2307.04725, sec. 4.2; Wang et al. 2023, "ModelScope
        Text-to-Video Technical Report", arXiv:2308.06571, sec. 3.3.
    """

    factorization: Factorization = field(default_factory=Temporal)
    num_attentions: int = 1
    heads: Heads | None = None
    positions: FramePositions = "sincos"
    statistics: Statistics = "frame"
    stages: Sequence[Stage] = ("down", "middle", "up")
    needs_attention: bool = True
    blend: Blend = field(default_factory=Additive)

    def __post_init__(self) -> None:
        """Check that there is an attention, and the choices."""
        check_choice("positions", self.positions, get_args(FramePositions))
        for stage in self.stages:
            check_choice("stages", stage, get_args(Stage))
        if self.num_attentions < 1:
            raise ValueError(f"got num_attentions={self.num_attentions}, expected at least 1")
        _check_relative(self.positions, self.factorization)

    @property
    def is_causal(self) -> bool:
        """Whether no frame sees a later one."""
        return self.factorization.is_causal and self.statistics == "frame"

    @property
    def is_endless(self) -> bool:
        """Whether it sees a bounded past and is told no frame's number."""
        is_bounded = self.factorization.window is not None and self.positions != "sincos"
        return self.is_causal and is_bounded

    def at_input(self, place: Place) -> nn.Module | None:
        """One, if the first stage is among those chosen."""
        return FramesTransformer(place, self) if "input" in self.stages else None

    def after_transformer(self, place: Place) -> nn.Module | None:
        """One, where the stage is chosen."""
        if place.stage not in self.stages or (self.needs_attention and not place.has_attention):
            return None
        return FramesTransformer(place, self)


@dataclass(frozen=True)
class InterleavedBlocks(TemporalCoupling):
    """After every block of a spatial transformer, one over time, between the same linear maps.

    Args:
        factorization: Which tokens attend together.
        reads_context: Whether its tokens attend to the text (or image), too.
        blend: How the result meets what went in.

    Source:
        Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, appendix D.
    """

    factorization: Factorization = field(default_factory=Temporal)
    reads_context: bool = True
    blend: Blend = field(default_factory=Learned)

    @property
    def is_causal(self) -> bool:
        """Whether no frame sees a later one."""
        return self.factorization.is_causal

    @property
    def is_endless(self) -> bool:
        """Never: it is told the numbers of the frames."""
        return False

    def in_transformer(self, place: Place) -> nn.Module:
        """One."""
        return InterleavedBlock(place, self)


@dataclass(frozen=True)
class TemporalAttention(TemporalCoupling):
    """In every block of a spatial transformer, one attention more.

    Args:
        factorization: Which tokens attend together.
        positions: How attention knows the frame.
        num_rotated: At most so many channels of a head are turned by rotary positions.
        has_bias: Whether scores depend on the distance of frames by learned numbers, too.
        is_last: Whether it follows the feed-forward instead of going before it.

    Source:
        Wang et al. 2023, "LaVie", arXiv:2309.15103, sec. 3.1.
    """

    factorization: Factorization = field(default_factory=Temporal)
    positions: FramePositions = "rotary"
    num_rotated: int = 32
    has_bias: bool = False
    is_last: bool = False

    def __post_init__(self) -> None:
        """Check the choices."""
        check_choice("positions", self.positions, get_args(FramePositions))
        _check_relative(self.positions, self.factorization)
        if self.num_rotated < 2 or self.num_rotated % 2:
            nearest = max(2, self.num_rotated // 2 * 2)
            raise ValueError(
                f"got num_rotated={self.num_rotated}, expected an even number; nearest: {nearest}"
            )

    @property
    def is_causal(self) -> bool:
        """Whether no frame sees a later one."""
        return self.factorization.is_causal

    @property
    def is_endless(self) -> bool:
        """Whether it sees a bounded past and is told no frame's number."""
        is_bounded = self.factorization.window is not None and self.positions != "sincos"
        return self.is_causal and is_bounded

    def _make(self, place: Place) -> nn.Module:
        return AttentionSublayer(
            place, self.factorization, self.positions, self.num_rotated, self.has_bias
        )

    def in_block(self, place: Place) -> nn.Module | None:
        """One, unless it comes last."""
        return None if self.is_last else self._make(place)

    def in_transformer(self, place: Place) -> nn.Module | None:
        """One, if it comes last."""
        return self._make(place) if self.is_last else None


def _check_causal(is_causal: bool, statistics: Statistics) -> None:
    if is_causal and statistics != "frame":
        raise ValueError(
            f"got is_causal=True and statistics={statistics!r}, expected 'frame': others show "
            "every frame the later ones"
        )


def _check_relative(positions: FramePositions, factorization: Factorization) -> None:
    if positions == "relative" and not isinstance(factorization, Temporal):
        raise ValueError(
            f"got relative positions with {factorization}, expected Temporal: its tokens are as "
            "far apart as their frames"
        )


class ConvStack(nn.Module):
    """The module of :class:`TemporalConvStack`.

    Args:
        place: Where it sits.
        config: What it is.
    """

    def __init__(self, place: Place, config: TemporalConvStack) -> None:
        super().__init__()
        width, groups = place.channels, place.options.num_groups
        depth = range(config.depth)
        self.norms = nn.ModuleList(
            make_group_norm(width, groups, config.eps, config.statistics) for _ in depth
        )
        self.convs = nn.ModuleList(
            TemporalConv(width, width, config.kernel_size, config.is_causal) for _ in depth
        )
        self.blend = config.blend.make()

    def close(self) -> None:
        """Start as the identity."""
        self.convs[-1].close()  # type: ignore[operator]

    def forward(self, x: Volume, signals: Signals) -> Volume:
        """Couple the frames."""
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = normed_conv(norm, conv, h, signals.stream)  # type: ignore[arg-type]
        return self.blend(x, plus(h, x))


class ResBlockInTime(nn.Module):
    """The module of :class:`TemporalResBlock`.

    Args:
        place: Where it sits.
        config: What it is.
    """

    def __init__(self, place: Place, config: TemporalResBlock) -> None:
        super().__init__()
        width = place.channels
        norm = (width, place.options.num_groups, place.eps, config.statistics)
        self.norm1 = make_group_norm(*norm)
        self.conv1 = TemporalConv(width, width, config.kernel_size, config.is_causal)
        self.modulation = nn.Linear(place.level_dim, width)
        self.norm2 = make_group_norm(*norm)
        second = config.second_kernel_size or config.kernel_size
        self.conv2 = TemporalConv(width, width, second, config.is_causal)
        self.blend = config.blend.make()

    def close(self) -> None:
        """Start as the identity."""
        self.conv2.close()

    def forward(self, x: Volume, signals: Signals) -> Volume:
        """Couple the frames."""
        h = normed_conv(self.norm1, self.conv1, x, signals.stream)
        h = plus(h, rearrange(self.modulation(signals.level), "b t c -> b c t 1 1"))
        return normed_conv(
            self.norm2,
            self.conv2,
            h,
            signals.stream,
            finish=lambda h, x: self.blend(x, plus(h, x)),
            onto=x,
        )


class FramesTransformer(Transformer):
    """The module of :class:`TemporalTransformer`.

    Args:
        place: Where it sits.
        config: What it is.
    """

    def __init__(self, place: Place, config: TemporalTransformer) -> None:
        heads = config.heads or place.options.heads
        number, head_dim = heads.of(place.channels)
        attends = [config.factorization] * config.num_attentions
        dim = number * head_dim
        block = TransformerBlock(place, attends, dim, heads, config.positions)
        super().__init__(place, [block], config.statistics, dim)
        self.blend = config.blend.make()

    def forward(self, x: Volume, signals: Signals) -> Volume:
        """Couple the frames."""
        return self.blend(x, super().forward(x, signals))


class InterleavedBlock(nn.Module):
    """The module of :class:`InterleavedBlocks`.

    Args:
        place: Where it sits.
        config: What it is.
    """

    def __init__(self, place: Place, config: InterleavedBlocks) -> None:
        super().__init__()
        reads = config.reads_context and place.context_dim is not None
        attends = [config.factorization, None] if reads else [config.factorization]
        self.frame_embed = FrameIndexEmbedding(place.channels)
        self.block = TransformerBlock(place, attends, has_feedforward_in=True)
        self.blend = config.blend.make()

    def close(self) -> None:
        """Start as the identity."""
        self.frame_embed.close()
        self.block.close()

    def forward(self, tokens: VideoTokens, signals: Signals) -> VideoTokens:
        """Couple the frames."""
        return self.blend(tokens, self.block(self.frame_embed(tokens, signals.start), signals))
