"""What a run shows while it goes on: its speed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Clips per second over the last steps, in the progress bar and the logs.

    Args:
        every_n_steps: Steps that one figure covers.

    Raises:
        ValueError: If that is none.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        if every_n_steps < 1:
            raise ValueError(f"got every_n_steps={every_n_steps}, expected at least 1")
        self.every_n_steps = every_n_steps
        self._restart()

    def _restart(self) -> None:
        self._clips, self._batches, self._since = 0, 0, time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        self._restart()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Mapping[str, Any],
        batch_idx: int,
    ) -> None:
        """Count the clips of a batch over all ranks."""
        self._clips += len(batch["index"]) * trainer.world_size
        self._batches += 1
        if self._batches == self.every_n_steps:
            rate = self._clips / (time.perf_counter() - self._since)
            pl_module.log("clips/s", rate, prog_bar=True)
            self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation does not count."""
        self._restart()
