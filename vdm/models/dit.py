"""A transformer that denoises video: patches of latents as tokens over space and time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vdm.layers import masks
from vdm.layers.attention import KVCache
from vdm.layers.embeddings import (
    LabelEmbedding,
    NoiseLevelEmbedding,
    PictureEmbedding,
    ReadsGiven,
    Scalar,
    add_told,
    join_given,
    make_pooled_embed,
    noise_levels,
    num_input_channels,
    patchify,
    readable_fields,
    unpatchify,
)
from vdm.layers.factorization import Factorization, Joint, Spatial, SpatialThenTemporal
from vdm.layers.feedforward import MLP
from vdm.layers.positions import RotaryTable, axial_rope, axial_sincos, default_axes_dims
from vdm.models.conv_shell import ConvShell, ShellOptions
from vdm.models.dit_blocks import BlockOptions, DiTBlock, FinalLayer, init_weights
from vdm.models.two_way_block import TwoWayBlock
from vdm.types import Conditioning, Latents
from vdm.utils.config import configurable

TIME_SCALE = 1000.0  # of ``Conditioning.token_times`` where no ``Denoiser`` has translated them
ROPE_THETA = 256.0  # as in HunyuanVideo, Kong et al. 2024, arXiv:2412.03603: latent grids are small


@dataclass(frozen=True)
class DiTCache:
    """What a causal network remembers of the frames that it has seen.

    Args:
        blocks: Keys and values for each block; None where a block looks at single frames only.
        num_frames: Frames of tokens seen so far, those dropped from the cache included.
    """

    blocks: tuple[KVCache | None, ...]
    num_frames: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors held."""
        return sum(block.num_bytes for block in self.blocks if block is not None)


@dataclass(frozen=True)
class _Inputs:
    """What all blocks share in one call."""

    tokens: Tensor
    entered: Tensor | None
    level: Tensor
    shared: Tensor
    table: RotaryTable | None
    text: Tensor | None
    text_mask: Tensor | None
    image: Tensor | None


