"""A linear map and the GELU behind it: the only file that calls a kernel for both."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.pieces import may_overwrite

Approximate = Literal["none", "tanh"]

MIN_FUSED = 2**16
"""Numbers from which on one kernel is faster than two."""


def linear_gelu(
    layer: nn.Linear, x: Float[Tensor, "... d"], approximate: Approximate
) -> Float[Tensor, "... d_out"]:
    """``gelu(layer(x))``.

    In float32 on a CPU, where no gradient needs what is in between, oneDNN applies the GELU by tanh
    to products that are still in registers. It does not for the exact GELU, which gains nothing.

    Args:
        layer: The linear map.
        x: What it takes.
        approximate: ``none`` for the exact GELU, ``tanh`` for its usual approximation.
    """
    if approximate == "tanh" and _is_fused(layer, x):
        weight, bias = layer.weight, layer.bias
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh")
    return F.gelu(layer(x), approximate=approximate)


def _is_fused(layer: nn.Linear, x: Tensor) -> bool:
    """Whether there is a kernel, and nobody has put anything else in the place of the layer."""
    return (
        may_overwrite()
        and torch.backends.mkldnn.is_available()
        and x.device.type == layer.weight.device.type == "cpu"
        and x.dtype == layer.weight.dtype == torch.float32
        and x.numel() // layer.in_features * layer.out_features >= MIN_FUSED
        and type(layer) is nn.Linear
        and type(x) is Tensor
        and type(layer.weight) is nn.Parameter
        and not torch.is_autocast_enabled("cpu")
        and not (layer._forward_hooks or layer._forward_pre_hooks)
    )
