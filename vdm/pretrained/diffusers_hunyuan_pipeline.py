"""Whole HunyuanVideo models in diffusers' layout, read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vdm.conditioning.llama_text import LlamaClipEncoder
from vdm.models.dual_stream_dit import DualStreamDiT
from vdm.pretrained.diffusers_dit import load_dit, save_dit
from vdm.pretrained.diffusers_dit_config import config_from_dit
from vdm.pretrained.diffusers_files import INDEX, read_config, read_index
from vdm.pretrained.diffusers_folder import VERSION, load_vae, save_vae
from vdm.pretrained.diffusers_scheduler import (
    SCHEDULER_CONFIG,
    config_from_rules,
    read_rules,
    rules_of,
)
from vdm.pretrained.llama_folder import FOLDERS, load_llama_text, save_llama_text
from vdm.pretrained.loading import Reading
from vdm.pretrained.parts import Defaults, Envelope, Parts

HUNYUAN_TO_VIDEO = "HunyuanVideoPipeline"
PARTS = ("scheduler", "transformer", "vae", *FOLDERS)
SYSTEM = "HunyuanVideo"


def read_hunyuan_pipeline(
    folder: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """A model from its folder.

    Args:
        folder: Holds ``model_index.json``.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a part is missing, surplus, or not as it has to be.
    """
    read_index(folder, PARTS)
    rules = read_rules(folder / "scheduler")
    network = load_dit(folder / "transformer", how)
    if not isinstance(network, DualStreamDiT) or network.given:
        raise ValueError(
            f"{folder / INDEX}: got a network of another kind, expected one that reads words"
        )
    defaults = Defaults(
        129,
        24.0,
        720,
        1280,
        50,
        6.0,
        sampler=rules.sampler,
        time_grid=rules.time_grid,
        time_grid_args=rules.time_grid_args,
    )
    return Parts(
        folder.resolve().name,
        network,
        load_llama_text(folder, how),
        load_vae(folder / "vae", how),
        schedule=rules.schedule,
        target=rules.target,
        preconditioning=rules.preconditioning,
        defaults=defaults,
        # The sizes that its authors list have sides from 544 to 1280.
        envelope=Envelope((1, 129), (24.0, 24.0), (544, 1280), (544, 1280)),
        system=SYSTEM,
    )


def save_hunyuan_pipeline(parts: Parts, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """The inverse of :func:`read_hunyuan_pipeline`: a folder that diffusers itself loads.

    Args:
        parts: A model with a :class:`LlamaClipEncoder`.
        folder: Made if need be.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        The folder.

    Raises:
        ValueError: If diffusers has no class for a part of it.
    """
    network, words, autoencoder = parts.network, parts.text_encoder, parts.autoencoder
    if not isinstance(words, LlamaClipEncoder) or network is None or autoencoder is None:
        kinds = ", ".join(type(part).__name__ for part in parts.modules.values())
        raise ValueError(f"diffusers has no class for {kinds}; expected layout='vdm'")
    settings, scheduler = config_from_dit(network), config_from_rules(rules_of(parts))
    save_dit(network, folder / "transformer", dtype)
    save_vae(autoencoder, folder / "vae", dtype)  # type: ignore[arg-type]
    index: dict[str, Any] = {
        "_class_name": HUNYUAN_TO_VIDEO,
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "transformer": ["diffusers", settings["_class_name"]],
        "vae": ["diffusers", read_config(folder / "vae")["_class_name"]],
        **save_llama_text(words, folder, dtype),
    }
    for path, data in (
        (folder / "scheduler" / SCHEDULER_CONFIG, scheduler),
        (folder / INDEX, index),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return folder
