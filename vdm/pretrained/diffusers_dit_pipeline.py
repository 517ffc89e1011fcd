"""Whole transformer models in diffusers' layout, read and written."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vdm.conditioning.picture import FirstFrame
from vdm.conditioning.t5_text import T5TextEncoder
from vdm.models.joint_dit import JointDiT
from vdm.pretrained.diffusers_dit import load_dit, save_dit
from vdm.pretrained.diffusers_files import CONFIG, read_config
from vdm.pretrained.diffusers_folder import VERSION, load_vae, save_vae
from vdm.pretrained.diffusers_scheduler import (
    SCHEDULER_CONFIG,
    config_from_rules,
    rules_from_config,
    rules_of,
)
from vdm.pretrained.parts import Defaults, Envelope, Parts
from vdm.pretrained.t5_folder import load_t5_text, save_t5_text

INDEX = "model_index.json"
TEXT_TO_VIDEO, IMAGE_TO_VIDEO = "CogVideoXPipeline", "CogVideoXImageToVideoPipeline"
DIT_PIPELINES = (TEXT_TO_VIDEO, IMAGE_TO_VIDEO, "CogVideoXVideoToVideoPipeline")
PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
NUM_TEXT = 226
"""Tokens that the published pipeline gives a text, whatever the network's settings say."""

OLD = Defaults(49, 8.0, 480, 720, 50, 6.0, frames_first=True)
NEW = Defaults(81, 16.0, 768, 1360, 50, 6.0, frames_first=True, pads_frames=True)
"""What is published for CogVideoX and for its version 1.5."""


@dataclass(frozen=True)
class _Kind:
    """What a network's own structure tells of its system."""

    system: str
    defaults: Defaults


def read_dit_pipeline(folder: Path) -> Parts:
    """A model from its folder.

    Args:
        folder: Holds ``model_index.json``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a part is missing, surplus, or not as it has to be.
    """
    index, where = read_config(folder, INDEX), folder / INDEX
    found = {name for name, value in index.items() if isinstance(value, list) and any(value)}
    if surplus := sorted(found - set(PARTS)):
        raise ValueError(f"{where}: got a part {surplus[0]}, expected {', '.join(PARTS)}")
    if missing := sorted(set(PARTS) - found):
        raise ValueError(f"{where}: has no {missing[0]}")
    scheduler = folder / "scheduler"
    rules = rules_from_config(
        read_config(scheduler, SCHEDULER_CONFIG), str(scheduler / SCHEDULER_CONFIG)
    )
    network, autoencoder = load_dit(folder / "transformer"), load_vae(folder / "vae")
    if not isinstance(network, JointDiT):
        raise ValueError(f"{where}: got a {type(network).__name__}, expected CogVideoX's")
    settings = read_config(folder / "transformer", CONFIG)
    # Positions that are added are those of texts of one length.
    adds = not settings.get("use_rotary_positional_embeddings") or network.learned is not None
    num_text = settings.get("max_text_seq_length", NUM_TEXT) if adds else NUM_TEXT
    words = load_t5_text(folder / "text_encoder", folder / "tokenizer", num_text)
    kind = _kind_of(network)
    defaults = replace(
        _sized(kind.defaults, settings, autoencoder.strides[1]),
        sampler=rules.sampler,
        time_grid=rules.time_grid,
        time_grid_args=rules.time_grid_args,
    )
    return Parts(
        folder.resolve().name,
        network,
        words,
        autoencoder,
        schedule=rules.schedule,
        target=rules.target,
        preconditioning=rules.preconditioning,
        given=FirstFrame() if network.given else None,
        defaults=defaults,
        envelope=Envelope(
            (defaults.num_frames, defaults.num_frames),
            (defaults.fps, defaults.fps),
            (defaults.height, defaults.height),
            (defaults.width, defaults.width),
        ),
        system=kind.system,
    )


def save_dit_pipeline(parts: Parts, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """The inverse of :func:`read_dit_pipeline`: a folder that diffusers itself loads.

    Args:
        parts: A model of a kind that diffusers has a pipeline for.
        folder: Made if need be.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        The folder.

    Raises:
        ValueError: If diffusers has no class for a part of it.
    """
    network, words, autoencoder = parts.network, parts.text_encoder, parts.autoencoder
    if not isinstance(network, JointDiT) or not isinstance(words, T5TextEncoder):
        kinds = ", ".join(type(part).__name__ for part in parts.modules.values())
        raise ValueError(f"diffusers has no pipeline for {kinds}; expected layout='vdm'")
    if autoencoder is None:
        raise ValueError("got a model without autoencoder, expected layout='vdm'")
    scheduler = config_from_rules(rules_of(parts))
    side = autoencoder.strides[1]  # type: ignore[index]
    more: dict[str, Any] = {"max_text_seq_length": words.max_length}
    if network.patch_size[0] == 1:  # the other networks are not told of one size of clip
        more["sample_frames"] = parts.defaults.num_frames
        more["sample_height"] = parts.defaults.height // int(side)
        more["sample_width"] = parts.defaults.width // int(side)
    save_dit(network, folder / "transformer", dtype, more)
    save_vae(autoencoder, folder / "vae", dtype)  # type: ignore[arg-type]
    vae = read_config(folder / "vae")["_class_name"]
    _write_json(folder / "scheduler" / SCHEDULER_CONFIG, scheduler)
    index: dict[str, Any] = {
        "_class_name": IMAGE_TO_VIDEO if network.given else TEXT_TO_VIDEO,
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", vae],
        **save_t5_text(words, folder / "text_encoder", folder / "tokenizer", dtype),
    }
    _write_json(folder / INDEX, index)
    return folder


def _kind_of(network: JointDiT) -> _Kind:
    """Which system a network is of."""
    suffix = "-I2V" if network.given else ""
    if network.patch_size[0] == 2:
        return _Kind(f"CogVideoX1.5-5B{suffix}", NEW)
    rotates = network.positions.rotary((1, 1, 1), network.head_dim, torch.device("cpu")) is not None
    return _Kind(f"CogVideoX-5B{suffix}" if rotates else "CogVideoX-2B", OLD)


def _sized(published: Defaults, settings: dict[str, Any], side: int) -> Defaults:
    """Published settings, in the size of the network's clips if it is told one that is meant."""
    if settings.get("patch_size_t") is not None:  # a square that is larger than any clip
        return published
    return replace(
        published,
        num_frames=settings.get("sample_frames", 49),
        height=settings.get("sample_height", 60) * side,
        width=settings.get("sample_width", 90) * side,
    )


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
