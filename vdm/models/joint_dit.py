"""A transformer that denoises video with text and patches of latents in one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vdm.layers.embeddings import (
    NoiseLevelEmbedding,
    ReadsGiven,
    join_given,
    num_input_channels,
    patchify,
    readable_fields,
    unpatchify,
)
from vdm.layers.norms import LayerNorm
from vdm.layers.position_rules import AddedSinCos, CountedRotary, Positions
from vdm.layers.positions import Axes
from vdm.models.dit_blocks import BlockOptions, FinalLayer, init_weights
from vdm.models.joint_blocks import JointOptions, SharedBlock
from vdm.types import Conditioning, Latents
from vdm.utils.config import configurable

FINAL = BlockOptions(modulation="per_block")
OFFSET = 2.0
"""What CogVideoX 1.5 tells its image-to-video network in every call, under the name ``ofs``."""


class LearnedPositions(nn.Module):
    """One learned vector for every token of a text and of a clip of one size.

    A clip of another length has sines and cosines instead, from which the vectors were learned.

    Args:
        num_text: Tokens of a text.
        grid: Tokens of a clip along (t, h, w).
        dim: Width of the tokens.

    Source:
        Yang et al. 2024, "CogVideoX", arXiv:2408.06072, the released 5B-I2V model.
    """

    def __init__(self, num_text: int, grid: Axes, dim: int) -> None:
        super().__init__()
        self.num_text, self.grid, self.rule = num_text, grid, AddedSinCos()
        t, h, w = grid
        self.table = nn.Parameter(torch.empty(num_text + t * h * w, dim))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Start as sines and cosines for the clip, and as nothing for the text."""
        self.table[: self.num_text] = 0
        places = self.rule.table(self.grid, self.table.shape[1], self.table.device)
        self.table[self.num_text :] = rearrange(places, "t h w d -> (t h w) d")

    def forward(
        self, grid: Axes, num_text: int
    ) -> tuple[Float[Tensor, "m dim"], Float[Tensor, "n dim"]]:
        """What is added to the tokens of a clip, and to those of a text.

        Raises:
            ValueError: If frames have another size, or the text another length.
        """
        if grid[1:] != self.grid[1:]:
            raise ValueError(
                f"got frames of {grid[1]} x {grid[2]} tokens, expected {self.grid[1]} x "
                f"{self.grid[2]}: the network has learned positions"
            )
        if num_text != self.num_text:
            raise ValueError(f"got a text of {num_text} tokens, expected {self.num_text}")
        text, video = self.table[:num_text], self.table[num_text:]
        if grid[0] == self.grid[0]:
            return video, text
        places = self.rule.table(grid, self.table.shape[1], self.table.device)
        return rearrange(places, "t h w d -> (t h w) d"), torch.zeros_like(text)


@configurable
class JointDiT(nn.Module):
    """Diffusion transformer in which text and video attend to each other as one sequence.

    Args:
        in_channels: Channels of the latents, and of the prediction.
        dim: Width of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads per block.
        patch_size: Latents per token along (t, h, w).
        text_dim: Width of ``cond.text``.
        cond_dim: Width of the vector that tells the noise level.
        positions: How tokens of the clip know their places.
        learned: Tokens (text, t, h, w) of the one size of clip that has learned positions besides.
        given: Whether ``cond.given`` is read as further input channels, see
            :func:`vdm.layers.embeddings.join_given`.
        offset_dim: Width of the sinusoid of a constant that the network is told besides, as the
            1.5 image-to-video model is; None without.
        options: What is inside a block.

    Source:
        Yang et al. 2024, "CogVideoX: Text-to-Video Diffusion Models with An Expert Transformer",
        arXiv:2408.06072, section 2.2.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int = 320,
        depth: int = 8,
        num_heads: int = 5,
        patch_size: Sequence[int] = (1, 2, 2),
        text_dim: int = 4096,
        cond_dim: int = 512,
        positions: Positions = CountedRotary(),  # noqa: B008 (frozen)
        learned: Sequence[int] | None = None,
        given: ReadsGiven = False,
        offset_dim: int | None = None,
        options: JointOptions = JointOptions(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        if len(patch_size) != 3:
            raise ValueError(f"got patch_size={tuple(patch_size)}, expected (t, h, w)")
        pt, ph, pw = patch_size
        self.patch_size = (pt, ph, pw)
        self.in_channels, self.dim, self.head_dim = in_channels, dim, dim // num_heads
        self.positions, self.given, self.options = positions, given, options
        patch = pt * ph * pw
        self.patch_embed = nn.Linear(patch * num_input_channels(in_channels, given), dim)
        self.text_embed = nn.Linear(text_dim, dim)
        self.time_embed = NoiseLevelEmbedding(cond_dim, sinusoid_dim=dim)
        self.offset_embed = (
            None if offset_dim is None else NoiseLevelEmbedding(cond_dim, offset_dim)
        )
        self.learned = None
        if learned is not None:
            num_text, t, h, w = learned
            self.learned = LearnedPositions(num_text, (t, h, w), dim)
        self.blocks = nn.ModuleList(
            SharedBlock(dim, num_heads, cond_dim, options) for _ in range(depth)
        )
        self.norm = LayerNorm(dim, options.norm_eps)
        norm = LayerNorm(dim, options.norm_eps)
        self.final = FinalLayer(dim, patch * in_channels, FINAL, norm, cond_dim)
        self.reads, self.needs = readable_fields(
            (), text="text", pooled=False, label=False, given=given, token_times=False
        )
        self.reads -= {"text_mask"}  # tokens behind the end of a text are read like all others
        init_weights(self)

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
        patches = patchify(join_given(x, cond, self.given), self.patch_size)
        _, t, h, w, _ = patches.shape
        video = self.patch_embed(rearrange(patches, "b t h w p -> b (t h w) p"))
        text = self.text_embed(cast("Tensor", cond.text).to(video.dtype))
        video, text = self._placed(video, text, (t, h, w))
        table = self.positions.rotary((t, h, w), self.head_dim, x.device)
        table = None if table is None else table.rearrange("t h w p -> (t h w) p")
        level = self._level(c_noise)
        recompute = (
            self.options.gradient_checkpointing and self.training and torch.is_grad_enabled()
        )
        for block in self.blocks:
            if recompute:
                video, text = checkpoint(block, video, text, level, table, use_reentrant=False)
            else:
                video, text = block(video, text, level, table)
        tokens = rearrange(self.norm(video), "b (t h w) d -> b t h w d", t=t, h=h, w=w)
        return unpatchify(self.final(tokens, level), self.patch_size)

    def _placed(self, video: Tensor, text: Tensor, grid: Axes) -> tuple[Tensor, Tensor]:
        """Tokens with their places added, where the network adds them."""
        places = self.positions.added(grid, self.dim, video.device)
        if places is not None:
            video = video + rearrange(places, "t h w d -> (t h w) d").to(video.dtype)
        if self.learned is None:
            return video, text
        for_video, for_text = self.learned(grid, text.shape[1])
        return video + for_video.to(video.dtype), text + for_text.to(text.dtype)

    def _level(self, c_noise: Tensor) -> Float[Tensor, "b 1 c"]:
        """The conditioning vector."""
        level = self.time_embed(c_noise)
        if self.offset_embed is not None:
            level = level + self.offset_embed(torch.full_like(c_noise, OFFSET))
        return rearrange(level, "b c -> b 1 c")
