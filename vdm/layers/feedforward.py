"""What a block does to each token by itself."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.fused import Approximate, linear_gelu
from vdm.layers.pieces import times

FeedForwardKind = Literal["gelu", "gelu_tanh", "swiglu", "geglu"]


class MLP(nn.Module):
    """Two linear maps with a GELU between them.

    Args:
        dim: Width of the tokens.
        hidden: Width between the maps.
        approximate: ``none`` for the exact GELU, ``tanh`` for its usual approximation.
        bias: Whether the maps have offsets.
        out_dim: Width of the result; that of the tokens if not given.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        approximate: Approximate = "tanh",
        bias: bool = True,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, out_dim or dim, bias=bias)
        self.approximate = approximate

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d_out"]:
        """Each token by itself."""
        return self.fc2(linear_gelu(self.fc1, x, self.approximate))


class GatedMLP(nn.Module):
    """``fc2(value(x) * act(gate(x)))``: SwiGLU with SiLU, GEGLU with the exact GELU.

    Args:
        dim: Width of the tokens.
        hidden: Width between the maps.
        activation: ``silu`` or ``gelu``.
        bias: Whether the maps have offsets.

    Source:
        Shazeer 2020, "GLU Variants Improve Transformer", arXiv:2002.05202, eq. 6.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        activation: Literal["silu", "gelu"] = "silu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.value = nn.Linear(dim, hidden, bias=bias)
        self.gate = nn.Linear(dim, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, dim, bias=bias)
        self.activation = activation

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Each token by itself."""
        gate = F.silu(self.gate(x)) if self.activation == "silu" else F.gelu(self.gate(x))
        return self.fc2(times(gate, self.value(x)))


def make_feedforward(
    kind: FeedForwardKind, dim: int, ratio: float = 4.0, bias: bool = True
) -> MLP | GatedMLP:
    """A feed-forward network; gated ones are made narrower so that all kinds cost the same.

    Args:
        kind: Which one.
        dim: Width of the tokens.
        ratio: Hidden width of the plain kinds, in units of ``dim``.
        bias: Whether its maps have offsets.

    Raises:
        ValueError: If the kind is unknown.
    """
    hidden = round(ratio * dim)  # exact, where the ratio is that of two whole numbers
    gated_hidden = -(-2 * hidden // 3 // 8) * 8  # two thirds, on a multiple of eight
    if kind == "gelu":
        return MLP(dim, hidden, "none", bias)
    if kind == "gelu_tanh":
        return MLP(dim, hidden, "tanh", bias)
    if kind == "swiglu":
        return GatedMLP(dim, gated_hidden, "silu", bias)
    if kind == "geglu":
        return GatedMLP(dim, gated_hidden, "gelu", bias)
    raise ValueError(f"got feed-forward {kind!r}, expected gelu, gelu_tanh, swiglu or geglu")
