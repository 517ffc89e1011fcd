"""Published U-Nets as configurations of the one in :mod:`vdm.models.unet3d`.

Each function takes the size, so that a tiny network has the same structure as the published one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vdm.layers.embeddings import ReadsGiven, Scalar
from vdm.layers.factorization import Factorization, FirstAndPrevious, Spatial
from vdm.layers.norms import Statistics
from vdm.layers.temporal import Learned
from vdm.models.unet3d import LevelOptions, UNet3D
from vdm.models.unet3d_blocks import Context, Epsilons, Heads, UNetOptions
from vdm.models.unet3d_levels import ResBlocksAfterLevel, StackBeforeTransformer
from vdm.models.unet3d_temporal import (
    InterleavedBlocks,
    TemporalAttention,
    TemporalConvStack,
    TemporalCoupling,
    TemporalResBlock,
    TemporalTransformer,
)
from vdm.models.unet3d_transformer import FramePositions

Profile = Literal["diffusers", "original"]
"""Whose numbers, where the authors' code and diffusers disagree."""

GEGLU_RATIO = 6.0  # two thirds of it, 4, is the hidden width of published feed-forwards


@dataclass(frozen=True)
class Size:
    """What differs between a published network and a tiny one.

    Args:
        heads: Attention heads.
        context_dim: Width of the text's (or image's) states.
        widths: Channels of every level.
        depth: Layers of every level.
        attention: Blocks of the spatial transformers of every level and of the middle.
        num_groups: Groups of the group normalisations.
        motion_heads: Attention heads of motion modules.
        scalar_dim: Channels of the sinusoid of every number.
        pooled_dim: Width of the vector of a whole text, which is read with the size of pictures;
            None for a network that reads neither.
    """

    heads: Heads
    context_dim: int
    widths: Sequence[int] = (320, 640, 1280, 1280)
    depth: int = 2
    attention: Sequence[int] = (1, 1, 1, 0, 1)
    num_groups: int = 32
    motion_heads: int = 8
    scalar_dim: int = 256
    pooled_dim: int | None = None


SD15 = Size(Heads(number=8), 768)
UPSCALER = Size(Heads(number=8), 1024, (256, 512, 512, 1024), attention=(0, 1, 1, 1, 1))
SDXL = Size(Heads(dim=64), 2048, (320, 640, 1280), attention=(0, 2, 10, 10), pooled_dim=1280)
"""Stable Diffusion XL: Podell et al. 2023, arXiv:2307.01952, table 1."""
OPEN_CLIP = Size(Heads(dim=64), 1024)


def stable_diffusion_15(
    size: Size = SD15,
    temporal: Sequence[TemporalCoupling] = (),
    statistics: Statistics = "frame",
    frame_conditioning: bool = False,
) -> UNet3D:
    """The image model, which denoises every frame by itself unless it is coupled; XL in its size.

    Args:
        size: How large.
        temporal: Couplings in time.
        statistics: What normalisations of residual blocks see.
        frame_conditioning: Read given latents and their mask as further input channels.

    Source:
        Rombach et al. 2022, arXiv:2112.10752; runwayml/stable-diffusion-v1-5.
    """
    options = _options(size, statistics=statistics)
    return _network(size, temporal, options, frame_conditioning=frame_conditioning)


def animatediff(
    size: Size = SD15,
    version: Literal["v1", "v2", "v3"] = "v2",
    profile: Profile = "diffusers",
    frame_conditioning: bool = False,
) -> UNet3D:
    """Stable Diffusion 1.5, or XL in its size, with motion modules.

    Args:
        size: How large.
        version: Of the motion modules; the second has one in the middle, too.
        profile: ``diffusers`` normalises motion modules over the clip and residual blocks frame by
            frame. ``original`` normalises motion modules frame by frame, and residual blocks of the
            first version over the clip.
        frame_conditioning: Read the latents of a picture and how like it frames are to be: PIA.

    Source:
        Guo et al. 2023, "AnimateDiff", arXiv:2307.04725; its inference code. Zhang et al. 2023,
        "PIA", arXiv:2312.13964.
    """
    motion = TemporalTransformer(
        num_attentions=2,
        heads=Heads(number=size.motion_heads),
        statistics="clip" if profile == "diffusers" else "frame",
        stages=("down", "middle", "up") if version == "v2" else ("down", "up"),
        needs_attention=False,
    )
    over_clip = profile == "original" and version == "v1"
    return stable_diffusion_15(size, [motion], "clip" if over_clip else "frame", frame_conditioning)


def modelscope(
    size: Size = OPEN_CLIP,
    scalars: Sequence[Scalar] = (),
    context: Context = "text",
) -> UNet3D:
    """ModelScope text-to-video, and ZeroScope.

    Args:
        size: How large.
        scalars: Numbers that the network is told.
        context: What its cross-attention reads.

    Source:
        Wang et al. 2023, "ModelScope Text-to-Video Technical Report", arXiv:2308.06571.
    """
    first, after = _modelscope_transformers(size, "none")
    stack = TemporalConvStack(depth=4, statistics="clip")
    return _network(size, [first, stack, after], _options(size, context=context), scalars)


def _modelscope_transformers(
    size: Size, positions: FramePositions
) -> tuple[TemporalTransformer, TemporalTransformer]:
    """The one before the levels, which has its own number of heads, and those in them."""
    heads = Heads(number=8, dim=size.heads.dim)
    after = TemporalTransformer(num_attentions=2, positions=positions, statistics="clip")
    return replace(after, heads=heads, stages=("input",)), after


