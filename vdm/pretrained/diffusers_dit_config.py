"""diffusers' ``config.json`` of a transformer as one of ours, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import nn

from vdm.layers.embeddings import num_input_channels
from vdm.layers.position_rules import CausalSecondsRotary, FittedRotary, SpaceThenTime
from vdm.models.dit import VideoDiT
from vdm.models.dit_presets import (
    CogVideoXKind,
    CogVideoXSize,
    LatteSize,
    LTXSize,
    WanKind,
    WanSize,
    cogvideox,
    latte,
    ltx_video,
    wan,
)
from vdm.models.dual_stream_dit import DualStreamDiT
from vdm.models.joint_dit import JointDiT
from vdm.pretrained.diffusers_dual_stream import hunyuan_from_config, hunyuan_settings
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.utils.config import describe

FRAMES_PER_LATENT = 4
FIRST_ALONE = "_first_frame_alone"
"""Of LTX-Video from 0.9.5 on, whose class is handed places and so has no setting for them."""


def is_dit(data: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a transformer."""
    return str(data.get("_class_name")) in BUILDERS


def dit_from_config(data: Mapping[str, Any], where: str = "config.json") -> nn.Module:
    """A transformer with random weights.

    Args:
        data: What ``config.json`` holds.
        where: The file, for messages.

    Raises:
        ValueError: If the class is unknown, or a setting asks for what ours cannot do.
    """
    kind = str(data.get("_class_name"))
    if kind not in BUILDERS:
        raise ValueError(f"{where}: got class {kind}, expected one of {', '.join(BUILDERS)}")
    config = ForeignConfig(data, where)
    network = BUILDERS[kind](config)
    config.close()
    return network


def config_from_dit(network: nn.Module) -> dict[str, Any]:
    """The settings with which diffusers builds the same network.

    Raises:
        ValueError: If diffusers has no class for it.
    """
    candidates: list[dict[str, Any]] = []
    if isinstance(network, JointDiT):
        candidates = [_cogvideox_settings(network, kind) for kind in get_args(CogVideoXKind)]
    elif isinstance(network, DualStreamDiT):
        candidates = hunyuan_settings(network)
    elif isinstance(network, VideoDiT):
        candidates = [make(network) for make in (_latte_settings, _wan_settings, _ltx_settings)]
    for config in candidates:
        try:
            with torch.device("meta"):
                built = dit_from_config(config)
        except ValueError:
            continue
        if describe(built) == describe(network):
            return config
    raise ValueError(
        f"diffusers has no class for this {type(network).__name__}: it is of no published kind; "
        "expected layout='vdm'"
    )


def _cogvideox(config: ForeignConfig) -> JointDiT:
    config.expect(
        flip_sin_to_cos=True,
        freq_shift=0,
        dropout=0.0,
        attention_bias=True,
        temporal_compression_ratio=FRAMES_PER_LATENT,
        activation_fn="gelu-approximate",
        timestep_activation_fn="silu",
        norm_elementwise_affine=True,
        norm_eps=1e-5,
        spatial_interpolation_scale=1.875,
        temporal_interpolation_scale=1.0,
    )
    channels = config.take("out_channels", 16)
    reads_picture = config.take("in_channels", 16) != channels
    config.expect(in_channels=2 * channels if reads_picture else channels)
    is_new = config.take("patch_size_t", None) is not None
    if is_new:
        config.expect(patch_size_t=2, use_rotary_positional_embeddings=True)
        config.take("patch_bias", True)  # of a convolution, which these do not have
    else:
        config.expect(patch_bias=True)
    rotates = config.take("use_rotary_positional_embeddings", False)
    kind = ("1.5" if is_new else "5b" if rotates else "2b") + ("-i2v" if reads_picture else "")
    if kind not in get_args(CogVideoXKind):
        raise ValueError(f"{config.where}: got a 2B model that reads pictures, expected rotations")
    config.expect(use_learned_positional_embeddings=kind == "5b-i2v")
    cond_dim = config.take("time_embed_dim", 512)
    config.expect(ofs_embed_dim=cond_dim if kind == "1.5-i2v" else None)
    frames = (config.take("sample_frames", 49) - 1) // FRAMES_PER_LATENT + 1
    size = CogVideoXSize(
        config.take("num_attention_heads", 30),
        config.take("attention_head_dim", 64),
        config.take("num_layers", 30),
        channels,
        config.take("text_embed_dim", 4096),
        cond_dim,
        config.take("max_text_seq_length", 226),
        (frames, config.take("sample_height", 60), config.take("sample_width", 90)),
        config.take("patch_size", 2),
    )
    return cogvideox(kind, size)  # type: ignore[arg-type]


