"""Looking at a model while it trains, without a trace in how the run ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from vdm.training.averaging import EMA
from vdm.training.base import TrainingModule


class Look(Callback, ABC):
    """Something that is done every so many optimiser steps; see :meth:`look`.

    Args:
        every_n_steps: Optimiser steps from one time to the next.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self._step = 0

    @abstractmethod
    def look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Any:
        """What is done."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A resumed run has looked at the step that it goes on from."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look when it is time: once after a step, however many batches it takes."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if self._step % self.every_n_steps == 0 and trainer.is_global_zero:
            self.look(trainer, pl_module)


@contextmanager
def averaged_model(trainer: L.Trainer, pl_module: L.LightningModule) -> Iterator[Any]:
    """A generator with the averaged weights, where there are any.

    Modes of the modules and the state of torch's generators are put back afterwards.

    Args:
        trainer: Of the run.
        pl_module: The module in training.
    """
    from vdm.pipelines.generate import Generator

    average = next((c for c in trainer.callbacks if isinstance(c, EMA)), None)  # type: ignore[attr-defined]
    module = average.raw_and_averaged(pl_module)[1] if average else pl_module
    assert isinstance(module, TrainingModule)
    assert isinstance(pl_module, TrainingModule)
    parts = module.parts()
    # The copy that holds the average does not know the data; the module in training does.
    parts.defaults, parts.envelope = pl_module.parts().defaults, pl_module.envelope()
    training = {name: part.training for name, part in parts.modules.items()}
    with torch.random.fork_rng(devices=[]):
        for part in parts.modules.values():
            part.eval()
        try:
            yield Generator(parts, device=module.device)
        finally:
            for name, part in parts.modules.items():
                part.train(training[name])
