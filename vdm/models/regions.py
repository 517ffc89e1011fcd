"""Which parts of a network are compiled: those of which it has many alike."""

from __future__ import annotations

import einops
import torch
from torch import nn

from vdm.models.dit_blocks import DiTBlock
from vdm.models.joint_blocks import JointBlock
from vdm.models.unet3d import Layer

REGIONS = (DiTBlock, JointBlock, Layer)


def keep_einops_whole() -> None:
    """Let the compiler take changes of axes as single operations from now on.

    It would read einops line by line otherwise, which is four fifths of the time that it reads a
    network.
    """
    for operation in (einops.rearrange, einops.reduce, einops.repeat, einops.einsum):
        torch.compiler.allow_in_graph(operation)


def compile_regions(network: nn.Module) -> None:
    """Compile the repeated layers of a network one by one, or the whole of one without any.

    Layers alike share one compilation, which is then done in seconds whatever the depth.

    Args:
        network: Compiled in place; the names of its weights stay.
    """
    keep_einops_whole()
    regions: list[nn.Module] = [
        module for module in network.modules() if isinstance(module, REGIONS)
    ]
    for region in regions or [network]:
        region.compile()
