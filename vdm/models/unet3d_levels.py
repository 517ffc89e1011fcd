"""Couplings in time around the spatial transformers and at the end of levels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.frames import FrameConv
from vdm.layers.temporal import Additive
from vdm.models.unet3d_blocks import Epsilons, Place, ResBlock, Signals
from vdm.models.unet3d_temporal import (
    ConvStack,
    ResBlockInTime,
    TemporalConvStack,
    TemporalCoupling,
    TemporalResBlock,
)

Volume = Float[Tensor, "b c t h w"]


@dataclass(frozen=True)
class StackBeforeTransformer(TemporalConvStack):
    """The stack of convolutions stands before every spatial transformer, and nowhere else.

    Source:
        Wang et al. 2023, "LaVie", arXiv:2309.15103, sec. 3.3; its inference code.
    """

    def after_resblock(self, place: Place) -> None:
        """Nothing."""

    def before_transformer(self, place: Place) -> nn.Module:
        """The stack."""
        return ConvStack(place, self)


@dataclass(frozen=True)
class ResBlocksAfterLevel(TemporalCoupling):
    """After every level and the middle, a residual block over time, then one of every frame.

    Both see statistics of the clip or of a frame as the network's own blocks do.

    Args:
        kernel_sizes: Odd numbers of frames that the two convolutions over time see.
        eps: Added to the variances.

    Source:
        Wang et al. 2023, "LaVie", arXiv:2309.15103, sec. 3.3; its inference code.
    """

    kernel_sizes: tuple[int, int] = (5, 3)
    eps: float = 1e-6

    @property
    def is_causal(self) -> bool:
        """Its convolutions see later frames."""
        return False

    def after_level(self, place: Place) -> nn.Module:
        """The two blocks."""
        return LevelInTime(place, self)


class LevelInTime(nn.Module):
    """The module of :class:`ResBlocksAfterLevel`: what it adds goes through a map from zero.

    Args:
        place: Where it sits.
        config: What it is.
    """

    def __init__(self, place: Place, config: ResBlocksAfterLevel) -> None:
        super().__init__()
        eps = Epsilons(*[config.eps] * 4)  # of residual blocks, wherever they are
        place = replace(place, options=replace(place.options, eps=eps))
        first, second = config.kernel_sizes
        in_time = TemporalResBlock(
            first,
            statistics=place.options.statistics,
            blend=Additive(),
            second_kernel_size=second,
        )
        self.in_time = ResBlockInTime(place, in_time)
        self.in_space = ResBlock(place, place.channels)
        self.shift = FrameConv(place.channels, place.channels, 1)

    def close(self) -> None:
        """Start as the identity."""
        self.shift.close()

    def forward(self, x: Volume, signals: Signals) -> Volume:
        """Couple the frames."""
        return x + self.shift(self.in_space(self.in_time(x, signals), signals))
