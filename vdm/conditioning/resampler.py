"""A picture as a few tokens of the width of words: image transformer, then learned queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from vdm.conditioning.clip_image import ClipImageEncoder
from vdm.layers.attention import Attention
from vdm.layers.feedforward import MLP
from vdm.layers.norms import LayerNorm
from vdm.utils.config import configurable

EPS = 1e-5


@dataclass(frozen=True)
class ResamplerSize:
    """How large a resampler is: that of VideoCrafter1 where nothing is said.

    Args:
        dim: Width inside.
        out_dim: Width of the tokens that it makes.
        num_tokens: How many it makes.
        depth: Blocks.
        num_heads: Attention heads.
        head_dim: Width of a head; heads need not fill the layer.
    """

    dim: int = 1024
    out_dim: int = 1024
    num_tokens: int = 16
    depth: int = 4
    num_heads: int = 12
    head_dim: int = 64


class ResamplerBlock(nn.Module):
    """Queries attend to features and to themselves, then a feed-forward; both are added.

    Args:
        size: Of the resampler.
    """

    def __init__(self, size: ResamplerSize) -> None:
        super().__init__()
        dim = size.dim
        self.norm_features = LayerNorm(dim, EPS)
        self.norm_queries = LayerNorm(dim, EPS)
        self.attention = Attention(
            dim, size.num_heads, head_dim=size.head_dim, qkv_bias=False, out_bias=False
        )
        self.norm_out = LayerNorm(dim, EPS)
        self.feedforward = MLP(dim, 4 * dim, "none", bias=False)

    def forward(
        self, queries: Float[Tensor, "b m d"], features: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b m d"]:
        """The queries, having looked."""
        normed = self.norm_queries(queries)
        seen = torch.cat((self.norm_features(features), normed), dim=1)
        queries = queries + self.attention(normed, seen)
        return queries + self.feedforward(self.norm_out(queries))


class Resampler(nn.Module):
    """As many tokens as there are learned queries, out of any number of features.

    Args:
        in_dim: Width of the features.
        size: How large.

    Source:
        Alayrac et al. 2022, "Flamingo", arXiv:2204.14198, sec. 2.1, as in IP-Adapter Plus; Chen et
        al. 2023, "VideoCrafter1", arXiv:2310.19512.
    """

    def __init__(self, in_dim: int, size: ResamplerSize = ResamplerSize()) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(1, size.num_tokens, size.dim))
        nn.init.normal_(self.queries, std=size.dim**-0.5)
        self.proj_in = nn.Linear(in_dim, size.dim)
        self.blocks = nn.ModuleList(ResamplerBlock(size) for _ in range(size.depth))
        self.proj_out = nn.Linear(size.dim, size.out_dim)
        self.norm = LayerNorm(size.out_dim, EPS)

    def forward(self, features: Float[Tensor, "b n c"]) -> Float[Tensor, "b m d"]:
        """The tokens."""
        features = self.proj_in(features)
        tokens = repeat(self.queries, "1 m d -> b m d", b=len(features))
        for block in self.blocks:
            tokens = block(tokens, features)
        return self.norm(self.proj_out(tokens))


@configurable
class PictureTokenEncoder(nn.Module):
    """CLIP's image transformer, and a resampler of all that it says of the parts of a picture.

    Args:
        config: Settings of ``transformers.CLIPVisionConfig``.
        size: How large the resampler is.

    Source:
        Chen et al. 2023, "VideoCrafter1", arXiv:2310.19512.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        size: ResamplerSize = ResamplerSize(),
    ) -> None:
        super().__init__()
        self.tower = ClipImageEncoder(config)
        self.resampler = Resampler(self.tower.width, size)

    def encode_image(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b m d"]:
        """Some tokens for each picture.

        Args:
            pictures: In [-1, 1], of any size.
        """
        return self.resampler(self.tower.encode_parts(pictures))
