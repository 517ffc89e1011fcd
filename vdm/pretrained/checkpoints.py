"""Reading what a training run leaves behind: ``final.safetensors`` and Lightning checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vdm.pretrained.layout import check_card
from vdm.pretrained.loading import Reading, fill, read_pickled, sha256_of
from vdm.pretrained.parts import Parts, parts_from
from vdm.pretrained.tensor_files import TensorFiles, part_of

Weights = Literal["ema", "raw"]


def read_final(
    path: Path,
    weights: Weights = "ema",
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """A model from a run's ``final.safetensors``.

    Args:
        path: The file: weights under ``ema.<part>.`` and ``raw.<part>.``, the description in its
            metadata.
        weights: The averaged weights, or those of the last step.
        how: How weights are read; in full precision where nothing is said.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, was not written by a run, or does not fit its description.
    """
    files = TensorFiles([path])
    if "vdm" not in files.metadata:
        raise ValueError(f"{path}: no description in the metadata: not written by `vdm fit`")
    states = part_of(files, f"{weights}.")
    if not states:
        raise ValueError(f"{path}: holds no {weights} weights")
    return _assemble(_parse(files.metadata["vdm"], path), states, path, how)


def read_lightning(
    path: Path,
    weights: Weights = "ema",
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """A model from a Lightning checkpoint of ours; nothing in the file is run.

    Args:
        path: The ``.ckpt`` file.
        weights: The averaged weights, or those of the last step.
        how: How weights are read; in full precision where nothing is said.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds pickled objects, or is not a checkpoint of ours.
    """
    return parts_of_checkpoint(read_pickled(path), path, weights, how)


def parts_of_checkpoint(checkpoint: Any, path: Path, weights: Weights, how: Reading) -> Parts:
    """A model from a Lightning checkpoint that is open already; see :func:`read_lightning`."""
    checkpoint = _check(checkpoint, path)
    # Lightning's weight averaging stores the average as the state dict, and the weights of the last
    # step beside it.
    averaged = "current_model_state" in checkpoint
    states = checkpoint["current_model_state" if averaged and weights == "raw" else "state_dict"]
    return _assemble(_parse(checkpoint["vdm"], path), states, path, how)


def is_of_a_run(checkpoint: Any) -> bool:
    """Whether what a file of torch holds is a Lightning checkpoint of ours."""
    return isinstance(checkpoint, dict) and {"vdm", "state_dict"} <= checkpoint.keys()


def _check(checkpoint: Any, path: Path) -> dict[str, Any]:
    if not is_of_a_run(checkpoint):
        raise ValueError(
            f"{path}: not a checkpoint of a vdm run: it has no description of the model"
        )
    return checkpoint


def _parse(text: Any, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise ValueError(f"{path}: its description is not JSON: {error}") from error
    return check_card(data, str(path))


def _assemble(
    card: dict[str, Any], states: Mapping[str, Tensor], path: Path, how: Reading
) -> Parts:
    """Build the described parts and fill each with the tensors under its name."""
    parts = parts_from(card, str(path), on_meta=True)
    if how.is_plan:
        return parts
    digest = sha256_of(path)
    for name, module in parts.modules.items():
        state, where = part_of(states, f"{name}."), f"{path} ({name})"
        fill(module, state, where, how.dtype or torch.float32)
        parts.hashes[name] = digest
    return parts
