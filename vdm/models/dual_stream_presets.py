"""Published transformers of double-stream and single-stream blocks as configurations of ours.

Each function takes the size, so that a tiny network has the same structure as the published one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vdm.layers.position_rules import SharedOutRotary
from vdm.models.dual_stream_dit import DualStreamDiT, Given

HunyuanVideoKind = Literal["t2v", "i2v-concat", "i2v-replace"]
GIVEN: dict[str, Given] = {"t2v": False, "i2v-concat": True, "i2v-replace": "first_frame"}


@dataclass(frozen=True)
class DualStreamSize:
    """What differs between a published network and a tiny one.

    Args:
        num_heads: Attention heads.
        head_dim: Their width.
        depth: Double-stream and single-stream blocks.
        in_channels: Channels of the latents.
        text_dim: Width of the text's states.
        pooled_dim: Width of the vector of a whole text.
        axes: Channels of a head that tell a token's place along (t, h, w).
        patch_size: Latents per token along (t, h, w).
        refiner_depth: Blocks over the text alone.
    """

    num_heads: int = 24
    head_dim: int = 128
    depth: tuple[int, int] = (20, 40)
    in_channels: int = 16
    text_dim: int = 4096
    pooled_dim: int = 768
    axes: tuple[int, int, int] = (16, 56, 56)
    patch_size: tuple[int, int, int] = (1, 2, 2)
    refiner_depth: int = 2


HUNYUAN_VIDEO = DualStreamSize()
OPEN_SORA_2 = DualStreamSize(depth=(19, 38))
OPEN_SORA_2_DEEP = DualStreamSize(depth=(19, 38), in_channels=128, patch_size=(1, 1, 1))
"""For an autoencoder of 32 x 32 pixels per latent."""


def hunyuan_video(
    kind: HunyuanVideoKind = "t2v",
    size: DualStreamSize = HUNYUAN_VIDEO,
    embeds_guidance: bool | None = None,
) -> DualStreamDiT:
    """A network of HunyuanVideo.

    Args:
        kind: From words; from a picture beside the noise of the first frame; from a picture in its
            place.
        size: How large.
        embeds_guidance: Whether it is told the scale of guidance; as published if None.

    Source:
        Kong et al. 2024, "HunyuanVideo", arXiv:2412.03603; tencent/HunyuanVideo and
        tencent/HunyuanVideo-I2V.
    """
    return DualStreamDiT(
        size.in_channels,
        size.num_heads * size.head_dim,
        size.depth,
        size.num_heads,
        size.patch_size,
        size.text_dim,
        size.pooled_dim,
        size.refiner_depth,
        kind != "i2v-concat" if embeds_guidance is None else embeds_guidance,
        GIVEN[kind],
        SharedOutRotary(size.axes),
    )


def open_sora_2(size: DualStreamSize = OPEN_SORA_2) -> DualStreamDiT:
    """A network of Open-Sora 2.0, which makes clips from words and from given frames.

    Args:
        size: How large.

    Source:
        Peng et al. 2025, "Open-Sora 2.0", arXiv:2503.09642; hpcai-tech/Open-Sora-v2.
    """
    return DualStreamDiT(
        size.in_channels,
        size.num_heads * size.head_dim,
        size.depth,
        size.num_heads,
        size.patch_size,
        size.text_dim,
        size.pooled_dim,
        None,
        False,
        "added",
        SharedOutRotary(size.axes, 10_000.0, "half"),
    )
