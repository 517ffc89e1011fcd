"""Published transformers as configurations of ours.

Each function takes the size, so that a tiny network has the same structure as the published one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vdm.layers.attention import QKNorm
from vdm.layers.factorization import Spatial, SpatialThenTemporal, Temporal
from vdm.layers.position_rules import (
    AddedSinCos,
    CausalSecondsRotary,
    CountedRotary,
    FittedRotary,
    Positions,
    SecondsRotary,
    SizedSpaceTurnedTime,
    SpaceAndTime,
    SpaceThenTime,
    ThirdsRotary,
)
from vdm.models.dit import VideoDiT
from vdm.models.dit_blocks import BlockOptions, CrossOptions, PictureOptions
from vdm.models.filled_dit import FilledVideoDiT
from vdm.models.joint_dit import JointDiT

LTXKind = Literal["0.9.0", "0.9.5"]
CogVideoXKind = Literal["2b", "5b", "5b-i2v", "1.5", "1.5-i2v"]
WanKind = Literal["t2v", "i2v", "flf2v", "2.2-i2v"]


@dataclass(frozen=True)
class CogVideoXSize:
    """What differs between a published CogVideoX network and a tiny one.

    Args:
        num_heads: Attention heads.
        head_dim: Their width.
        depth: Blocks.
        in_channels: Channels of the latents.
        text_dim: Width of the text's states.
        cond_dim: Width of the vector that tells the noise level.
        num_text: Tokens of a text.
        sample: Latents of a clip along (t, h, w) in training.
        patch: Latents per token along h and w.
    """

    num_heads: int = 48
    head_dim: int = 64
    depth: int = 42
    in_channels: int = 16
    text_dim: int = 4096
    cond_dim: int = 512
    num_text: int = 226
    sample: tuple[int, int, int] = (13, 60, 90)
    patch: int = 2


COGVIDEOX_2B = CogVideoXSize(num_heads=30, depth=30)
COGVIDEOX_5B = CogVideoXSize()
COGVIDEOX_15_5B = CogVideoXSize(sample=(21, 300, 300))


def cogvideox(kind: CogVideoXKind, size: CogVideoXSize) -> JointDiT:
    """A network of the CogVideoX family.

    Args:
        kind: Which one; they differ in positions, in patches, and in whether a picture is read.
        size: How large.

    Source:
        Yang et al. 2024, "CogVideoX", arXiv:2408.06072; zai-org/CogVideoX-2b and its successors.
    """
    t, h, w = size.sample
    tokens = (h // size.patch, w // size.patch)
    positions: dict[str, Positions] = {
        "2b": AddedSinCos(),
        "5b": FittedRotary(*tokens),
        "5b-i2v": FittedRotary(*tokens),
        "1.5": CountedRotary(),
        "1.5-i2v": CountedRotary(),
    }
    is_new = kind.startswith("1.5")
    return JointDiT(
        size.in_channels,
        size.num_heads * size.head_dim,
        size.depth,
        size.num_heads,
        (2 if is_new else 1, size.patch, size.patch),
        size.text_dim,
        size.cond_dim,
        positions[kind],
        learned=(size.num_text, t, *tokens) if kind == "5b-i2v" else None,
        given="latents" if kind.endswith("i2v") else False,
        offset_dim=size.cond_dim if kind == "1.5-i2v" else None,
    )


@dataclass(frozen=True)
class LatteSize:
    """What differs between the published Latte network and a tiny one.

    Args:
        num_heads: Attention heads.
        head_dim: Their width.
        depth: Pairs of blocks: one over places, one over frames.
        in_channels: Channels of the latents.
        text_dim: Width of the text's states.
        sample: Latents along a side of the frames in training.
        patch: Latents per token along h and w.
    """

    num_heads: int = 16
    head_dim: int = 72
    depth: int = 28
    in_channels: int = 4
    text_dim: int = 4096
    sample: int = 64
    patch: int = 2


def latte(size: LatteSize = LatteSize()) -> VideoDiT:
    """A network of the kind of Latte-1.

    Args:
        size: How large.

    Source:
        Ma et al. 2024, "Latte: Latent Diffusion Transformer for Video Generation",
        arXiv:2401.03048, variant 1; maxin-cn/Latte-1.
    """
    return VideoDiT(
        size.in_channels,
        size.num_heads * size.head_dim,
        2 * size.depth,
        size.num_heads,
        (1, size.patch, size.patch),
        [Spatial(), Temporal()],
        size.text_dim,
        frame_conditioning=False,
        block=BlockOptions(
            qk_norm=None,
            cross=CrossOptions(norm=False, in_temporal=False, projects_text=True),
            # A scale for frames beyond 512 pixels, as in its image model.
            positions=SpaceThenTime(size.sample // size.patch, max(size.sample // 64, 1)),
            predicts_variance=True,
        ),
    )


@dataclass(frozen=True)
class STDiTSize:
    """What differs between the published networks of Open-Sora 1.0, and tiny ones.

    Args:
        num_heads: Attention heads.
        head_dim: Their width.
        depth: Blocks.
        in_channels: Channels of the latents.
        text_dim: Width of the text's states.
        num_text: Tokens of a text.
        space_scale: What places are divided by.
        time_scale: What frames are divided by.
        patch: Latents per token along h and w.
    """

    num_heads: int = 16
    head_dim: int = 72
    depth: int = 28
    in_channels: int = 4
    text_dim: int = 4096
    num_text: int = 120
    space_scale: float = 1.0
    time_scale: float = 1.0
    patch: int = 2


def stdit(size: STDiTSize = STDiTSize()) -> VideoDiT:
    """A network of the kind of Open-Sora 1.0, STDiT.

    Args:
        size: How large.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404; hpcai-tech/Open-Sora.
    """
    return VideoDiT(
        size.in_channels,
        size.num_heads * size.head_dim,
        size.depth,
        size.num_heads,
        (1, size.patch, size.patch),
        [SpatialThenTemporal()],
        size.text_dim,
        frame_conditioning=False,
        block=BlockOptions(
            qk_norm=None,
            cross=CrossOptions(norm=False, projects_text=True, num_null=size.num_text),
            positions=SpaceAndTime(size.space_scale, size.time_scale),
            predicts_variance=True,
        ),
    )


@dataclass(frozen=True)
class STDiT3Size:
    """What differs between the published networks of Open-Sora 1.2, and tiny ones.

    Args:
        num_heads: Attention heads.
        head_dim: Their width.
        depth: Pairs of blocks: one over places, one over frames.
        in_channels: Channels of the latents.
        text_dim: Width of the text's states.
        num_text: Tokens of a text.
        side: Side in pixels of a square whose places are counted one by one.
        patch: Latents per token along h and w.
    """

    num_heads: int = 16
    head_dim: int = 72
    depth: int = 28
    in_channels: int = 4
    text_dim: int = 4096
    num_text: int = 300
    side: int = 512
    patch: int = 2


STDIT3_3B = STDiT3Size(num_heads=26)


def stdit3(size: STDiT3Size = STDiT3Size()) -> FilledVideoDiT:
    """A network of the kind of Open-Sora 1.2, STDiT3.

    Frames without noise are shown to it by their noise level.

    Args:
        size: How large.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404; hpcai-tech/OpenSora-STDiT-v3.
    """
    return FilledVideoDiT(
        size.in_channels,
        size.num_heads * size.head_dim,
        2 * size.depth,
        size.num_heads,
        (1, size.patch, size.patch),
        [Spatial(), Temporal()],
        size.text_dim,
        scalars=["fps"],
        frame_conditioning=False,
        block=BlockOptions(
            qk_norm=QKNorm("rms"),
            cross=CrossOptions(
                norm=False, projects_text=True, qk_norm=False, num_null=size.num_text
            ),
            positions=SizedSpaceTurnedTime(size.side),
            predicts_variance=True,
        ),
    )


@dataclass(frozen=True)
class WanSize:
    """What differs between published Wan networks, and tiny ones.

    Args:
        num_heads: Attention heads.
        head_dim: Their width.
        depth: Blocks.
        hidden: Width between the maps of a feed-forward network.
        in_channels: Channels of the latents.
        text_dim: Width of the text's states.
        patch_size: Latents per token along (t, h, w).
        image_dim: Width of an image encoder's states.
        num_image: Tokens of two pictures, where each has a learned vector.
    """

    num_heads: int = 40
    head_dim: int = 128
    depth: int = 40
    hidden: int = 13824
    in_channels: int = 16
    text_dim: int = 4096
    patch_size: tuple[int, int, int] = (1, 2, 2)
    image_dim: int = 1280
    num_image: int = 514


WAN_1_3B = WanSize(num_heads=12, depth=30, hidden=8960)
WAN_14B = WanSize()
WAN_5B = WanSize(num_heads=24, depth=30, hidden=14336, in_channels=48)


def wan(size: WanSize = WAN_14B, kind: WanKind = "t2v") -> VideoDiT:
    """A network of Wan 2.1 or 2.2, of which the large ones of the latter are two of these.

    That of 5 B parameters is shown given frames as latents without noise, at noise time 0.

    Args:
        size: How large.
        kind: What it is told besides words: nothing; given frames beside the noise, and the first
            in tokens too, or the first and the last; or, in 2.2, given frames without tokens.

    Source:
        Wan team 2025, arXiv:2503.20314, sections 4.2 and 5.1; Wan-AI/Wan2.1-T2V-14B and its
        relatives.
    """
    dim = size.num_heads * size.head_dim
    pictures = {
        "i2v": PictureOptions(size.image_dim),
        "flf2v": PictureOptions(size.image_dim, size.num_image),
    }
    return VideoDiT(
        size.in_channels,
        dim,
        size.depth,
        size.num_heads,
        size.patch_size,
        text_dim=size.text_dim,
        frame_conditioning=False if kind == "t2v" else "frame_masks",
        block=BlockOptions(
            mlp_ratio=size.hidden / dim,
            qk_norm=QKNorm("rms", "full"),
            cross=CrossOptions(projects_text=True, picture=pictures.get(kind)),
            positions=ThirdsRotary(),
        ),
    )


@dataclass(frozen=True)
class LTXSize:
    """What differs between published LTX-Video networks, and tiny ones.

    Args:
        num_heads: Attention heads.
        head_dim: Their width.
        depth: Blocks.
        in_channels: Channels of the latents.
        text_dim: Width of the text's states.
    """

    num_heads: int = 32
    head_dim: int = 64
    depth: int = 28
    in_channels: int = 128
    text_dim: int = 4096


LTX_2B = LTXSize()
LTX_13B = LTXSize(head_dim=128, depth=48)


def ltx_video(size: LTXSize = LTX_2B, kind: LTXKind = "0.9.0") -> VideoDiT:
    """A network of LTX-Video: of latents so small that each is a token.

    It is shown given frames as latents without noise, at noise time 0.

    Args:
        size: How large.
        kind: The version from which on tokens know their places so.

    Source:
        HaCohen et al. 2024, "LTX-Video: Realtime Video Latent Diffusion", arXiv:2501.00103,
        section 2.2; Lightricks/LTX-Video and its successors.
    """
    rule = CausalSecondsRotary if kind == "0.9.5" else SecondsRotary
    return VideoDiT(
        size.in_channels,
        size.num_heads * size.head_dim,
        size.depth,
        size.num_heads,
        (1, 1, 1),
        text_dim=size.text_dim,
        frame_conditioning=False,
        block=BlockOptions(
            norm="rms",
            qk_norm=QKNorm("rms", "full", 1e-5),
            cross=CrossOptions(norm=False, projects_text=True),
            positions=rule(size.num_heads),
            final_norm="layer",
        ),
    )
