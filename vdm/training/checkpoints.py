"""Checkpoints that are whole or absent, and which of them a run goes on from."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

FOLDER = "checkpoints"
PATTERN = "step-*.ckpt"
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

    Raises:
        ValueError: If none would be kept.
    """

    def __init__(self, every_n_steps: int = 500, keep: int = 2, folder: str | None = None) -> None:
        if keep < 1:
            raise ValueError(f"got keep={keep}, expected at least 1")
        super().__init__(
            dirpath=folder,
            filename="step-{step:08d}",
            save_top_k=-1,
            every_n_train_steps=every_n_steps,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.keep = keep

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:  # those that a killed run left, too
            older = sorted(p for p in Path(filepath).parent.glob(PATTERN) if p != Path(filepath))
            for path in older[: max(0, len(older) + 1 - self.keep)]:
                path.unlink()


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
    for path in sorted(folder.glob(PATTERN), reverse=True):
        if is_whole(path):
            return path
        print(f"{path}: damaged, skipped", file=sys.stderr)
    return None


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed run was writing."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        path.unlink()
