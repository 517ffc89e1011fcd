"""Reading what a training run leaves behind: ``final.safetensors`` and Lightning checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vdm.pretrained.layout import check_card
from vdm.pretrained.loading import fill, read_pickled, read_safetensors, sha256_of
from vdm.pretrained.parts import Parts, parts_from

Weights = Literal["ema", "raw"]


def read_final(path: Path, weights: Weights = "ema") -> Parts:
    """A model from a run's ``final.safetensors``.

    Args:
        path: The file: weights under ``ema.<part>.`` and ``raw.<part>.``, the description in its
            metadata.
        weights: The averaged weights, or those of the last step.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, was not written by a run, or does not fit its description.
    """
    tensors, metadata = read_safetensors(path)
    if "vdm" not in metadata:
        raise ValueError(f"{path}: no description in the metadata: not written by `vdm fit`")
    states = {
        key.removeprefix(f"{weights}."): value
        for key, value in tensors.items()
        if key.startswith(f"{weights}.")
    }
    if not states:
        raise ValueError(f"{path}: holds no {weights} weights")
    return _assemble(_parse(metadata["vdm"], path), states, path)


def read_lightning(path: Path, weights: Weights = "ema") -> Parts:
    """A model from a Lightning checkpoint of ours; nothing in the file is run.

    Args:
        path: The ``.ckpt`` file.
        weights: The averaged weights, or those of the last step.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds pickled objects, or is not a checkpoint of ours.
    """
    checkpoint = _checkpoint(path)
    # Lightning's weight averaging stores the average as the state dict, and the weights of the last
    # step beside it.
    averaged = "current_model_state" in checkpoint
    states = checkpoint["current_model_state" if averaged and weights == "raw" else "state_dict"]
    return _assemble(_parse(checkpoint["vdm"], path), states, path)


def describe_lightning(path: Path) -> dict[str, Any]:
    """The description of the model in a Lightning checkpoint of ours.

    Args:
        path: The ``.ckpt`` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds pickled objects, or is not a checkpoint of ours.
    """
    return _parse(_checkpoint(path)["vdm"], path)


def _checkpoint(path: Path) -> dict[str, Any]:
    checkpoint = read_pickled(path)
    if (
        not isinstance(checkpoint, dict)
        or "vdm" not in checkpoint
        or "state_dict" not in checkpoint
    ):
        raise ValueError(
            f"{path}: not a checkpoint of a vdm run: it has no description of the model"
        )
    return checkpoint


def _parse(text: Any, path: Path) -> dict[str, Any]:
    data = json.loads(text) if isinstance(text, str) else text
    return check_card(data, str(path))


def _assemble(card: dict[str, Any], states: dict[str, Tensor], path: Path) -> Parts:
    """Build the described parts and fill each with the tensors under its name."""
    parts = parts_from(card, str(path))
    digest = sha256_of(path)
    for name, module in parts.modules.items():
        prefix = f"{name}."
        state = {
            key.removeprefix(prefix): value
            for key, value in states.items()
            if key.startswith(prefix)
        }
        fill(module, state, f"{path} ({name})")
        parts.hashes[name] = digest
    return parts
