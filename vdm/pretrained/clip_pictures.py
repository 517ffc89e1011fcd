"""How pictures are prepared for an image encoder, as CLIP's own code does: read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vdm.conditioning.clip_image import MEAN, STD
from vdm.pretrained.diffusers_files import read_config
from vdm.pretrained.diffusers_settings import ForeignConfig

FOLDER, PREPROCESSOR = "image_processor", "preprocessor_config.json"


def _usual(size: int) -> dict[str, Any]:
    return {
        "crop_size": {"height": size, "width": size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "image_processor_type": "CLIPImageProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": size},
    }


def check_pictures(folder: Path, size: int) -> None:
    """Refuse pictures that are prepared in another way.

    Args:
        folder: Of the model.
        size: Pixels along a side of what the encoder sees.

    Raises:
        FileNotFoundError: If the folder does not say how they are prepared.
        ValueError: If it is another way.
    """
    path = folder / FOLDER
    said = ForeignConfig(read_config(path, PREPROCESSOR), str(path / PREPROCESSOR))
    said.take("image_processor_type", None)  # also called by whether it computes in torch
    usual = _usual(size)
    said.expect(**{name: usual[name] for name in usual if name != "image_processor_type"})
    for name in ("data_format", "feature_extractor_type", "processor_class"):
        said.take(name, None)
    said.close()


def save_pictures(folder: Path, size: int) -> list[str]:
    """The inverse of :func:`check_pictures`.

    Args:
        folder: Of the model; made if need be.
        size: Pixels along a side of what the encoder sees.

    Returns:
        Library and class, as ``model_index.json`` has them.
    """
    path = folder / FOLDER / PREPROCESSOR
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_usual(size), indent=2) + "\n", encoding="utf-8")
    return ["transformers", "CLIPImageProcessor"]
