"""A transformer in which text and video have their own weights first, and the same ones later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vdm.layers.attention import QKNorm
from vdm.layers.embeddings import (
    NoiseLevelEmbedding,
    ReadsGiven,
    join_given,
    num_input_channels,
    patchify,
    readable_fields,
    unpatchify,
)
from vdm.layers.masks import padding
from vdm.layers.norms import LayerNorm
from vdm.layers.position_rules import Positions, SharedOutRotary
from vdm.models.dit_blocks import BlockOptions, FinalLayer, init_weights
from vdm.models.dual_stream_blocks import DoubleBlock, Mask, SingleBlock, TokenRefiner
from vdm.models.joint_blocks import JointOptions
from vdm.types import Conditioning, Latents
from vdm.utils.config import configurable

FINAL = BlockOptions(modulation="per_block")
DUAL_STREAM = JointOptions(qk_norm=QKNorm("rms"), norm_eps=1e-6)
PER_GUIDANCE = 1000.0
"""What a guidance scale is multiplied by where the network is told it, as noise times are."""

Given = ReadsGiven | Literal["added", "first_frame"]


@configurable
class DualStreamDiT(nn.Module):
    """Diffusion transformer of double-stream blocks, then single-stream blocks.

    Args:
        in_channels: Channels of the latents, and of the prediction.
        dim: Width of the tokens.
        depth: Number of double-stream and of single-stream blocks.
        num_heads: Attention heads per block.
        patch_size: Latents per token along (t, h, w).
        text_dim: Width of ``cond.text``.
        pooled_dim: Width of ``cond.pooled_text``.
        refiner_depth: Blocks over the text alone, see :class:`TokenRefiner`; None for a linear map.
        embeds_guidance: Whether it is told the scale of guidance, ``cond.guidance``, which it was
            distilled from.
        given: How given latents are read: as further input channels, see
            :func:`vdm.layers.embeddings.join_given`; ``added`` for mask and latents as tokens that
            are added to the others; ``first_frame`` for one that stands in the place of the first
            frame and is taken to be free of noise.
        positions: How tokens of the clip know their places.
        options: What is inside a block.

    Source:
        Kong et al. 2024, "HunyuanVideo: A Systematic Framework For Large Video Generative Models",
        arXiv:2412.03603, section 4.2; Peng et al. 2025, "Open-Sora 2.0", arXiv:2503.09642,
        section 3.2. Both follow Black Forest Labs 2024, FLUX.1.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int = 3072,
        depth: Sequence[int] = (20, 40),
        num_heads: int = 24,
        patch_size: Sequence[int] = (1, 2, 2),
        text_dim: int = 4096,
        pooled_dim: int = 768,
        refiner_depth: int | None = 2,
        embeds_guidance: bool = True,
        given: Given = False,
        positions: Positions = SharedOutRotary(),  # noqa: B008 (frozen)
        options: JointOptions = DUAL_STREAM,
    ) -> None:
        super().__init__()
        if len(patch_size) != 3:
            raise ValueError(f"got patch_size={tuple(patch_size)}, expected (t, h, w)")
        if len(depth) != 2:
            raise ValueError(f"got depth={tuple(depth)}, expected (double, single)")
        if options.feedforward != "gelu_tanh":
            raise ValueError(f"got feedforward={options.feedforward!r}, expected 'gelu_tanh'")
        pt, ph, pw = patch_size
        if given == "first_frame" and pt != 1:
            raise ValueError(f"got patches of {pt} frames, expected 1 with given='first_frame'")
        self.patch_size = (pt, ph, pw)
        self.in_channels, self.dim, self.head_dim = in_channels, dim, dim // num_heads
        self.given, self.positions, self.options = given, positions, options
        positions.rotary((1, 1, 1), self.head_dim, torch.device("cpu"))  # raises if it cannot be
        patch = pt * ph * pw
        self.joined: ReadsGiven = False if given in ("added", "first_frame") else given  # type: ignore[assignment]
        self.patch_embed = nn.Linear(patch * num_input_channels(in_channels, self.joined), dim)
        self.given_embed = nn.Linear(patch * (in_channels + 1), dim) if given == "added" else None
        self.text_embed: nn.Module = (
            nn.Linear(text_dim, dim)
            if refiner_depth is None
            else TokenRefiner(text_dim, dim, num_heads, refiner_depth, options)
        )
        self.time_embed = NoiseLevelEmbedding(dim)
        self.guidance_embed = NoiseLevelEmbedding(dim) if embeds_guidance else None
        self.pooled_embed = nn.Sequential(
            nn.Linear(pooled_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        double, single = depth
        self.double_blocks = nn.ModuleList(
            DoubleBlock(dim, num_heads, options) for _ in range(double)
        )
        self.single_blocks = nn.ModuleList(
            SingleBlock(dim, num_heads, options) for _ in range(single)
        )
        norm = LayerNorm(dim, options.norm_eps, affine=False)
        self.final = FinalLayer(dim, patch * in_channels, FINAL, norm)
        self.reads, self.needs = readable_fields(
            ("guidance",) if embeds_guidance else (),
            text="text",
            pooled=True,
            label=False,
            given=self.joined,
            token_times=False,
        )
        if given == "added":
            self.reads |= {"given", "given_mask"}
        elif given == "first_frame":
            self.reads, self.needs = self.reads | {"given"}, self.needs | {"given"}
        init_weights(self)
        if self.given_embed is not None:  # a network learns to read it from what it could before
            nn.init.zeros_(self.given_embed.weight)

    def forward(self, x: Latents, c_noise: Float[Tensor, " b"], cond: Conditioning) -> Latents:
        """Predict the target from noisy latents.

        Args:
            x: Noisy latents.
            c_noise: Noise level in the units of training, one per sample.
            cond: What else the network is told.

        Raises:
            ValueError: If the conditioning has fields that the network does not read, or lacks ones
                that it needs, or shapes do not fit.
        """
        cond.check(type(self).__name__, self.reads, self.needs)
        if x.shape[1] != self.in_channels:
            raise ValueError(f"got {x.shape[1]} channels, expected {self.in_channels}")
        if self.given == "first_frame":
            x = torch.cat((cast("Tensor", cond.given)[:, :, :1].to(x.dtype), x[:, :, 1:]), dim=2)
        patches = patchify(join_given(x, cond, self.joined) if self.joined else x, self.patch_size)
        _, t, h, w, _ = patches.shape
        video = self.patch_embed(rearrange(patches, "b t h w p -> b (t h w) p"))
        if self.given_embed is not None:
            video = video + self.given_embed(self._given_patches(x, cond))
        levels, num_first = self._levels(c_noise, cond), h * w
        text, valid = self._text(c_noise, cond, video.dtype)
        table = self.positions.rotary((t, h, w), self.head_dim, x.device)
        table = None if table is None else table.rearrange("t h w p -> (t h w) p")
        mask: Mask | None = None
        if valid is not None:
            mask = padding(torch.cat((valid.new_ones(video.shape[:2]), valid), dim=1))
        run = _recompute if self._recomputes else _run
        for block in self.double_blocks:
            video, text = run(block, video, text, levels, table, mask, num_first)
        tokens = torch.cat((video, text), dim=1)
        for block in self.single_blocks:
            tokens = run(block, tokens, levels, table, mask, num_first)
        tokens = rearrange(tokens[:, : t * h * w], "b (t h w) d -> b t h w d", t=t, h=h, w=w)
        return unpatchify(self.final(tokens, levels[:, -1:]), self.patch_size)

    def _levels(self, c_noise: Tensor, cond: Conditioning) -> Float[Tensor, "b levels c"]:
        """The conditioning vector; ahead of it, that of a first frame without noise."""
        pooled = self.pooled_embed(cast("Tensor", cond.pooled_text))
        level = self.time_embed(c_noise)
        if self.guidance_embed is not None:
            level = level + self.guidance_embed(PER_GUIDANCE * cast("Tensor", cond.guidance))
        levels = [level + pooled]
        if self.given == "first_frame":
            levels.insert(0, self.time_embed(torch.zeros_like(c_noise)) + pooled)
        return torch.stack(levels, dim=1)

    def _text(
        self, c_noise: Tensor, cond: Conditioning, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n"] | None]:
        """Tokens of the text, and 1 where they are valid."""
        text, valid = cast("Tensor", cond.text).to(dtype), cond.text_mask
        if not isinstance(self.text_embed, TokenRefiner):
            return self.text_embed(text), valid
        mask = None if valid is None else padding(valid)
        return self.text_embed(text, c_noise, valid, mask), valid

    def _given_patches(self, x: Latents, cond: Conditioning) -> Float[Tensor, "b m p"]:
        """Mask and given latents, the mask first, as patches; zeros where nothing is given."""
        b, c, t, h, w = x.shape
        if (cond.given is None) != (cond.given_mask is None):
            raise ValueError("got one of given and given_mask, expected both or neither")
        if cond.given is None or cond.given_mask is None:
            both = x.new_zeros(b, c + 1, t, h, w)
        else:
            both = torch.cat((cond.given_mask.to(x.dtype), cond.given.to(x.dtype)), dim=1)
        return rearrange(patchify(both, self.patch_size), "b t h w p -> b (t h w) p")

    @property
    def _recomputes(self) -> bool:
        return self.options.gradient_checkpointing and self.training and torch.is_grad_enabled()


def _run(block: nn.Module, *arguments: object) -> Any:
    return block(*arguments)


def _recompute(block: nn.Module, *arguments: object) -> Any:
    return checkpoint(block, *arguments, use_reentrant=False)
