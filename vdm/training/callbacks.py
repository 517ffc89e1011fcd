"""What a run shows while it goes on: a bar, its speed."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.profilers import PassThroughProfiler, Profiler

WAITING = "train_dataloader_next"
"""How the loop calls its waiting for a batch."""


class ProgressBar(TQDMProgressBar):
    """On a terminal a bar that moves with every step; in a file a line now and then."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if sys.stderr.isatty() else 50)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A bar over all steps of the run, those of the runs that it continues included."""
        super().on_train_start(trainer, pl_module)
        self._over_the_run(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Passes over the data do not show."""
        super().on_train_epoch_start(trainer, pl_module)
        self._over_the_run(trainer)

    def _over_the_run(self, trainer: L.Trainer) -> None:
        bar = self.train_progress_bar
        steps = trainer.max_steps * trainer.accumulate_grad_batches
        done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        bar.reset(steps if steps > 0 else None)
        bar.initial = bar.n = done
        bar.set_description("training")

    def init_validation_tqdm(self) -> Any:
        """The bar of validation, on a terminal only."""
        bar = super().init_validation_tqdm()
        bar.disable = bar.disable or not sys.stderr.isatty()
        return bar

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What is logged for the bar; the number of the run is no news."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return items


class DataClock(Profiler):
    """Another profiler, and the seconds for which the loop has waited for batches of training.

    Args:
        inner: The other profiler.
    """

    def __init__(self, inner: Profiler) -> None:
        super().__init__()
        self.inner, self.seconds, self._since = inner, 0.0, 0.0

    def start(self, action_name: str) -> None:
        """An action begins."""
        self.inner.start(action_name)
        if action_name.endswith(WAITING):
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """An action ends."""
        if action_name.endswith(WAITING):
            self.seconds += time.perf_counter() - self._since
        self.inner.stop(action_name)

    def summary(self) -> str:
        """What the other one has to say."""
        return self.inner.summary()

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        """Told to the other one."""
        self.inner.setup(stage, local_rank, log_dir)

    def teardown(self, stage: str | None) -> None:
        """Told to the other one."""
        self.inner.teardown(stage)

    def describe(self) -> None:
        """Told to the other one."""
        self.inner.describe()


class Throughput(Callback):
    """Clips per second over the last steps, and the share of the time that data was waited for.

    Both are in the progress bar and the logs, the share in percent.

    Args:
        every_n_steps: Steps that one figure covers.

    Raises:
        ValueError: If that is none.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        if every_n_steps < 1:
            raise ValueError(f"got every_n_steps={every_n_steps}, expected at least 1")
        self.every_n_steps = every_n_steps
        self._clock = DataClock(PassThroughProfiler())
        self._restart()

    def _restart(self) -> None:
        self._clips, self._batches, self._since = 0, 0, time.perf_counter()
        self._clock.seconds = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Have the loop say when it waits for data."""
        self._clock = DataClock(trainer.profiler)  # type: ignore[attr-defined]
        trainer.profiler = self._clock  # type: ignore[attr-defined]

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the trainer as it was."""
        trainer.profiler = self._clock.inner  # type: ignore[attr-defined]

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
            seconds = time.perf_counter() - self._since
            pl_module.log("clips/s", self._clips / seconds, prog_bar=True)
            pl_module.log("data wait %", 100 * self._clock.seconds / seconds, prog_bar=True)
            self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation does not count."""
        self._restart()
