"""Whole HunyuanVideo models in diffusers' layout, read and written."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vdm.conditioning.llama_text import LlamaClipEncoder
from vdm.conditioning.llava_text import LlavaClipEncoder
from vdm.conditioning.picture import SeenFrame
from vdm.models.dual_stream_dit import DualStreamDiT
from vdm.pretrained.clip_pictures import FOLDER
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

FROM_WORDS, FROM_PICTURE = "HunyuanVideoPipeline", "HunyuanVideoImageToVideoPipeline"
HUNYUAN_PIPELINES = (FROM_WORDS, FROM_PICTURE)
PARTS = ("scheduler", "transformer", "vae", *FOLDERS)


@dataclass(frozen=True)
class _Kind:
    """What a network's way to read a picture tells of its system.

    Args:
        system: Its name.
        defaults: What is published for it.
        given: How the picture is shown; None where none is.
        every: Of how many states of the picture the network is told the first.
    """

    system: str
    defaults: Defaults
    given: SeenFrame | None = None
    every: int | None = None

    @property
    def pipeline(self) -> str:
        """Class of the whole."""
        return FROM_WORDS if self.given is None else FROM_PICTURE


DEFAULTS = Defaults(129, 24.0, 720, 1280, 50, 6.0)
KINDS = {
    False: _Kind("HunyuanVideo", DEFAULTS),
    "first_frame": _Kind("HunyuanVideo-I2V", DEFAULTS, SeenFrame(), 4),
    # Of its 129 frames the first four are those of the picture.
    True: _Kind(
        "HunyuanVideo-I2V-33ch",
        replace(DEFAULTS, num_frames=125, guidance_scale=1.0),
        SeenFrame(is_ahead=True),
        2,
    ),
}
"""By what the network reads of given frames."""


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
    has_picture = read_config(folder, INDEX).get("_class_name") == FROM_PICTURE
    index = read_index(folder, (*PARTS, FOLDER) if has_picture else PARTS)
    rules = read_rules(folder / "scheduler")
    network = load_dit(folder / "transformer", how)
    kind = KINDS.get(network.given) if isinstance(network, DualStreamDiT) else None
    if kind is None or kind.pipeline != index["_class_name"]:
        raise ValueError(
            f"{folder / INDEX}: got {index['_class_name']} with a network of another kind, "
            f"expected {'HunyuanVideo' if kind is None else kind.pipeline}"
        )
    defaults = replace(
        kind.defaults,
        sampler=rules.sampler,
        time_grid=rules.time_grid,
        time_grid_args=rules.time_grid_args,
    )
    return Parts(
        folder.resolve().name,
        network,
        load_llama_text(folder, how, kind.every),
        load_vae(folder / "vae", how),
        schedule=rules.schedule,
        target=rules.target,
        preconditioning=rules.preconditioning,
        given=kind.given,
        defaults=defaults,
        # The sizes that its authors list have sides from 544 to 1280.
        envelope=Envelope((1, defaults.num_frames), (24.0, 24.0), (544, 1280), (544, 1280)),
        system=kind.system,
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
    kind = KINDS.get(network.given) if isinstance(network, DualStreamDiT) else None
    told = words.every if isinstance(words, LlavaClipEncoder) else None
    if kind is None or told != kind.every:
        raise ValueError(
            f"got a {type(network).__name__} and texts with every={told}, expected those of "
            f"{'HunyuanVideo' if kind is None else f'{kind.system}, every={kind.every}'}"
        )
    settings, scheduler = config_from_dit(network), config_from_rules(rules_of(parts))
    save_dit(network, folder / "transformer", dtype)
    save_vae(autoencoder, folder / "vae", dtype)  # type: ignore[arg-type]
    index: dict[str, Any] = {
        "_class_name": kind.pipeline,
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
