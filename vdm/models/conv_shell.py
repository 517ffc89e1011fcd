"""Convolutions around a transformer: they draw at the size of the latents, it decides what."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.frames import FrameConv
from vdm.models.unet3d_blocks import FinalLayer, Place, ResBlock, Signals, UNetOptions


@dataclass(frozen=True)
class ShellOptions:
    """Residual blocks of every latent frame before patches are cut and after they are put together.

    Args:
        width: Channels.
        before: Blocks on the way in.
        after: Blocks on the way out, which also see what came in.
        num_groups: Groups of the normalisations.
    """

    width: int = 48
    before: int = 1
    after: int = 2
    num_groups: int = 16


class ConvShell(nn.Module):
    """The way in and the way out, at the size of the latents.

    Tokens of coarse patches must otherwise draw every outline at every offset inside a patch by
    heart; a convolution draws it the same wherever it is.

    Args:
        in_channels: Channels of latents and what is given beside them.
        out_channels: Channels of the prediction.
        level_dim: Width of the noise level's vector.
        options: Widths and depths.

    Source:
        Hoogeboom et al. 2023, "simple diffusion", arXiv:2301.11093: a transformer inside
        the convolutional levels of a U-Net; here one level, and patches for its change of size.
    """

    def __init__(
        self, in_channels: int, out_channels: int, level_dim: int, options: ShellOptions
    ) -> None:
        super().__init__()
        width = options.width
        inside = UNetOptions(num_groups=options.num_groups)

        def block(channels: int) -> ResBlock:
            return ResBlock(Place("middle", width, level_dim, None, False, inside), channels)

        self.embed = FrameConv(in_channels, width)
        self.before = nn.ModuleList(block(width) for _ in range(options.before))
        self.after = nn.ModuleList(block(width if i else 2 * width) for i in range(options.after))
        self.final = FinalLayer(width, out_channels, inside)

    def init_weights(self) -> None:
        """Unit gain; blocks that pass on what they get, and a prediction of zero."""
        if self.embed.weight.is_meta:  # nothing to draw
            return
        for module in self.modules():
            if isinstance(module, FrameConv):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for module in (*self.before, *self.after, self.final):
            module.close()  # type: ignore[operator]

    def enter(
        self, x: Float[Tensor, "b c_in t h w"], level: Float[Tensor, "b frames d"]
    ) -> Float[Tensor, "b width t h w"]:
        """What patches are cut from."""
        h = self.embed(x.contiguous(memory_format=torch.channels_last_3d))
        return self._run(self.before, h, level)

    def leave(
        self,
        h: Float[Tensor, "b width t h w"],
        entered: Float[Tensor, "b width t h w"],
        level: Float[Tensor, "b frames d"],
    ) -> Float[Tensor, "b c_out t h w"]:
        """The prediction, from what the patches have become and what they were cut from."""
        h = torch.cat((h, entered), dim=1).contiguous(memory_format=torch.channels_last_3d)
        return self.final(self._run(self.after, h, level)).contiguous()

    @staticmethod
    def _run(blocks: nn.ModuleList, h: Tensor, level: Tensor) -> Tensor:
        signals = Signals(F.silu(level))
        for block in blocks:
            h = block(h, signals)
        return h
