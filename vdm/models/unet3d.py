"""A U-Net that denoises video: convolutions of every frame, coupled in time as one chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vdm.layers import masks
from vdm.layers.embeddings import (
    LabelEmbedding,
    NoiseLevelEmbedding,
    NumbersEmbedding,
    NumberTable,
    ReadsGiven,
    Scalar,
    TextAndSizeEmbedding,
    add_told,
    join_given,
    make_pooled_embed,
    noise_levels,
    num_input_channels,
    readable_fields,
)
from vdm.layers.frames import FrameConv, FrameUpsample
from vdm.layers.temporal import Stream
from vdm.models.unet3d_blocks import (
    FinalLayer,
    Place,
    ResBlock,
    Signals,
    Stage,
    UNetOptions,
    check_choice,
)
from vdm.models.unet3d_levels import LevelInTime
from vdm.models.unet3d_temporal import (
    ConvStack,
    InterleavedBlock,
    ResBlockInTime,
    TemporalCoupling,
)
from vdm.models.unet3d_transformer import AttentionSublayer, Transformer, spatial_block
from vdm.types import Conditioning, Latents
from vdm.utils.config import configurable

CLOSED = (
    ResBlock,
    Transformer,
    FinalLayer,
    ConvStack,
    ResBlockInTime,
    InterleavedBlock,
    AttentionSublayer,
    LevelInTime,
)


@dataclass(frozen=True)
class LevelOptions:
    """How the noise level, and numbers beside it, become a vector.

    Args:
        dim: Its width; None for four times the width of the first level.
        sinusoid_dim: Channels of the sinusoids; None for the width of the first level.
        scalars: Embed each number by itself, all of them together, or each whole number by a
            vector of its own.
        scalar_sinusoid_dim: Channels of a number's sinusoid where they are embedded together.
        table_size: Whole numbers, from 0, that have vectors of their own.
        pooled: Embed the vector of a whole text by itself, or together with ``cond.size``.
        time_scale: The noise level of noise time 1 in ``cond.token_times``; None for a network
            whose noise levels are not proportional to times, which does not read them.
    """

    dim: int | None = None
    sinusoid_dim: int | None = None
    scalars: Literal["separate", "together", "table"] = "separate"
    scalar_sinusoid_dim: int = 256
    pooled: Literal["alone", "with_size"] = "alone"
    time_scale: float | None = 1000.0
    table_size: int = 1000

    def __post_init__(self) -> None:
        """Check the choice."""
        check_choice("scalars", self.scalars, ("separate", "together", "table"))
        check_choice("pooled", self.pooled, ("alone", "with_size"))


class Layer(nn.Module):
    """A residual block, a spatial transformer, and what couples frames after each.

    Args:
        place: Where it sits.
        in_channels: Channels of the input.
        num_blocks: Blocks of the spatial transformer; 0 for none.
        temporal: Couplings in time.
        is_exit: Whether it ends the middle, where nothing follows the residual block's couplings.
    """

    def __init__(
        self,
        place: Place,
        in_channels: int,
        num_blocks: int,
        temporal: Sequence[TemporalCoupling],
        is_exit: bool = False,
    ) -> None:
        super().__init__()
        in_time = [conv for kind in temporal for conv in kind.in_resblock(place)]
        if len(in_time) > 2:
            raise ValueError("got several couplings inside residual blocks, expected at most one")
        self.resblock = ResBlock(place, in_channels, in_time)
        self.after_resblock = _modules(kind.after_resblock(place) for kind in temporal)
        self.transformer: Transformer | None = None
        before = [] if is_exit or not num_blocks else temporal
        self.before_transformer = _modules(kind.before_transformer(place) for kind in before)
        if num_blocks and not is_exit:
            blocks: list[nn.Module] = []
            for _ in range(num_blocks):
                guests = _modules(kind.in_block(place) for kind in temporal)
                blocks.append(spatial_block(place, list(guests)))
                blocks.extend(_modules(kind.in_transformer(place) for kind in temporal))
            self.transformer = Transformer(place, blocks)
        after = [] if is_exit else [kind.after_transformer(place) for kind in temporal]
        self.after_transformer = _modules(after)

    def forward(
        self, x: Float[Tensor, "b c_in t h w"], signals: Signals
    ) -> Float[Tensor, "b c t h w"]:
        """Transform a clip."""
        x = self.resblock(x, signals)
        for module in (*self.after_resblock, *self.before_transformer):
            x = module(x, signals)
        if self.transformer is not None:
            x = self.transformer(x, signals)
        for module in self.after_transformer:
            x = module(x, signals)
        return x


def _modules(found: Iterable[nn.Module | None]) -> nn.ModuleList:
    return nn.ModuleList(module for module in found if module is not None)


class Level(nn.Module):
    """Layers of one size, and the way to the next one.

    Args:
        layers: The layers.
        resize: The way to the next size; None at the end.
        after: What couples frames behind both.
    """

    def __init__(
        self, layers: Sequence[Layer], resize: nn.Module | None, after: nn.ModuleList
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.resize, self.after = resize, after


def way_down(
    place: Callable[[Stage, int], Place],
    widths: Sequence[int],
    depth: int,
    attention: Sequence[int],
    temporal: Sequence[TemporalCoupling],
) -> tuple[nn.ModuleList, list[int]]:
    """Levels from the finest to the coarsest, and the widths of what is kept for the way up."""
    skips, width = [widths[0]], widths[0]
    levels = []
    for i in range(len(widths)):
        layers = []
        for _ in range(depth):
            layers.append(Layer(place("down", i), width, attention[i], temporal))
            width = widths[i]
            skips.append(width)
        is_last = i == len(widths) - 1
        resize = None if is_last else FrameConv(width, width, stride=2)
        after = _modules(kind.after_level(place("down", i)) for kind in temporal)
        levels.append(Level(layers, resize, after))
        if not is_last:
            skips.append(width)
    return nn.ModuleList(levels), skips


@configurable
class UNet3D(nn.Module):
    """Spatio-temporal diffusion U-Net.

    Frames go through a 2D U-Net; the couplings in time say how they know of each other. Any height
    and width fit: on the way up, every level takes the size of its skip connection.

    Args:
        in_channels: Channels of the latents, and of the prediction.
        widths: Channels of every level, from the finest.
        depth: Layers of every level on the way down; there is one more on the way up.
        attention: Blocks of the spatial transformers of every level, 0 for none, and last those of
            the middle.
        temporal: Couplings in time, in the order in which they follow each other at one place.
            Without any, frames do not know of each other.
        text_dim: Width of ``cond.text`` for cross-attention (or ``cond.image``, or of both, see the
            options); None for a network without.
        pooled_dim: Width of ``cond.pooled_text``, which is added to the noise level; None without.
        num_labels: Classes of ``cond.label``; the label ``num_labels``, or no label, means "none".
            None for a network without.
        scalars: Further numbers that the network is told, e.g. ``fps``.
        frame_conditioning: Read ``cond.given`` and ``cond.given_mask`` as further input channels;
            ``latents`` for the first without the second, ``pixels`` likewise for a picture of the
            size of the latents. Without them no frame is given.
        level: How noise level and numbers become a vector.
        block: What is inside the blocks.

    Raises:
        ValueError: If the sizes do not fit together.

    Source:
        Ho et al. 2022, "Video Diffusion Models", arXiv:2204.03458, sec. 3; the two-dimensional part
        as in Rombach et al. 2022, arXiv:2112.10752.
    """

    patch_size = (1, 1, 1)
    """Sizes need not be multiples of anything."""

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (64, 128),
        depth: int = 2,
        attention: Sequence[int] = (0, 1, 1),
        temporal: Sequence[TemporalCoupling] = (),
        text_dim: int | None = None,
        pooled_dim: int | None = None,
        num_labels: int | None = None,
        scalars: Sequence[Scalar] = (),
        frame_conditioning: ReadsGiven = True,
        level: LevelOptions = LevelOptions(),
        block: UNetOptions = UNetOptions(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        if not widths or len(attention) != len(widths) + 1:
            raise ValueError(
                f"got {len(widths)} widths and attention={tuple(attention)}, expected at least one "
                "width, and a number of blocks for each and for the middle"
            )
        self.in_channels, self.scalars = in_channels, tuple(scalars)
        self.frame_conditioning, self.options = frame_conditioning, block
        self.level_options = level
        dim = level.dim or 4 * widths[0]
        self.embed = FrameConv(num_input_channels(in_channels, frame_conditioning), widths[0])
        waves = level.sinusoid_dim or widths[0]
        self.time_embed = NoiseLevelEmbedding(dim, waves)
        self.scalar_embeds = _scalar_embeds(self.scalars, dim, waves, level)
        self.label_embed = None if num_labels is None else LabelEmbedding(num_labels, dim)
        has_size = pooled_dim is not None and level.pooled == "with_size"
        self.pooled_embed = make_pooled_embed(None if has_size else pooled_dim, dim)
        self.sized_embed: TextAndSizeEmbedding | None = None
        if pooled_dim is not None and has_size:
            self.sized_embed = TextAndSizeEmbedding(pooled_dim, dim, level.scalar_sinusoid_dim)

        def place(stage: Stage, index: int) -> Place:
            is_level = stage in ("down", "up")
            width, blocks = (widths[index], attention[index]) if is_level else (widths[index], 0)
            blocks = attention[-1] if stage == "middle" else blocks
            reads_only = is_level and index in block.only_context
            return Place(stage, width, dim, text_dim, blocks > 0, block, reads_only)

        places = [place(stage, i) for stage in get_args(Stage) for i in range(len(widths))]
        for kind in temporal:
            if not any(kind.acts_at(here) for here in places):
                raise ValueError(f"got {kind}, which acts at no place of attention={attention}")
        self.at_input = _modules(kind.at_input(place("input", 0)) for kind in temporal)
        self._build_levels(place, widths, depth, attention, temporal)
        self.final = FinalLayer(widths[0], in_channels, block)
        sees_past = block.statistics == "frame" and block.spatial.is_causal
        self.is_causal = sees_past and all(kind.is_causal for kind in temporal)
        bounded = self.is_causal and block.spatial.window is not None
        self.is_endless = bounded and all(kind.is_endless for kind in temporal)
        """Whether far into a clip everything is as in training, so that it may go on for ever."""
        self.reads, self.needs = readable_fields(
            self.scalars,
            text=None if text_dim is None else block.context,
            pooled=pooled_dim is not None,
            label=num_labels is not None,
            given=frame_conditioning,
            token_times=level.time_scale is not None,
        )
        if has_size:
            self.reads, self.needs = self.reads | {"size"}, self.needs | {"size"}
        self._init_weights()

    def _build_levels(
        self,
        place: Callable[[Stage, int], Place],
        widths: Sequence[int],
        depth: int,
        attention: Sequence[int],
        temporal: Sequence[TemporalCoupling],
    ) -> None:
        """The way down, the middle, the way up; ``skips`` are the widths of what is kept."""

        def after(stage: Stage, index: int) -> nn.ModuleList:
            return _modules(kind.after_level(place(stage, index)) for kind in temporal)

        down, skips = way_down(place, widths, depth, attention, temporal)
        width, up = widths[-1], []
        middle = place("middle", len(widths) - 1)
        self.middle = nn.ModuleList(
            Layer(middle, width, attention[-1], temporal, is_exit) for is_exit in (False, True)
        )
        self.after_middle = after("middle", len(widths) - 1)
        for i in reversed(range(len(widths))):
            layers = []
            for _ in range(depth + 1):
                layers.append(Layer(place("up", i), width + skips.pop(), attention[i], temporal))
                width = widths[i]
            up.append(Level(layers, FrameUpsample(width) if i else None, after("up", i)))
        self.down, self.up = down, nn.ModuleList(up)

    def _init_weights(self) -> None:
        """Unit gain everywhere; small embeddings; closed branches and a zero prediction."""
        if self.embed.weight.is_meta:  # nothing to draw; half the time of building it otherwise
            return
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, (NoiseLevelEmbedding, NumbersEmbedding, TextAndSizeEmbedding)):
                nn.init.normal_(module.fc1.weight, std=0.02)
                nn.init.normal_(module.fc2.weight, std=0.02)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, CLOSED):
                module.close()

    def forward(
        self,
        x: Latents,
        c_noise: Float[Tensor, " b *frames"],
        cond: Conditioning,
        control: Sequence[Tensor] = (),
    ) -> Latents:
        """Predict the target from noisy latents.

        Args:
            x: Noisy latents.
            c_noise: Noise level in the units of training, one per sample, or one per latent frame
                ``(b, t)`` where it varies.
            cond: What else the network is told. ``cond.token_times`` take precedence over
                ``c_noise``.
            control: What another network adds: to every skip connection, and last to the middle.

        Raises:
            ValueError: If the conditioning has fields that the network does not read, or lacks ones
                that it needs, or shapes do not fit.
        """
        return self._run(x, c_noise, cond, None, control)

    def step(
        self,
        x: Latents,
        c_noise: Float[Tensor, " b *frames"],
        cond: Conditioning,
        cache: Stream | None = None,
    ) -> tuple[Latents, Stream]:
        """Predict for the next frames of a clip, whose earlier frames are in the cache.

        Chunk by chunk this equals :meth:`forward` on the whole clip. A chunk may be denoised in
        many calls with the same cache; the cache to go on with is the one returned for its final
        state.

        Args:
            x: Noisy latents of the next frames.
            c_noise: Noise level of these frames.
            cond: As in :meth:`forward`; fields with a frame axis cover the next frames only.
            cache: What was returned for the frames before; None at the start of a clip.

        Returns:
            The prediction for these frames, and the cache for the frames after.

        Raises:
            ValueError: If some layer looks at later frames.
        """
        if not self.is_causal:
            raise ValueError(
                "got a network that sees later frames, expected causal couplings in time and "
                "statistics of single frames"
            )
        stream = Stream() if cache is None else cache.copy()
        pred = self._run(x, c_noise, cond, stream)
        stream.num_frames += x.shape[2]
        return pred, stream

    def _run(
        self,
        x: Tensor,
        c_noise: Tensor,
        cond: Conditioning,
        stream: Stream | None,
        control: Sequence[Tensor] = (),
    ) -> Tensor:
        """One pass over a whole clip, or over the next frames of a stream."""
        signals = self._signals(x, c_noise, cond, stream)
        joined = join_given(x, cond, self.frame_conditioning)
        # Frames are then views of the clip, and tokens of its frames.
        h = self.embed(joined.contiguous(memory_format=torch.channels_last_3d))
        for module in self.at_input:
            h = module(h, signals)
        skips = [h]
        for level in self.down:
            for layer in level.layers:  # type: ignore[union-attr]
                h = self._layer(layer, h, signals)
                skips.append(h)
            if level.resize is not None:
                h = level.resize(h)  # type: ignore[operator]
                skips.append(h)
            for module in level.after:  # type: ignore[union-attr]
                h = self._layer(module, h, signals)
        for layer in (*self.middle, *self.after_middle):
            h = self._layer(layer, h, signals)
        if control:
            *to_skips, to_middle = control
            skips = [skip + more for skip, more in zip(skips, to_skips, strict=True)]
            h = h + to_middle
        for level in self.up:
            for layer in level.layers:  # type: ignore[union-attr]
                h = self._layer(layer, torch.cat((h, skips.pop()), dim=1), signals)
            if level.resize is not None:
                h = level.resize(h, (skips[-1].shape[3], skips[-1].shape[4]))  # type: ignore[operator]
            for module in level.after:  # type: ignore[union-attr]
                h = self._layer(module, h, signals)
        return self.final(h).contiguous()

    def _layer(self, layer: nn.Module, h: Tensor, signals: Signals) -> Tensor:
        if self.options.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(layer, h, signals, use_reentrant=False)
        return layer(h, signals)

    def _signals(
        self, x: Tensor, c_noise: Tensor, cond: Conditioning, stream: Stream | None
    ) -> Signals:
        """What every layer is told.

        Raises:
            ValueError: If it does not fit.
        """
        cond.check(type(self).__name__, self.reads, self.needs)
        if x.shape[1] != self.in_channels:
            raise ValueError(f"got {x.shape[1]} channels, expected {self.in_channels}")
        scale = 1.0 if self.level_options.time_scale is None else self.level_options.time_scale
        level = self.time_embed(noise_levels(c_noise, cond, x.shape[2], scale))
        level = add_told(level, cond, self.scalar_embeds, self.pooled_embed, self.label_embed)
        if self.sized_embed is not None:
            level = level + self.sized_embed(cond.pooled_text, cond.size).unsqueeze(1)
        mask = None if cond.text_mask is None else masks.padding(cond.text_mask)
        is_both = self.options.context == "both"
        context = cond.text if is_both else getattr(cond, self.options.context)
        return Signals(F.silu(level), context, mask, cond.image if is_both else None, stream)


def _scalar_embeds(
    scalars: Sequence[Scalar], dim: int, waves: int, options: LevelOptions
) -> nn.ModuleDict:
    """An embedding for each number, or one for all."""
    if options.scalars == "table":
        return nn.ModuleDict({name: NumberTable(options.table_size, dim) for name in scalars})
    if options.scalars == "separate" or len(scalars) < 2:
        return nn.ModuleDict({name: NoiseLevelEmbedding(dim, waves) for name in scalars})
    together = NumbersEmbedding(len(scalars), dim, options.scalar_sinusoid_dim)
    return nn.ModuleDict({"__".join(scalars): together})
