"""What all training modules share: optimiser, seeds by position, the description in checkpoints."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from vdm.pretrained.layout import FORMAT
from vdm.pretrained.loading import read_pickled
from vdm.pretrained.parts import Envelope, Parts
from vdm.training.optimizers import OptimizerPlan
from vdm.utils.config import build, describe
from vdm.utils.rng import derive_seed
from vdm.utils.time_grid import TimeGrid

SETTINGS = "settings"


class TrainingModule(L.LightningModule):
    """A model in training: it wires parts together and holds no mathematics.

    Args:
        optimizer: How the parameters are trained.
        seed: Everything that training draws is derived from it.
    """

    def __init__(self, optimizer: OptimizerPlan, seed: int) -> None:
        super().__init__()
        self.optimizer_plan = optimizer
        self.seed = int(seed)

    @abstractmethod
    def parts(self) -> Parts:
        """What the trained model is made of."""

    @torch.no_grad()
    def finish(self, data: Any) -> None:
        """Measure what can only be measured after training.

        Args:
            data: The data module of the run.
        """

    def configure_optimizers(self) -> Any:
        """One optimiser, whose learning rate is a function of the step and ``max_steps``."""
        return self.optimizer_plan.configure(self, self.trainer.max_steps)

    def position(self, batch_idx: int) -> int:
        """Training batches of this rank before the current one, over all continued runs."""
        if self._trainer is None:
            return batch_idx
        return self.trainer.fit_loop.epoch_loop.total_batch_idx

    def positions(self, batch_idx: int, batch_size: int) -> list[int]:
        """Where each sample of the current training batch stands in the run, over all ranks."""
        rank, ranks = (
            (self.trainer.global_rank, self.trainer.world_size) if self._trainer else (0, 1)
        )
        first = (self.position(batch_idx) * ranks + rank) * batch_size
        return list(range(first, first + batch_size))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the global generator by position: dropout in a resumed run goes on exactly."""
        torch.manual_seed(derive_seed(self.seed, "step", *self.positions(batch_idx, 1)))

    def settings(self) -> dict[str, Any]:
        """The arguments that this module was made with."""
        return dict(self._init_args)  # type: ignore[arg-type] # set by @configurable

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the model and this module, so that both can be built from the file alone."""
        checkpoint["vdm"] = json.dumps(self.card())
        checkpoint[SETTINGS] = {name: describe(value) for name, value in self.settings().items()}

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, **changes: Any
    ) -> TrainingModule:
        """The module of a checkpoint, with the averaged weights if there are any.

        Unlike Lightning's own, it needs nothing but the file, and runs nothing that is in it.

        Args:
            checkpoint_path: The file.
            changes: Arguments that are to differ.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, or was not written by this module.
        """
        checkpoint = read_pickled(Path(checkpoint_path))
        if SETTINGS not in checkpoint:
            raise ValueError(f"{checkpoint_path}: not a checkpoint of a {cls.__name__}")
        settings = {name: build(value) for name, value in checkpoint[SETTINGS].items()}
        module = cls(**{**settings, **changes})
        module.load_state_dict(checkpoint["state_dict"])
        return module.eval()

    def card(self) -> dict[str, Any]:
        """The description of the model, as plain data."""
        return {"format": FORMAT, **self.parts().describe()}

    def envelope(self) -> Envelope:
        """What the model is trained on; the usual where no data says so."""
        data = getattr(self._trainer, "datamodule", None)
        clips: Any = getattr(data, "shapes", None) or getattr(data, "videos", None) or data
        if not hasattr(clips, "size") or not hasattr(clips, "num_frames"):
            return Envelope()
        fps = getattr(clips, "fps", None) or Envelope().fps[0]  # real clips have rates of their own
        stride = getattr(getattr(self, "autoencoder", None), "strides", (1, 1, 1))[0]
        view = getattr(data, "view", None)
        grid = TimeGrid(clips.num_frames, fps, stride).every(view.stride if view else 1)
        return Envelope(
            num_frames=(grid.num_frames, grid.num_frames),
            fps=(grid.fps, grid.fps),
            height=(clips.size, clips.size),
            width=(clips.size, clips.size),
        )

    @property
    def split(self) -> str:
        """What evaluation steps log under: ``test`` while testing, else ``val``."""
        return "test" if self._trainer is not None and self.trainer.testing else "val"

    def log_train(self, terms: dict[str, Tensor]) -> None:
        """Log numbers of a training step and the learning rate; the bar shows the loss."""
        for name, value in terms.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "loss")
        if self._trainer is not None and self.trainer.optimizers:
            self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
