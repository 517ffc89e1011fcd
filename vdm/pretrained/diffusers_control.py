"""SparseCtrl in diffusers' layout, or in its authors' files, as ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm.conditioning.sparse import SparseFrames
from vdm.models.sparse_control import ControlledUNet, SparseControl
from vdm.models.unet3d import UNet3D
from vdm.models.unet3d_blocks import Heads, UNetOptions
from vdm.models.unet3d_presets import GEGLU_RATIO
from vdm.models.unet3d_temporal import TemporalTransformer
from vdm.pretrained.diffusers_files import (
    CONFIG,
    TensorFiles,
    open_weights,
    read_config,
    read_state,
)
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.diffusers_unet import ANIMATEDIFF, entries_of, tables
from vdm.pretrained.hub import fetch, is_hub_id
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import fill
from vdm.pretrained.original_motion import modern_name
from vdm.utils.config import describe

Control = str | Path | Mapping[str | Path, float]
"""Where SparseCtrl lies, or that with its scale."""

KIND = "SparseControlNetModel"
OUTSIDE = {"to_middle": "controlnet_mid_block", "given_embed": "controlnet_cond_embedding"}


def load_control(source: str | Path) -> SparseControl:
    """SparseCtrl from a component folder or its authors' file, in eval mode.

    Args:
        source: Holds ``config.json`` and the weights; or ``v3_sd15_sparsectrl_*.ckpt``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a setting, a key, a shape or a value is not as it has to be.
    """
    path = Path(source)
    if path.is_dir():
        config, weights = read_config(path), open_weights(path)
    else:
        is_safe = path.suffix == ".safetensors"
        state = TensorFiles([path]) if is_safe else read_state(path)
        weights = {modern_name(key): value for key, value in state.items()}
        config = _settings(weights, str(path))
    with torch.device("meta"):
        control = control_from_config(config, str(path / CONFIG if path.is_dir() else path))
    places = control_entries(control)
    # One table for each attention there, which the plain rename leaves beside its weights.
    ignored = [*tables(weights), *(key for key in weights if key.endswith("pos_encoder.pe"))]
    fill(control, ForeignWeights(weights, places, ignored, str(path)), str(path))
    return control


def steer(network: UNet3D, control: Control) -> tuple[ControlledUNet, SparseFrames]:
    """A U-Net with what steers it, and how it is shown given frames.

    Args:
        network: The U-Net.
        control: A folder, its authors' file, or a name on the hub; or one of them with a scale.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it cannot be read, or is for another U-Net.
    """
    scales = control if isinstance(control, Mapping) else {control: 1.0}
    if len(scales) != 1:
        raise ValueError(f"got {len(scales)} in control, expected one file or folder")
    [(source, scale)] = scales.items()
    is_far = is_hub_id(source) and not Path(source).exists()
    steering = load_control(fetch(str(source)) if is_far else source)
    arguments: Any = network._init_args
    own: Any = steering._init_args
    for name in ("widths", "depth", "text_dim"):
        got, expected = (_plain(one[name]) for one in (own, arguments))
        if got != expected:
            raise ValueError(f"{source}: got {name}={got}, expected {expected} as in the U-Net")
    steered = ControlledUNet(network, steering, float(scale)).eval().requires_grad_(False)
    return steered, SparseFrames(steering.sees)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def control_from_config(data: Mapping[str, Any], where: str = CONFIG) -> SparseControl:
    """SparseCtrl with random weights from what ``config.json`` holds.

    Raises:
        ValueError: If it is of another class, or a setting asks for what ours cannot do.
    """
    if (kind := data.get("_class_name")) != KIND:
        raise ValueError(f"{where}: got class {kind}, expected {KIND}")
    config = ForeignConfig(data, where)
    config.expect(
        flip_sin_to_cos=True,
        freq_shift=0,
        only_cross_attention=False,
        downsample_padding=1,
        mid_block_scale_factor=1,
        act_fn="silu",
        norm_eps=1e-5,
        transformer_layers_per_block=1,
        transformer_layers_per_mid_block=None,
        temporal_transformer_layers_per_block=1,
        num_attention_heads=None,
        use_linear_projection=False,
        upcast_attention=False,
        resnet_time_scale_shift="default",
        global_pool_conditions=False,
        controlnet_conditioning_channel_order="rgb",
        concat_conditioning_mask=True,
    )
    widths = config.take("block_out_channels", (320, 640, 1280, 1280))
    usual = ["CrossAttnDownBlockMotion"] * (len(widths) - 1) + ["DownBlockMotion"]
    kinds = config.take("down_block_types", usual)
    config.take("motion_max_seq_length", 32)  # tables of positions are made as long as needed
    motion = TemporalTransformer(
        num_attentions=1,
        heads=Heads(number=config.take("motion_num_attention_heads", 8)),
        statistics="clip",
        stages=("down",),
        needs_attention=False,
    )
    options = UNetOptions(
        heads=Heads(number=config.take("attention_head_dim", 8)),  # numbers, whatever the name
        num_groups=config.take("norm_num_groups", 32),
        mlp_ratio=GEGLU_RATIO,
        qk_norm=None,
    )
    made = SparseControl(
        config.take("in_channels", 4),
        "latents" if config.take("use_simplified_condition_embedding", True) else "pixels",
        config.take("conditioning_channels", 4),
        tuple(widths),
        config.take("layers_per_block", 2),
        (*(int(str(kind).startswith("CrossAttn")) for kind in kinds), 1),
        (motion,),
        config.take("cross_attention_dim", 768),
        tuple(config.take("conditioning_embedding_out_channels", None) or (16, 32, 96, 256)),
        options,
    )
    config.close()
    return made


def config_from_control(control: SparseControl) -> dict[str, Any]:
    """The inverse of :func:`control_from_config`.

    Raises:
        ValueError: If diffusers has no class for it.
    """
    arguments: Any = control._init_args
    options: UNetOptions = arguments["block"]
    attends, motion = arguments["attention"][:-1], arguments["temporal"]
    config = {
        "_class_name": KIND,
        "in_channels": arguments["in_channels"],
        "conditioning_channels": arguments["given_channels"],
        "down_block_types": [f"{'CrossAttn' if one else ''}DownBlockMotion" for one in attends],
        "block_out_channels": list(arguments["widths"]),
        "layers_per_block": arguments["depth"],
        "norm_num_groups": options.num_groups,
        "cross_attention_dim": arguments["text_dim"],
        "attention_head_dim": options.heads.number,
        "conditioning_embedding_out_channels": list(arguments["pixel_widths"]),
        "motion_num_attention_heads": motion[0].heads.number if motion else None,
        "use_simplified_condition_embedding": control.sees == "latents",
    }
    with torch.device("meta"):
        if not motion or describe(control_from_config(config)) != describe(control):
            raise ValueError("diffusers has no class for this SparseControl; expected layout='vdm'")
    return config


def control_entries(control: SparseControl) -> list[Entry]:
    """Where every weight lies."""
    own = {key: theirs for key in control.state_dict() if (theirs := _own_name(key)) is not None}
    shared = [key for key in control.state_dict() if key not in own]
    named = [Entry(theirs, (key,)) for key, theirs in own.items()]
    return [*entries_of(shared, ANIMATEDIFF), *named]


def _own_name(key: str) -> str | None:
    """Their name of what a U-Net does not have; None for what it has."""
    if found := re.fullmatch(r"to_skips\.(\d+)\.(\w+)", key):
        return f"controlnet_down_blocks.{found[1]}.{found[2]}"
    if found := re.fullmatch(r"given_embed\.(first|last)\.(\w+)", key):
        end = "in" if found[1] == "first" else "out"
        return f"controlnet_cond_embedding.conv_{end}.{found[2]}"
    if found := re.fullmatch(r"given_embed\.convs\.(.+)", key):
        return f"controlnet_cond_embedding.blocks.{found[1]}"
    stem, _, kind = key.rpartition(".")
    return f"{OUTSIDE[stem]}.{kind}" if stem in OUTSIDE else None


def _settings(weights: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Settings that can be read off the weights; heads and groups are those that were published."""
    first = "controlnet_cond_embedding.conv_in.weight"
    simple = "controlnet_cond_embedding.weight"
    if first not in weights and simple not in weights:
        raise ValueError(f"{where}: holds no SparseCtrl, expected {simple} or {first}")
    text = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    levels = sorted(_numbers(weights, r"down_blocks\.(\d+)\.resnets\.0\.conv1\.bias"))
    if not levels or text not in weights:
        raise ValueError(f"{where}: holds no SparseCtrl, expected {text}")
    attends = [f"down_blocks.{i}.attentions.0.norm.weight" in weights for i in levels]
    return {
        "_class_name": KIND,
        "block_out_channels": [
            len(weights[f"down_blocks.{i}.resnets.0.conv1.bias"]) for i in levels
        ],
        "layers_per_block": len(_numbers(weights, r"down_blocks\.0\.resnets\.(\d+)\.conv1\.bias")),
        "down_block_types": [f"{'CrossAttn' if one else ''}DownBlockMotion" for one in attends],
        "cross_attention_dim": weights[text].shape[1],
        "conditioning_channels": weights[simple if simple in weights else first].shape[1] - 1,
        "use_simplified_condition_embedding": simple in weights,
    }


def _numbers(keys: Iterable[str], pattern: str) -> set[int]:
    """The numbers in keys of a kind."""
    return {int(found[1]) for key in keys if (found := re.fullmatch(pattern, key))}
