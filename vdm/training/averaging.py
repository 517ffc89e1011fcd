"""Averaged weights: Lightning's callback, with an average that forgets its start faster."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class EMA(WeightAveraging):
    """Exponential moving average of the weights, after every optimiser step.

    Validation, samples and the final file use the average. After training the module holds it, and
    this callback the weights of the last step.

    Args:
        decay: Share of the average that stays, late in the run.
        warmup: After ``k`` updates the share is at most ``(1 + k) / (warmup + k)``.

    Raises:
        ValueError: If the decay is not in [0, 1), or the warm-up is below 1.

    Source:
        Polyak & Juditsky 1992; the warm-up is that of ``tf.train.ExponentialMovingAverage``, where
        it is fixed at 10.
    """

    def __init__(self, decay: float = 0.999, warmup: float = 10.0) -> None:
        if not 0 <= decay < 1 or warmup < 1:
            raise ValueError(f"got decay={decay}, warmup={warmup}, expected [0, 1) and at least 1")
        super().__init__(use_buffers=False, multi_avg_fn=self._average)
        self.decay = decay
        self.warmup = warmup
        self._swapped = False

    def _average(
        self, averages: Sequence[Tensor], currents: Sequence[Tensor], num_averaged: Tensor | int
    ) -> None:
        count = float(num_averaged)
        decay = min(self.decay, (1 + count) / (self.warmup + count))
        for average, current in zip(averages, currents, strict=True):
            average.lerp_(current, 1 - decay)

    def raw_and_averaged(
        self, module: L.LightningModule
    ) -> tuple[L.LightningModule, L.LightningModule]:
        """The module with the weights of the last step, and the one with the average.

        Args:
            module: The module in training.

        Raises:
            ValueError: If no run has begun.
        """
        if self._average_model is None:
            raise ValueError("got no average yet, expected a run that has begun")
        average = self._average_model.module
        assert isinstance(average, L.LightningModule)
        return (average, module) if self._swapped else (module, average)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hand the average to the module; keep the weights of the last step."""
        self._swap_models(pl_module)
        self._swapped = True
