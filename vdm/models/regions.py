"""Which parts of a network are compiled: those of which it has many alike."""

from __future__ import annotations

from torch import nn

from vdm.models.dit_blocks import DiTBlock
from vdm.models.joint_blocks import JointBlock
from vdm.models.unet3d import Layer

REGIONS = (DiTBlock, JointBlock, Layer)


def compile_regions(network: nn.Module) -> None:
    """Compile the repeated layers of a network one by one, or the whole of one without any.

    Layers alike share one compilation, which is then done in seconds whatever the depth.

    Args:
        network: Compiled in place; the names of its weights stay.
    """
    regions: list[nn.Module] = [
        module for module in network.modules() if isinstance(module, REGIONS)
    ]
    for region in regions or [network]:
        region.compile()