def _cogvideox_settings(network: JointDiT, kind: str) -> dict[str, Any]:
    """What the class would have to be told, if the network is of this kind."""
    arguments: Any = network._init_args
    pt, side, _ = network.patch_size
    num_text, frames, height, width = arguments["learned"] or (226, 21 if pt == 2 else 13, 30, 45)
    if isinstance(network.positions, FittedRotary):
        height, width = network.positions.height, network.positions.width
    elif pt == 2:
        height = width = 150
    return {
        "_class_name": "CogVideoXTransformer3DModel",
        "num_attention_heads": arguments["num_heads"],
        "attention_head_dim": network.head_dim,
        "num_layers": arguments["depth"],
        "in_channels": network.in_channels * (2 if kind.endswith("i2v") else 1),
        "out_channels": network.in_channels,
        "text_embed_dim": arguments["text_dim"],
        "time_embed_dim": arguments["cond_dim"],
        "ofs_embed_dim": arguments["offset_dim"],
        "max_text_seq_length": num_text,
        "sample_frames": (frames - 1) * FRAMES_PER_LATENT + 1,
        "sample_height": height * side,
        "sample_width": width * side,
        "patch_size": side,
        "patch_size_t": None if pt == 1 else pt,
        "patch_bias": pt == 1,
        "use_rotary_positional_embeddings": kind != "2b",
        "use_learned_positional_embeddings": kind == "5b-i2v",
    }


