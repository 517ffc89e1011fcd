"""Whole models written in diffusers' layout: the inverse of reading them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vdm.conditioning.clip_image import MEAN, STD, ClipImageEncoder
from vdm.conditioning.clip_pair import ClipPairEncoder
from vdm.conditioning.clip_text import ClipTextEncoder
from vdm.conditioning.llama_text import LlamaClipEncoder
from vdm.conditioning.t5_text import T5TextEncoder
from vdm.models.sparse_control import ControlledUNet
from vdm.models.unet3d import UNet3D
from vdm.pretrained.diffusers_control import KIND, config_from_control, control_entries
from vdm.pretrained.diffusers_dit_pipeline import save_dit_pipeline
from vdm.pretrained.diffusers_files import CONFIG
from vdm.pretrained.diffusers_folder import (
    VERSION,
    WEIGHTS,
    save_component,
    save_transformer,
    save_unet,
    save_vae,
)
from vdm.pretrained.diffusers_hunyuan_pipeline import save_hunyuan_pipeline
from vdm.pretrained.diffusers_pipeline import (
    ANIMATEDIFF,
    ANIMATEDIFF_XL,
    IMAGE,
    IMAGE_XL,
    INDEX,
    MODELSCOPE,
    PIA,
    SPARSECTRL,
    SVD,
)
from vdm.pretrained.diffusers_scheduler import (
    SCHEDULER_CONFIG,
    config_from_rules,
    rules_of,
)
from vdm.pretrained.diffusers_wan_pipeline import is_wan, save_wan_pipeline
from vdm.pretrained.loading import read_safetensors, write_safetensors
from vdm.pretrained.parts import Parts

PIPELINES = {
    "UNet3DConditionModel": MODELSCOPE,
    "UNetMotionModel": ANIMATEDIFF,
    "UNet2DConditionModel": IMAGE,
    "UNetSpatioTemporalConditionModel": SVD,
}
XL = {ANIMATEDIFF: ANIMATEDIFF_XL, IMAGE: IMAGE_XL}
"""Of the same networks with two text encoders."""
TOKENIZER_CONFIG = "tokenizer_config.json"
FEATURES = {
    "do_center_crop": False,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": False,
    "do_resize": False,
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "image_processor_type": "CLIPImageProcessor",
}
"""How pictures are prepared for the image encoder, which their pipeline does for the most part."""


def save_pipeline(parts: Parts, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """A model folder that diffusers itself loads.

    Args:
        parts: A model of a kind that diffusers has a pipeline for.
        folder: Made if need be.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        The folder.

    Raises:
        ValueError: If diffusers has no class for a part of it.
    """
    if is_wan(parts.network):
        return save_wan_pipeline(parts, folder, dtype)
    if isinstance(parts.text_encoder, T5TextEncoder):
        return save_dit_pipeline(parts, folder, dtype)
    if isinstance(parts.text_encoder, LlamaClipEncoder):
        return save_hunyuan_pipeline(parts, folder, dtype)
    network = parts.network.unet if isinstance(parts.network, ControlledUNet) else parts.network
    if not isinstance(network, UNet3D) or parts.autoencoder is None:
        kinds = ", ".join(type(part).__name__ for part in parts.modules.values())
        raise ValueError(f"diffusers has no class for {kinds}; expected layout='vdm'")
    scheduler = config_from_rules(rules_of(parts))
    folder.mkdir(parents=True, exist_ok=True)
    unet = folder / "unet"
    more: dict[str, Any] = {"sample_size": _sample_size(parts)}
    if parts.image_encoder is not None:
        more["num_frames"] = parts.defaults.num_frames
    save_unet(network, unet, dtype, more)
    kind = json.loads((unet / CONFIG).read_text(encoding="utf-8"))["_class_name"]
    pipeline = PIPELINES[kind]
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": VERSION}
    index["unet"] = ["diffusers", kind]
    if network.frame_conditioning is True:
        index["_class_name"] = PIA
    save_vae(parts.autoencoder, folder / "vae", dtype)  # type: ignore[arg-type]
    vae = json.loads((folder / "vae" / CONFIG).read_text(encoding="utf-8"))["_class_name"]
    index["vae"] = ["diffusers", vae]
    _write_json(folder / "scheduler" / SCHEDULER_CONFIG, scheduler)
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    is_pair = isinstance(parts.text_encoder, ClipPairEncoder)
    if pipeline == SVD:
        index |= _save_image_encoder(parts.image_encoder, folder, dtype)
    elif is_pair and pipeline in XL:
        index |= _save_pair(parts.text_encoder, folder, dtype)  # type: ignore[arg-type]
        index["_class_name"] = XL[pipeline]
    else:
        index |= _save_words(parts.text_encoder, folder, dtype)
    if pipeline == ANIMATEDIFF:
        index["motion_adapter"] = _save_adapter(unet, folder / "motion_adapter")
    if isinstance(parts.network, ControlledUNet):
        index["_class_name"] = SPARSECTRL
        index["controlnet"] = _save_control(parts.network, folder / "controlnet", dtype)
    if pipeline in (ANIMATEDIFF, IMAGE):
        index |= {name: [None, None] for name in ("feature_extractor", "image_encoder")}
    if pipeline == IMAGE and not is_pair:
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    _write_json(folder / INDEX, index)
    return folder


def _sample_size(parts: Parts) -> int | list[int]:
    """Height and width of latents that the model makes where nothing is said."""
    autoencoder: Any = parts.autoencoder
    side = autoencoder.strides[1]
    height, width = parts.defaults.height // side, parts.defaults.width // side
    return height if height == width else [height, width]


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _save_words(
    encoder: nn.Module | None, folder: Path, dtype: torch.dtype | None, suffix: str = ""
) -> dict[str, list[str]]:
    if not isinstance(encoder, ClipTextEncoder):
        raise ValueError(f"got a {type(encoder).__name__}, expected CLIP's text transformer")
    files = _tokenizer_files(encoder)
    model, words = f"text_encoder{suffix}", f"tokenizer{suffix}"
    (folder / words).mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / words / name).write_text(text, encoding="utf-8")
    saved = save_transformer(encoder, encoder.kind, folder / model, dtype)
    return {model: saved, words: ["transformers", "CLIPTokenizer"]}


def _save_pair(
    pair: ClipPairEncoder, folder: Path, dtype: torch.dtype | None
) -> dict[str, list[str] | bool]:
    """Both text transformers; whether zeros stand for what is not said is of the whole model."""
    index: dict[str, list[str] | bool] = {"force_zeros_for_empty_prompt": pair.is_silent}
    for encoder, suffix in ((pair.first, ""), (pair.second, "_2")):
        index |= _save_words(encoder, folder, dtype, suffix)
    return index


def _save_control(network: ControlledUNet, folder: Path, dtype: torch.dtype | None) -> list[str]:
    """What steers a U-Net; how much is said in every call there."""
    if network.scale != 1.0:
        warnings.warn(
            f"got a control of scale {network.scale:g}, which no folder of diffusers holds: say "
            f"controlnet_conditioning_scale={network.scale:g} in the call",
            stacklevel=2,
        )
    control = network.control
    save_component(control, config_from_control(control), control_entries(control), folder, dtype)
    return ["diffusers", KIND]


def _tokenizer_files(encoder: ClipTextEncoder) -> dict[str, str]:
    """Files of a tokenizer that fills short texts as the encoder does."""
    arguments: Any = encoder._init_args
    files = dict(arguments["tokenizer"])
    if (pad_id := arguments["pad_id"]) is None:
        return files
    tokens = {number: token for token, number in json.loads(files.get("vocab.json", "{}")).items()}
    token = tokens.get(pad_id, "a")
    # There a token that fills is cut out of every text, which words cannot do without.
    is_word = any(letter.isalnum() for letter in token)
    if is_word or not set(files) <= {"vocab.json", "merges.txt", TOKENIZER_CONFIG}:
        raise ValueError(
            f"got pad_id={pad_id}, which no tokenizer there has; expected layout='vdm'"
        )
    warnings.warn(
        f"in diffusers {token!r} fills short texts, and says nothing where it stands in a prompt",
        stacklevel=2,
    )
    config = json.loads(files.get(TOKENIZER_CONFIG, "{}")) | {"pad_token": token}
    return files | {TOKENIZER_CONFIG: json.dumps(config)}


def _save_image_encoder(
    encoder: nn.Module | None, folder: Path, dtype: torch.dtype | None
) -> dict[str, list[str]]:
    if not isinstance(encoder, ClipImageEncoder):
        raise ValueError(f"got a {type(encoder).__name__}, expected CLIP's image transformer")
    kind = "CLIPVisionModelWithProjection"
    saved = save_transformer(encoder, kind, folder / "image_encoder", dtype)
    _write_json(folder / "feature_extractor" / "preprocessor_config.json", FEATURES)
    features = ["transformers", "CLIPImageProcessor"]
    return {"image_encoder": saved, "feature_extractor": features}


def _save_adapter(unet: Path, folder: Path) -> list[str]:
    """The motion modules of a network once more, by themselves, as the pipeline wants them."""
    config = json.loads((unet / CONFIG).read_text(encoding="utf-8"))
    state, _ = read_safetensors(unet / WEIGHTS)
    has_picture = config["in_channels"] != config["out_channels"]
    names = ("motion_modules", "conv_in.") if has_picture else ("motion_modules",)
    motion = {key: value for key, value in state.items() if any(name in key for name in names)}
    write_safetensors(motion, folder / WEIGHTS, {"format": "pt"})
    settings = {
        "_class_name": "MotionAdapter",
        "_diffusers_version": VERSION,
        "block_out_channels": config["block_out_channels"],
        "motion_layers_per_block": config["layers_per_block"],
        "motion_num_attention_heads": config["motion_num_attention_heads"],
        "motion_norm_num_groups": config["norm_num_groups"],
        "use_motion_mid_block": config["use_motion_mid_block"],
        "conv_in_channels": config["in_channels"] if has_picture else None,
    }
    _write_json(folder / CONFIG, settings)
    return ["diffusers", "MotionAdapter"]
