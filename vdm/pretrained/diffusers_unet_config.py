"""diffusers' ``config.json`` of a U-Net as one of ours, and back; what cannot be is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

import torch

from vdm.models import unet3d_presets as presets
from vdm.models.unet3d import UNet3D
from vdm.models.unet3d_blocks import Heads
from vdm.models.unet3d_temporal import TemporalTransformer
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.diffusers_unet import (
    ANIMATEDIFF,
    ANIMATEDIFF_XL,
    MODELSCOPE,
    PIA,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_XL,
    SVD,
    Family,
)
from vdm.utils.config import describe

Profile = presets.Profile


def check_profile(profile: str) -> Profile:
    """A profile, if it is one.

    Raises:
        ValueError: If it is not.
    """
    if profile not in get_args(Profile):
        raise ValueError(f"got profile={profile!r}, expected one of {', '.join(get_args(Profile))}")
    return cast("Profile", profile)


def unet_from_config(
    data: Mapping[str, Any],
    where: str = "config.json",
    motion: Mapping[str, Any] | None = None,
    profile: str = "diffusers",
) -> tuple[UNet3D, Family]:
    """A U-Net with random weights, and the family that its files belong to.

    Args:
        data: What ``config.json`` holds.
        where: The file, for messages.
        motion: Settings of a motion adapter, for an image model.
        profile: Whose numerics, where references disagree.

    Raises:
        ValueError: If the class is unknown, or a setting asks for what ours cannot do.
    """
    whose = check_profile(profile)
    kind = str(data.get("_class_name"))
    if kind not in BUILDERS:
        expected = ", ".join(BUILDERS)
        raise ValueError(f"{where}: got class {kind}, expected one of {expected}")
    if motion is not None and kind != "UNet2DConditionModel":
        raise ValueError(f"{where}: got a motion adapter for {kind}, expected an image model")
    config = ForeignConfig(data, where)
    if motion is not None:
        built = _animated(config, ForeignConfig(motion, "motion adapter"), whose)
    else:
        built = BUILDERS[kind](config, whose)
    config.close()
    return built


def config_from_unet(network: UNet3D) -> tuple[dict[str, Any], Family]:
    """The settings with which diffusers builds the same network, and its family.

    Raises:
        ValueError: If diffusers has no class for it.
    """
    for kind in BUILDERS:
        config = _settings(network, kind)
        for profile in get_args(Profile):
            try:
                with torch.device("meta"):
                    built, family = unet_from_config(config, profile=profile)
            except ValueError:
                continue
            if describe(built) == describe(network):
                return config, family
    raise ValueError(
        "diffusers has no class for this UNet3D: its couplings in time or its blocks are of no "
        "published kind; expected layout='vdm'"
    )


def _settings(network: UNet3D, kind: str) -> dict[str, Any]:
    """What a class of diffusers would have to be told, if it is the right one."""
    arguments: Any = network._init_args
    widths, attention = list(arguments["widths"]), list(arguments["attention"])
    suffix = {"UNetSpatioTemporalConditionModel": "SpatioTemporal", "UNetMotionModel": "Motion"}
    suffix |= {"UNet3DConditionModel": "3D", "UNet2DConditionModel": "2D"}
    blocks = [f"{'CrossAttn' if count else ''}%sBlock{suffix[kind]}" for count in attention[:-1]]
    numbers = [network.options.heads.of(width)[0] for width in widths]
    common = {
        "_class_name": kind,
        "in_channels": network.embed.in_channels,
        "out_channels": network.in_channels,
        "block_out_channels": widths,
        "layers_per_block": arguments["depth"],
        "cross_attention_dim": arguments["text_dim"],
        "down_block_types": [block % "Down" for block in blocks],
        "up_block_types": [block % "Up" for block in reversed(blocks)],
    }
    groups = {"norm_num_groups": network.options.num_groups}
    layers: dict[str, Any] = {"transformer_layers_per_block": attention[-1]}
    motion = [one for one in arguments["temporal"] if isinstance(one, TemporalTransformer)]
    same = numbers[0] if len(set(numbers)) == 1 else numbers
    if network.sized_embed is not None:
        layers = {"transformer_layers_per_block": [count or 1 for count in attention[:-1]]}
        layers |= {"use_linear_projection": True, "addition_embed_type": "text_time"}
        scalar_dim = network.level_options.scalar_sinusoid_dim
        layers["addition_time_embed_dim"] = scalar_dim
        joined = network.sized_embed.fc1.in_features
        layers["projection_class_embeddings_input_dim"] = joined
    if kind == "UNetSpatioTemporalConditionModel":
        scalar_dim = network.level_options.scalar_sinusoid_dim
        sums = {"addition_time_embed_dim": scalar_dim}
        sums["projection_class_embeddings_input_dim"] = 3 * scalar_dim
        return common | layers | sums | {"num_attention_heads": numbers}
    if kind == "UNet3DConditionModel":
        return common | groups | {"attention_head_dim": widths[0] // numbers[0]}
    if kind == "UNet2DConditionModel":
        return common | groups | layers | {"attention_head_dim": same}
    heads = motion[0].heads if motion else None
    return (
        common
        | groups
        | layers
        | {
            "num_attention_heads": same,
            "motion_num_attention_heads": numbers[0] if heads is None else heads.number,
            "use_motion_mid_block": bool(motion) and "middle" in motion[0].stages,
        }
    )


def _svd(config: ForeignConfig, profile: Profile) -> tuple[UNet3D, Family]:
    config.expect(in_channels=8, out_channels=4)
    config.take("num_frames", 25)  # how many the pipeline makes
    widths = config.take("block_out_channels", (320, 640, 1280, 1280))
    scalar_dim = config.take("addition_time_embed_dim", 256)
    config.expect(projection_class_embeddings_input_dim=3 * scalar_dim)
    numbers = _each(config.take("num_attention_heads", (5, 10, 20, 20)), widths)
    size = _size(config, widths, _heads(config, numbers, widths), 1024, scalar_dim=scalar_dim)
    if max(size.attention) > 1:
        raise ValueError(f"{config.where}: got several blocks per transformer, expected 1")
    return presets.stable_video_diffusion(size, profile), SVD


def _modelscope(config: ForeignConfig, profile: Profile) -> tuple[UNet3D, Family]:
    config.expect(in_channels=4, out_channels=4, num_attention_heads=None, time_cond_proj_dim=None)
    widths = config.take("block_out_channels", (320, 640, 1280, 1280))
    heads = Heads(dim=config.take("attention_head_dim", 64))  # the class swaps the two names
    size = _size(config, widths, heads, 1024, num_groups=_common(config))
    return presets.modelscope(size), MODELSCOPE


def _image(config: ForeignConfig, profile: Profile) -> tuple[UNet3D, Family]:
    size = _plain_size(config)
    family = STABLE_DIFFUSION if size.pooled_dim is None else STABLE_DIFFUSION_XL
    return presets.stable_diffusion_15(size), family


def _motion(config: ForeignConfig, profile: Profile) -> tuple[UNet3D, Family]:
    widths = config.take("block_out_channels", (320, 640, 1280, 1280))
    has_picture = _reads_picture(config, "in_channels", 4)
    config.expect(
        out_channels=4,
        temporal_transformer_layers_per_block=1,
        temporal_transformer_layers_per_mid_block=1,
        mid_block_layers=1,
    )
    config.take("motion_max_seq_length", 32)  # tables of positions are made as long as needed
    heads = _heads_of(config, config.take("num_attention_heads", 8), widths)
    config.expect(
        reverse_transformer_layers_per_block=None,
        reverse_temporal_transformer_layers_per_block=None,
        reverse_motion_num_attention_heads=None,
        transformer_layers_per_mid_block=None,
        time_cond_proj_dim=None,
    )
    motion_heads = config.take("motion_num_attention_heads", 8)
    version = "v2" if config.take("use_motion_mid_block", True) else "v3"
    more = {"num_groups": _common(config), "motion_heads": motion_heads} | _told(config)
    size = _size(config, widths, heads, 1280, **more)
    return _animatediff(size, version, profile, has_picture)


def _animated(
    config: ForeignConfig, motion: ForeignConfig, profile: Profile
) -> tuple[UNet3D, Family]:
    """An image model with the modules of an adapter."""
    size = _plain_size(config)
    motion.expect(
        block_out_channels=size.widths,
        motion_layers_per_block=size.depth,
        motion_transformer_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_transformer_layers_per_mid_block=1,
        motion_norm_num_groups=size.num_groups,
    )
    has_picture = _reads_picture(motion, "conv_in_channels", None)
    length = motion.take("motion_max_seq_length", 32)
    has_middle = motion.take("use_motion_mid_block", True)
    heads = motion.take("motion_num_attention_heads", 8)
    motion.close()
    version = "v2" if has_middle else "v1" if length == 24 else "v3"
    return _animatediff(replace(size, motion_heads=heads), version, profile, has_picture)


def _animatediff(
    size: presets.Size, version: Any, profile: Profile, has_picture: bool
) -> tuple[UNet3D, Family]:
    family = ANIMATEDIFF if size.pooled_dim is None else ANIMATEDIFF_XL
    network = presets.animatediff(size, version, profile, has_picture)
    return network, PIA if has_picture else family


def _reads_picture(config: ForeignConfig, name: str, usual: int | None) -> bool:
    """Whether latents of a picture and a mask are read beside the noise, as in PIA.

    Raises:
        ValueError: If the channels are neither usual nor those of PIA.
    """
    channels = config.take(name, usual)
    if channels not in (usual, 9):
        raise ValueError(f"{config.where}: got {name}={channels}, expected {usual} or 9")
    return channels == 9


BUILDERS = {
    "UNetSpatioTemporalConditionModel": _svd,
    "UNet3DConditionModel": _modelscope,
    "UNet2DConditionModel": _image,
    "UNetMotionModel": _motion,
}


def image_size(data: Mapping[str, Any], where: str = "config.json") -> presets.Size:
    """How large an image model of the Stable Diffusion 1 kind is.

    Args:
        data: What ``config.json`` holds.
        where: The file, for messages.

    Raises:
        ValueError: If it is of another kind.
    """
    config = _image_config(data, where)
    config.expect(addition_embed_type=None)
    size = _plain_size(config)
    config.close()
    return size


def upscaler_size(data: Mapping[str, Any], where: str = "config.json") -> presets.Size:
    """How large Stable Diffusion's upscaler is, likewise.

    Args:
        data: What ``config.json`` holds.
        where: The file, for messages.

    Raises:
        ValueError: If it is of another kind.
    """
    config = _image_config(data, where)
    inner = len(config.take("block_out_channels", (256, 512, 512, 1024))) - 1
    config.expect(only_cross_attention=[True] * inner + [False], num_class_embeds=1000)
    config.expect(use_linear_projection=True, in_channels=7)
    config.take("max_noise_level", 350)  # of what callers may ask for
    size = _image_size(config)
    config.close()
    return size


def _image_config(data: Mapping[str, Any], where: str) -> ForeignConfig:
    if (kind := str(data.get("_class_name"))) != "UNet2DConditionModel":
        raise ValueError(f"{where}: got class {kind}, expected UNet2DConditionModel")
    return ForeignConfig(data, where)


def _plain_size(config: ForeignConfig) -> presets.Size:
    """Of an image model of the kind of Stable Diffusion 1 or XL."""
    config.expect(in_channels=4, only_cross_attention=False)
    return _image_size(config, **_told(config))


def _image_size(config: ForeignConfig, **more: int) -> presets.Size:
    """What image models have in common."""
    widths = config.take("block_out_channels", (320, 640, 1280, 1280))
    config.expect(
        out_channels=4,
        center_input_sample=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        mid_block_type="UNetMidBlock2DCrossAttn",
        dropout=0.0,
        num_attention_heads=None,
        resnet_time_scale_shift="default",
        resnet_out_scale_factor=1.0,
        time_embedding_type="positional",
        conv_in_kernel=3,
        conv_out_kernel=3,
        attention_type="default",
        addition_embed_type_num_heads=64,
    )
    # Numbers, whatever the name.
    heads = _heads_of(config, config.take("attention_head_dim", 8), widths)
    return _size(config, widths, heads, 1280, num_groups=_common(config), **more)


def _heads_of(config: ForeignConfig, numbers: int | Sequence[int], widths: Sequence[int]) -> Heads:
    """Heads by their number, which is the same on all levels, or else by their width."""
    each = _each(numbers, widths)
    return Heads(number=each[0]) if len(set(each)) == 1 else _heads(config, each, widths)


def _told(config: ForeignConfig) -> dict[str, int]:
    """What a model of the XL kind is told besides the noise level; nothing, for one of the first.

    Raises:
        ValueError: If it is partly of the one kind and partly of the other.
    """
    kind = config.take("addition_embed_type", None)
    if kind is None:
        config.expect(use_linear_projection=False)
        return {}
    config.expect(addition_embed_type="text_time", use_linear_projection=True)
    scalar_dim = config.take("addition_time_embed_dim", 256)
    joined = config.take("projection_class_embeddings_input_dim", 1280 + 6 * scalar_dim)
    return {"scalar_dim": scalar_dim, "pooled_dim": joined - 6 * scalar_dim}


def _common(config: ForeignConfig) -> int:
    """Settings that several classes share; the number of groups."""
    config.expect(downsample_padding=1, mid_block_scale_factor=1, act_fn="silu", norm_eps=1e-5)
    return config.take("norm_num_groups", 32)


def _size(
    config: ForeignConfig, widths: Sequence[int], heads: Heads, context_dim: int, **more: Any
) -> presets.Size:
    """Widths, depth and where there is attention, checked to be the same way up as down."""
    config.take("sample_size", None)
    down = [str(kind) for kind in config.take("down_block_types", _usual("Down", len(widths)))]
    up = [str(kind) for kind in config.take("up_block_types", _usual("Up", len(widths))[::-1])]
    has_attention = [kind.startswith("CrossAttn") for kind in down]
    if [kind.startswith("CrossAttn") for kind in up] != has_attention[::-1]:
        raise ValueError(
            f"{config.where}: got up_block_types={up}, expected the mirror image of {down}"
        )
    depths = _each(config.take("layers_per_block", 2), widths)
    if len(set(depths)) > 1:
        raise ValueError(f"{config.where}: got layers_per_block={depths}, expected equal numbers")
    blocks = _each(config.take("transformer_layers_per_block", 1), widths)
    attention = [n if has else 0 for n, has in zip(blocks, has_attention, strict=True)]
    told = config.take("cross_attention_dim", context_dim)
    if not isinstance(told, int):
        raise ValueError(f"{config.where}: got cross_attention_dim={told}, expected a number")
    return presets.Size(
        heads,
        told,
        tuple(widths),
        depths[0],
        (*attention, blocks[-1]),
        **more,
    )


def _usual(way: str, count: int) -> list[str]:
    """Block types where the file does not say: attention everywhere but at the bottom."""
    return [f"CrossAttn{way}Block"] * (count - 1) + [f"{way}Block"]


def _each(value: int | Sequence[int], widths: Sequence[int]) -> list[int]:
    """One number for every level."""
    return [value] * len(widths) if isinstance(value, int) else list(value)


def _heads(config: ForeignConfig, numbers: Sequence[int], widths: Sequence[int]) -> Heads:
    """Heads of one width on all levels.

    Raises:
        ValueError: If they have others.
    """
    dims = {width / number for width, number in zip(widths, numbers, strict=True)}
    if len(dims) > 1 or not next(iter(dims)).is_integer():
        raise ValueError(
            f"{config.where}: got {list(numbers)} heads for widths {list(widths)}, expected heads "
            "of one width"
        )
    return Heads(dim=int(dims.pop()))