@configurable
class VideoDiT(nn.Module):
    """Spacetime-patch diffusion transformer.

    Args:
        in_channels: Channels of the latents, and of the prediction.
        dim: Width of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads per block.
        patch_size: Latents per token along (t, h, w).
        factorization: Which tokens attend together, block by block; a list shorter than
            ``depth`` is repeated. ``[Joint()]``, the default, is full attention;
            ``[Spatial(), Temporal()]`` alternates.
        text_dim: Width of ``cond.text`` for cross-attention; None for a network without.
        pooled_dim: Width of ``cond.pooled_text``, which is added to the noise level; None without.
        num_labels: Classes of ``cond.label``; the label ``num_labels``, or no label, means "none".
            None for a network without.
        scalars: Further numbers that the network is told, e.g. ``fps``.
        frame_conditioning: Read ``cond.given`` and ``cond.given_mask`` as further input channels,
            see :func:`vdm.layers.embeddings.join_given`. Without them no frame is given.
        block: What is inside a block.
        shell: Convolutions around the blocks, at the size of the latents; None without.

    Raises:
        ValueError: If the sizes do not fit together.

    Source:
        Peebles & Xie 2023, "Scalable Diffusion Models with Transformers", arXiv:2212.09748.
    """

    null_text: Tensor | None
    """States ``(n, text_dim)`` that were learned in place of a text which says nothing, for whoever
    calls the network: they are handed in as any text's are. None if there are none."""

    def __init__(
        self,
        in_channels: int,
        dim: int = 320,
        depth: int = 8,
        num_heads: int = 5,
        patch_size: Sequence[int] = (1, 2, 2),
        factorization: Sequence[Factorization] | None = None,
        text_dim: int | None = None,
        pooled_dim: int | None = None,
        num_labels: int | None = None,
        scalars: Sequence[Scalar] = (),
        frame_conditioning: ReadsGiven = True,
        block: BlockOptions = BlockOptions(),  # noqa: B008 (frozen)
        shell: ShellOptions | None = None,
    ) -> None:
        super().__init__()
        if factorization is None:
            factorization = [Joint()]
        if not factorization:
            raise ValueError("got no factorization, expected at least one, e.g. [Joint()]")
        self.in_channels, self.dim = in_channels, dim
        if len(patch_size) != 3:
            raise ValueError(f"got patch_size={tuple(patch_size)}, expected (t, h, w)")
        pt, ph, pw = patch_size
        self.patch_size = (pt, ph, pw)
        self.frame_conditioning, self.scalars = frame_conditioning, tuple(scalars)
        self.options = block
        patch = pt * ph * pw
        inputs = num_input_channels(in_channels, frame_conditioning)
        outputs = in_channels * (2 if block.predicts_variance else 1)
        self.shell: ConvShell | None = None
        if shell is not None:
            if pt > 1:
                raise ValueError(f"got a shell around patches of {pt} frames, expected 1")
            self.shell = ConvShell(inputs, outputs, dim, shell)
            inputs = outputs = shell.width
        self.patch_embed = nn.Linear(patch * inputs, dim)
        self.time_embed = NoiseLevelEmbedding(dim)
        self.scalar_embeds = nn.ModuleDict(
            {name: NoiseLevelEmbedding(dim) for name in self.scalars}
        )
        self.label_embed = None if num_labels is None else LabelEmbedding(num_labels, dim)
        self.pooled_embed = make_pooled_embed(pooled_dim, dim)
        self.text_embed, context_dim = None, text_dim
        if text_dim is not None and block.cross.projects_text:
            self.text_embed, context_dim = MLP(text_dim, dim, out_dim=dim), dim
        self.image_embed, picture = None, block.cross.picture
        self.image_dim = None if picture is None else picture.width
        if picture is not None:
            self.image_embed = PictureEmbedding(picture.width, dim, picture.num_tokens)
        length = block.cross.num_null
        null = None if length is None or text_dim is None else torch.zeros(length, text_dim)
        self.register_buffer("null_text", null)
        self.shared_modulation = nn.Linear(dim, 6 * dim) if block.modulation == "single" else None

        def reads_text(kind: Factorization) -> bool:
            return block.cross.in_temporal or isinstance(kind, Spatial)

        kinds = [factorization[index % len(factorization)] for index in range(depth)]
        self.blocks = nn.ModuleList()
        for kind in kinds:
            context = context_dim if reads_text(kind) else None
            if isinstance(kind, SpatialThenTemporal):
                is_first = not len(self.blocks)
                made: DiTBlock = TwoWayBlock(dim, num_heads, kind, context, block, is_first)
            else:
                made = DiTBlock(dim, num_heads, kind, context, block)
            self.blocks.append(made)
        self.num_heads = num_heads
        if block.positions is None:
            self.axes_dims = default_axes_dims(dim // num_heads)
        reads_fps = block.positions is not None and block.positions.reads_fps
        if reads_fps and (other := [kind for kind in kinds if not isinstance(kind, Joint)]):
            raise ValueError(
                f"got {other[0]} with {block.positions}, whose rotations are not the same for all "
                "clips, expected Joint()"
            )
        self.final = FinalLayer(dim, patch * outputs, block)
        self.is_causal = all(kind.is_causal for kind in kinds)
        self.is_endless = (
            self.is_causal
            and block.time_positions == "rotary"
            and all(kind.window is not None for kind in kinds)
        )
        """Whether far into a clip everything is as in training, so that it may go on for ever."""
        self.reads, self.needs = readable_fields(
            self.scalars,
            text=None if text_dim is None else "text" if picture is None else "both",
            pooled=pooled_dim is not None,
            label=num_labels is not None,
            given=frame_conditioning,
        )
        self.reads |= {"fps"} if reads_fps else set()
        self.needs |= {"fps"} if reads_fps else set()
        if block.positions is not None and block.positions.reads_starts:
            self.reads |= {"starts"}
        if block.positions is not None and block.positions.reads_size:
            self.reads, self.needs = self.reads | {"size"}, self.needs | {"size"}
        self._init_weights()

    @property
    def multiples(self) -> tuple[int, int, int]:
        """Latents along (t, h, w) of which clips are to have a multiple."""
        return self.patch_size

    def _init_weights(self) -> None:
        """As :func:`init_weights`, the shared projection closed as well, and convolutions."""
        init_weights(self)
        if self.shell is not None:
            self.shell.init_weights()
        if self.shared_modulation is not None:
            nn.init.zeros_(self.shared_modulation.weight)
            nn.init.zeros_(self.shared_modulation.bias)

    def forward(
        self, x: Latents, c_noise: Float[Tensor, " b *frames"], cond: Conditioning
    ) -> Latents:
        """Predict the target from noisy latents.

        Args:
            x: Noisy latents.
            c_noise: Noise level in the units of training, ``1000 t`` for noise times ``t`` of a
                flow model: one per sample, or one per latent frame ``(b, t)`` where it varies.
            cond: What else the network is told. ``cond.token_times`` are taken as ``t`` of a flow
                model and take precedence over ``c_noise``.

        Raises:
            ValueError: If the conditioning has fields that the network does not read, or lacks ones
                that it needs, or shapes do not fit.
        """
        return self.with_variance(x, c_noise, cond)[:, : self.in_channels]

    def with_variance(
        self, x: Latents, c_noise: Float[Tensor, " b *frames"], cond: Conditioning
    ) -> Float[Tensor, "b c_out t h w"]:
        """The prediction and, behind its channels, what a network says of the variance of a step.

        Args:
            x: Noisy latents.
            c_noise: Noise level, as in :meth:`forward`.
            cond: What else the network is told.

        Source:
            Nichol & Dhariwal 2021, arXiv:2102.09672, section 3.1.
        """
        inputs = self._prepare(x, c_noise, cond, frame_offset=0)
        tokens = inputs.tokens
        recompute = (
            self.options.gradient_checkpointing and self.training and torch.is_grad_enabled()
        )
        for index, block in enumerate(self.blocks):
            if index:
                tokens = self._placed(tokens, index)
            shared = (inputs.shared, inputs.table, inputs.text, inputs.text_mask, inputs.image)
            if recompute:
                tokens = checkpoint(block, tokens, *shared, use_reentrant=False)
            else:
                tokens = block(tokens, *shared)
        return self._finish(tokens, inputs)

    def step(
        self,
        x: Latents,
        c_noise: Float[Tensor, " b *frames"],
        cond: Conditioning,
        cache: DiTCache | None = None,
    ) -> tuple[Latents, DiTCache]:
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
            ValueError: If some block looks at later frames.
        """
        if not self.is_causal:
            raise ValueError("got a network that sees later frames, expected causal factorizations")
        if self.options.positions is not None:
            raise ValueError(f"got {self.options.positions}, expected positions that go on: None")
        start = 0 if cache is None else cache.num_frames
        inputs = self._prepare(x, c_noise, cond, frame_offset=start)
        tokens, kept = inputs.tokens, []
        caches = [None] * len(self.blocks) if cache is None else cache.blocks
        blocks = cast("Iterable[DiTBlock]", self.blocks)
        for block, old in zip(blocks, caches, strict=True):
            tokens, new = block.step(
                tokens,
                inputs.shared,
                inputs.table,
                inputs.text,
                inputs.text_mask,
                inputs.image,
                old,
            )
            kept.append(new)
        pred = self._finish(tokens, inputs)[:, : self.in_channels]
        return pred, DiTCache(tuple(kept), start + tokens.shape[1])

    def _prepare(
        self, x: Tensor, c_noise: Tensor, cond: Conditioning, frame_offset: int
    ) -> _Inputs:
        """Tokens, conditioning vectors and positions."""
        cond.check(type(self).__name__, self.reads, self.needs)
        if x.shape[1] != self.in_channels:
            raise ValueError(f"got {x.shape[1]} channels, expected {self.in_channels}")
        joined, entered = join_given(x, cond, self.frame_conditioning), None
        level = self._level(c_noise, cond, x.shape[2] // self.patch_size[0])
        if self.shell is not None:
            joined = entered = self.shell.enter(joined, level)
        tokens = self.patch_embed(patchify(joined, self.patch_size))
        grid = (tokens.shape[1], tokens.shape[2], tokens.shape[3])
        table: RotaryTable | None
        if self.options.positions is not None:
            tokens = self._placed(tokens, 0)
            if cond.size is not None:
                places = self.options.positions.added_for(cond.size, grid, self.dim)
                tokens = tokens if places is None else tokens + places.to(tokens.dtype)
            head_dim = self.dim // self.num_heads
            told = {} if cond.starts is None else {"starts": cond.starts}
            if cond.starts is not None and cond.starts.shape[1] != grid[0]:
                raise ValueError(f"got starts of {cond.starts.shape[1]} frames, expected {grid[0]}")
            table = self.options.positions.rotary(grid, head_dim, x.device, cond.fps, **told)
        else:
            # Rotary positions alone do not tell where the borders are.
            dims = default_axes_dims(self.dim)
            if self.options.time_positions == "absolute":
                places = axial_sincos(grid, dims, frame_offset=frame_offset, device=x.device)
            else:  # every frame is the first
                places = axial_sincos((1, *grid[1:]), dims, device=x.device)
            tokens = tokens + places.to(tokens.dtype)
            table = axial_rope(grid, self.axes_dims, ROPE_THETA, frame_offset, device=x.device)
        shared = level
        if self.shared_modulation is not None:
            shared = self.shared_modulation(F.silu(level))
        text_mask = None if cond.text_mask is None else masks.padding(cond.text_mask)
        text = cond.text
        if self.text_embed is not None and text is not None:
            text = self.text_embed(text)
        image = None if self.image_embed is None else self.image_embed(cond.image)
        return _Inputs(tokens, entered, level, shared, table, text, text_mask, image)

    def _placed(self, tokens: Tensor, block: int) -> Tensor:
        """Tokens with their places added, where that is done ahead of this block."""
        rule, grid = self.options.positions, (tokens.shape[1], tokens.shape[2], tokens.shape[3])
        places = None if rule is None else rule.added(grid, self.dim, tokens.device, block)
        return tokens if places is None else tokens + places.to(tokens.dtype)

    def _finish(self, tokens: Tensor, inputs: _Inputs) -> Float[Tensor, "b c_out t h w"]:
        """The prediction, and what else the last layer says."""
        out = unpatchify(self.final(tokens, inputs.level), self.patch_size)
        if self.shell is None or inputs.entered is None:
            return out
        return self.shell.leave(out, inputs.entered, inputs.level)

    def _level(
        self, c_noise: Tensor, cond: Conditioning, num_frames: int
    ) -> Float[Tensor, "b t d"]:
        """One conditioning vector per sample (t = 1), or per frame where noise times vary."""
        levels = noise_levels(c_noise, cond, num_frames, TIME_SCALE, self.patch_size[0])
        level = self.time_embed(levels)
        return add_told(level, cond, self.scalar_embeds, self.pooled_embed, self.label_embed)