def videocrafter2(size: Size = OPEN_CLIP) -> UNet3D:
    """VideoCrafter2 text-to-video: ModelScope's network that is told the frame rate.

    Source:
        Chen et al. 2024, "VideoCrafter2", arXiv:2401.09047.
    """
    return modelscope(size, scalars=["fps"])


def videocrafter1(size: Size = OPEN_CLIP, scalars: Sequence[Scalar] = ()) -> UNet3D:
    """VideoCrafter1 text-to-video: frames meet in temporal transformers with relative positions.

    Args:
        size: How large.
        scalars: Numbers that the network is told: none for 320 x 512 pixels, the frame rate for
            576 x 1024.

    Source:
        Chen et al. 2023, "VideoCrafter1", arXiv:2310.19512.
    """
    return _network(size, _modelscope_transformers(size, "relative"), _options(size), scalars)


def videocrafter1_image(size: Size = OPEN_CLIP) -> UNet3D:
    """VideoCrafter1 image-to-video: the network of VideoCrafter2 that also reads a picture.

    Source:
        Chen et al. 2023, "VideoCrafter1", arXiv:2310.19512.
    """
    return modelscope(size, scalars=["fps"], context="both")


def stable_video_diffusion(size: Size = OPEN_CLIP, profile: Profile = "diffusers") -> UNet3D:
    """Stable Video Diffusion, image to video.

    Args:
        size: How large.
        profile: Whose eps in residual blocks: diffusers has 1e-6 next to attention and on the way
            up, the authors have 1e-5 everywhere.

    Source:
        Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, appendix D.
    """
    eps = Epsilons(attention_down=1e-6, up=1e-6) if profile == "diffusers" else Epsilons()
    options = _options(size, context="image", eps=eps)
    level = LevelOptions(
        scalars="together", scalar_sinusoid_dim=size.scalar_dim, time_scale=None
    )  # its noise levels are log(sigma) / 4
    temporal = [
        TemporalResBlock(statistics="clip", blend=Learned()),
        InterleavedBlocks(blend=Learned()),
    ]
    scalars: Sequence[Scalar] = ["fps", "motion_bucket", "noise_aug"]
    return _network(size, temporal, options, scalars, "latents", level)


def lavie(size: Size = SD15) -> UNet3D:
    """LaVie's base model, text to video.

    Its files hold the 16 frequencies of its rotary positions, too, which are no parameters here.

    Source:
        Wang et al. 2023, "LaVie", arXiv:2309.15103, sec. 3.1.
    """
    return _network(size, [TemporalAttention(has_bias=True)], _options(size, statistics="clip"))


def lavie_interpolation(size: Size = SD15) -> UNet3D:
    """LaVie's interpolation: four channels more hold the frames to go between, each repeated.

    Frames attend to the first one and to the one before.

    Source:
        Wang et al. 2023, "LaVie", arXiv:2309.15103, sec. 3.2; its inference code.
    """
    options = _options(size, statistics="clip", spatial=FirstAndPrevious())
    motion = TemporalAttention(positions="none", is_last=True)
    return _network(size, [motion], options, frame_conditioning="latents")


def lavie_upscale(size: Size = UPSCALER) -> UNet3D:
    """LaVie's super-resolution: Stable Diffusion's upscaler, which sees a noisy smaller clip.

    It is told the noise on it as an entry of a table. Tokens attend to each other in the innermost
    level and the middle alone, which has twice the width of the others.

    Source:
        Wang et al. 2023, "LaVie", arXiv:2309.15103, sec. 3.3; its inference code.
    """
    innermost = len(size.widths) - 1
    options = _options(size, statistics="clip", only_context=tuple(range(innermost)))
    stack = StackBeforeTransformer(depth=2, statistics="clip", eps=1e-6)
    temporal = [stack, TemporalAttention(has_bias=True), ResBlocksAfterLevel()]
    level = LevelOptions(scalars="table")
    return _network(size, temporal, options, ["noise_aug"], "pixels", level)


def _options(
    size: Size,
    statistics: Statistics = "frame",
    spatial: Factorization = Spatial(),  # noqa: B008 (frozen)
    context: Context = "text",
    eps: Epsilons = Epsilons(),  # noqa: B008 (frozen)
    only_context: Sequence[int] = (),
) -> UNetOptions:
    return UNetOptions(
        heads=size.heads,
        num_groups=size.num_groups,
        statistics=statistics,
        spatial=spatial,
        mlp_ratio=GEGLU_RATIO,
        qk_norm=None,
        context=context,
        eps=eps,
        only_context=only_context,
    )


def _network(
    size: Size,
    temporal: Sequence[TemporalCoupling],
    options: UNetOptions,
    scalars: Sequence[Scalar] = (),
    frame_conditioning: ReadsGiven = False,
    level: LevelOptions = LevelOptions(),  # noqa: B008 (frozen)
) -> UNet3D:
    return UNet3D(
        4,
        size.widths,
        size.depth,
        size.attention,
        temporal,
        text_dim=size.context_dim,
        pooled_dim=size.pooled_dim,
        scalars=scalars,
        frame_conditioning=frame_conditioning,
        level=level
        if size.pooled_dim is None
        else replace(level, pooled="with_size", scalar_sinusoid_dim=size.scalar_dim),
        block=options,
    )
