"""Checkpoints that are whole or absent, and which of them a run goes on from."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

FOLDER = "checkpoints"
_TEMPORARY = ".tmp-"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under another name, forces it to disk, then gives it its own."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


class Checkpoints(ModelCheckpoint):
    """A checkpoint every so many steps; the newest ones are kept.

    Args:
        every_n_steps: Optimiser steps from one to the next.
        keep: How many are kept. More than one, so that a damaged one does no harm.
        folder: Where; by default ``checkpoints`` in the folder of the run.
    """

    def __init__(self, every_n_steps: int = 500, keep: int = 2, folder: str | None = None) -> None:
        super().__init__(
            dirpath=folder,
            filename="step-{step:08d}",
            monitor="step",
            mode="max",
            save_top_k=keep,
            every_n_train_steps=every_n_steps,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )


def is_whole(path: Path) -> bool:
    """Whether a checkpoint can be read to its last byte."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint in a folder that is whole; others are skipped with a line each.

    Args:
        folder: Of the checkpoints; need not exist.
    """
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        if is_whole(path):
            return path
        print(f"{path}: damaged, skipped", file=sys.stderr)
    return None


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed run was writing."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        path.unlink()
