"""What a finished run leaves: one file with both sets of weights; what ``predict`` leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, Callback
from torch import Tensor

from vdm.pretrained.loading import write_safetensors
from vdm.training.averaging import EMA
from vdm.training.base import TrainingModule

FILE = "final.safetensors"


class FinalWeights(Callback):
    """Writes ``final.safetensors`` when a run is complete.

    The file holds nothing that varies between equal runs. Without a callback that averages weights
    the averaged ones are those of the last step.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure what is left to measure, for both sets of weights, and write them."""
        if not isinstance(pl_module, TrainingModule):
            raise TypeError(f"got {type(pl_module).__name__}, expected a TrainingModule")
        average = next((c for c in trainer.callbacks if isinstance(c, EMA)), None)  # type: ignore[attr-defined]
        raw, ema = average.raw_and_averaged(pl_module) if average else (pl_module, pl_module)
        if not trainer.is_global_zero:
            return
        tensors: dict[str, Tensor] = {}
        for prefix, module in {"raw": raw, "ema": ema}.items():
            assert isinstance(module, TrainingModule)
            training = module.training
            module.eval()
            with torch.random.fork_rng(devices=[]):
                module.finish(trainer.datamodule)  # type: ignore[attr-defined]
            module.train(training)
            for part, network in module.parts().modules.items():
                state = network.state_dict()
                tensors |= {f"{prefix}.{part}.{key}": value for key, value in state.items()}
        card = json.dumps(pl_module.card(), sort_keys=True)
        write_safetensors(tensors, self.folder / FILE, {"vdm": card})


class Predictions(BasePredictionWriter):
    """Writes what ``predict_step`` returns: ``predictions/batch-*.safetensors``.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__("batch")
        self.folder = Path(folder) / "predictions"

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove what an earlier call wrote: it may have had more batches."""
        if trainer.is_global_zero:
            for path in self.folder.glob("batch-*.safetensors"):
                path.unlink()
        trainer.strategy.barrier()

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """One file per batch: the predictions, and the numbers of their clips."""
        name = f"batch-{batch_idx:06d}-{trainer.global_rank}.safetensors"
        tensors = {"predictions": prediction, "index": torch.as_tensor(batch["index"])}
        write_safetensors(tensors, self.folder / name)