def _latte(config: ForeignConfig) -> VideoDiT:
    config.expect(
        dropout=0.0,
        attention_bias=True,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    for name in ("num_embeds_ada_norm", "video_length"):
        config.take(name, None)  # of kinds without sinusoids; of a table, which is made as needed
    heads, width = config.take("num_attention_heads", 16), config.take("attention_head_dim", 88)
    channels = config.take("in_channels", None)
    config.expect(out_channels=2 * channels, cross_attention_dim=heads * width)
    return latte(
        LatteSize(
            heads,
            width,
            config.take("num_layers", 1),
            channels,
            config.take("caption_channels", None),
            config.take("sample_size", 64),
            config.take("patch_size", None),
        )
    )


def _latte_settings(network: VideoDiT) -> dict[str, Any]:
    """What the class would have to be told, if the network is of this kind."""
    arguments: Any = network._init_args
    side, rule = network.patch_size[1], network.options.positions
    return {
        "_class_name": "LatteTransformer3DModel",
        "num_attention_heads": network.num_heads,
        "attention_head_dim": network.dim // network.num_heads,
        "num_layers": arguments["depth"] // 2,
        "in_channels": network.in_channels,
        "out_channels": 2 * network.in_channels,
        "caption_channels": arguments["text_dim"],
        "cross_attention_dim": network.dim,
        "patch_size": side,
        "sample_size": rule.side * side if isinstance(rule, SpaceThenTime) else 64,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "num_embeds_ada_norm": 1000,
        "video_length": 16,
    }


def _wan(config: ForeignConfig) -> VideoDiT:
    config.expect(freq_dim=256, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6)
    config.take("rope_max_seq_len", 1024)  # of a table, which is made as needed
    heads, width = config.take("num_attention_heads", 40), config.take("attention_head_dim", 128)
    inputs = config.take("in_channels", 16)
    channels = config.take("out_channels", None) or inputs
    image_dim = config.take("image_dim", None)
    num_image = config.take("pos_embed_seq_len", None)
    added, expected = config.take("added_kv_proj_dim", None), heads * width
    if added != (None if image_dim is None else expected):
        expected = "None without image_dim" if image_dim is None else str(expected)
        raise ValueError(f"{config.where}: got added_kv_proj_dim={added}, expected {expected}")
    kind: WanKind = "t2v"
    if inputs != channels:
        config.expect(in_channels=num_input_channels(channels, "frame_masks"))
        kind = "2.2-i2v" if image_dim is None else "i2v" if num_image is None else "flf2v"
    if kind in ("t2v", "2.2-i2v"):
        config.expect(image_dim=None, pos_embed_seq_len=None)
    pt, ph, pw = config.take("patch_size", (1, 2, 2))
    size = WanSize(
        heads,
        width,
        config.take("num_layers", 40),
        config.take("ffn_dim", 13824),
        channels,
        config.take("text_dim", 4096),
        (pt, ph, pw),
        image_dim or WanSize.image_dim,
        num_image or WanSize.num_image,
    )
    return wan(size, kind)


def _wan_settings(network: VideoDiT) -> dict[str, Any]:
    """What the class would have to be told, if the network is of this kind."""
    arguments: Any = network._init_args
    picture = network.options.cross.picture
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": list(network.patch_size),
        "num_attention_heads": network.num_heads,
        "attention_head_dim": network.dim // network.num_heads,
        "in_channels": num_input_channels(network.in_channels, network.frame_conditioning),
        "out_channels": network.in_channels,
        "text_dim": arguments["text_dim"],
        "ffn_dim": round(network.options.mlp_ratio * network.dim),
        "num_layers": arguments["depth"],
        "image_dim": None if picture is None else picture.width,
        "added_kv_proj_dim": None if picture is None else network.dim,
        "pos_embed_seq_len": None if picture is None else picture.num_tokens,
    }


def _ltx(config: ForeignConfig) -> VideoDiT:
    config.expect(
        patch_size=1,
        patch_size_t=1,
        activation_fn="gelu-approximate",
        qk_norm="rms_norm_across_heads",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        attention_bias=True,
        attention_out_bias=True,
    )
    channels = config.take("in_channels", 128)
    heads, width = config.take("num_attention_heads", 32), config.take("attention_head_dim", 64)
    config.expect(out_channels=channels, cross_attention_dim=heads * width)
    layers, text_dim = config.take("num_layers", 28), config.take("caption_channels", 4096)
    is_late = config.take(FIRST_ALONE, False)
    size = LTXSize(heads, width, layers, channels, text_dim)
    return ltx_video(size, "0.9.5" if is_late else "0.9.0")


def _ltx_settings(network: VideoDiT) -> dict[str, Any]:
    """What the class would have to be told, if the network is of this kind."""
    arguments: Any = network._init_args
    is_late = isinstance(network.options.positions, CausalSecondsRotary)
    return {
        "_class_name": "LTXVideoTransformer3DModel",
        **({FIRST_ALONE: True} if is_late else {}),
        "in_channels": network.in_channels,
        "out_channels": network.in_channels,
        "num_attention_heads": network.num_heads,
        "attention_head_dim": network.dim // network.num_heads,
        "cross_attention_dim": network.dim,
        "num_layers": arguments["depth"],
        "caption_channels": arguments["text_dim"],
    }


BUILDERS = {
    "CogVideoXTransformer3DModel": _cogvideox,
    "HunyuanVideoTransformer3DModel": hunyuan_from_config,
    "LatteTransformer3DModel": _latte,
    "WanTransformer3DModel": _wan,
    "LTXVideoTransformer3DModel": _ltx,
}
