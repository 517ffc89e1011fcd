"""SparseCtrl: a second way down that sees a few given frames and steers a U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.embeddings import NoiseLevelEmbedding
from vdm.layers.frames import FrameConv
from vdm.models.unet3d import Layer, UNet3D, way_down
from vdm.models.unet3d_blocks import Place, Signals, Stage, UNetOptions, check_choice
from vdm.models.unet3d_temporal import TemporalCoupling
from vdm.types import Conditioning, Latents
from vdm.utils.config import configurable

Sees = Literal["latents", "pixels"]
Control = list[Tensor]
"""What is added to every skip connection, and last to the middle."""


class PixelEmbedding(nn.Module):
    """Convolutions from pixels down to the size of latents.

    Args:
        in_channels: Channels of the pixels and their mask.
        out_channels: Channels of the result.
        widths: Channels between; every one but the first halves the size.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = FrameConv(in_channels, widths[0])
        self.convs = nn.ModuleList()
        for width, wider in pairwise(widths):
            self.convs.append(FrameConv(width, width))
            self.convs.append(FrameConv(width, wider, stride=2))
        self.last = FrameConv(widths[-1], out_channels)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """Embed every frame."""
        x = F.silu(self.first(x))
        for conv in self.convs:
            x = F.silu(conv(x))
        return self.last(x)


@configurable
class SparseControl(nn.Module):
    """From a few given frames to what is added inside a U-Net.

    The noisy latents are not seen, so that frames without a picture get no noise from them: zeros
    stand in their place, of which the first convolution leaves its offset.

    Args:
        in_channels: Channels of the latents.
        sees: Whether pictures are given as latents or as pixels.
        given_channels: Their channels, the mask aside.
        widths: Channels of every level, from the finest; those of the U-Net.
        depth: Layers of every level.
        attention: Blocks of the spatial transformers of every level and of the middle.
        temporal: Couplings in time on the way down.
        text_dim: Width of ``cond.text``.
        pixel_widths: Channels of the convolutions that pixels go through.
        block: What is inside the blocks.

    Source:
        Guo et al. 2023, "SparseCtrl", arXiv:2311.16933, sec. 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        sees: Sees,
        given_channels: int,
        widths: Sequence[int],
        depth: int,
        attention: Sequence[int],
        temporal: Sequence[TemporalCoupling],
        text_dim: int,
        pixel_widths: Sequence[int] = (16, 32, 96, 256),
        block: UNetOptions = UNetOptions(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        check_choice("sees", sees, get_args(Sees))
        self.in_channels, self.sees, self.given_channels = in_channels, sees, given_channels
        dim = 4 * widths[0]
        self.embed = FrameConv(in_channels, widths[0])
        self.time_embed = NoiseLevelEmbedding(dim, widths[0])
        joined = given_channels + 1
        self.given_embed: nn.Module = FrameConv(joined, widths[0])
        if sees == "pixels":
            self.given_embed = PixelEmbedding(joined, widths[0], pixel_widths)

        def place(stage: Stage, index: int) -> Place:
            blocks = attention[-1] if stage == "middle" else attention[index]
            return Place(stage, widths[index], dim, text_dim, blocks > 0, block)

        self.down, skips = way_down(place, widths, depth, attention, temporal)
        middle = place("middle", len(widths) - 1)
        self.middle = nn.ModuleList(
            Layer(middle, widths[-1], attention[-1], (), is_exit) for is_exit in (False, True)
        )
        self.to_skips = nn.ModuleList(FrameConv(width, width, kernel_size=1) for width in skips)
        self.to_middle = FrameConv(widths[-1], widths[-1], kernel_size=1)
        for conv in (*self.to_skips, self.to_middle):
            conv.close()  # type: ignore[operator]

    def forward(self, x: Latents, c_noise: Float[Tensor, " b"], cond: Conditioning) -> Control:
        """What is added inside the U-Net.

        Args:
            x: Noisy latents, of which the size alone counts.
            c_noise: Noise level.
            cond: ``text``, and ``given`` with ``given_mask``, zero where nothing is given; without
                them nothing is.
        """
        given, mask = cond.given, cond.given_mask
        if given is None or mask is None:
            b, _, t, h, w = x.shape
            side = 1 if self.sees == "latents" else 2 ** (len(self.given_embed.convs) // 2)  # type: ignore[arg-type]
            given = x.new_zeros(b, self.given_channels, t, h * side, w * side)
            mask = given[:, :1]
        level = F.silu(self.time_embed(c_noise)).unsqueeze(1)
        signals = Signals(level.to(x.dtype), cond.text)
        joined = torch.cat((given.to(x.dtype), mask.to(x.dtype)), dim=1)
        h = self.embed(torch.zeros_like(x)) + self.given_embed(joined)
        kept = [h]
        for one in self.down:
            for layer in one.layers:  # type: ignore[union-attr]
                h = layer(h, signals)
                kept.append(h)
            if one.resize is not None:
                h = one.resize(h)  # type: ignore[operator]
                kept.append(h)
            for module in one.after:  # type: ignore[union-attr]
                h = module(h, signals)
        for layer in self.middle:
            h = layer(h, signals)
        control = [conv(x) for conv, x in zip(self.to_skips, kept, strict=True)]
        return [*control, self.to_middle(h)]


@configurable
class ControlledUNet(nn.Module):
    """A U-Net that another network steers.

    Args:
        unet: The U-Net.
        control: What steers it.
        scale: How much.
    """

    patch_size = (1, 1, 1)

    def __init__(self, unet: UNet3D, control: SparseControl, scale: float = 1.0) -> None:
        super().__init__()
        self.unet, self.control, self.scale = unet, control, scale
        self.in_channels, self.needs = unet.in_channels, unet.needs
        self.reads = unet.reads | {"given", "given_mask"}
        self.is_causal = self.is_endless = False

    def forward(self, x: Latents, c_noise: Float[Tensor, " b"], cond: Conditioning) -> Latents:
        """Predict the target from noisy latents.

        Raises:
            ValueError: If the conditioning has fields that are not read, or lacks ones that are
                needed, or shapes do not fit.
        """
        cond.check(type(self).__name__, self.reads, self.needs)
        control = [self.scale * more for more in self.control(x, c_noise, cond)]
        return self.unet(x, c_noise, cond.replace(given=None, given_mask=None), control)
