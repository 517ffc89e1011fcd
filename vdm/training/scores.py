"""Scores while a run goes on: those of ``vdm evaluate``, every so many steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

from vdm.training.base import TrainingModule
from vdm.training.looking import Look, averaged_model


class Scores(Look):
    """Scores the averaged weights, into the logs and a folder for every time.

    It draws from generators of its own, so that a run with it ends like a run without; what was
    measured of real clips is not measured again.

    Args:
        every_n_steps: Optimiser steps from one time to the next.
        protocols: As in ``vdm evaluate``.
        data: A split of the world, or a folder of video.
        n: Clips.
        num_objects: For splits of the world.
        batch_size: Clips made together.
        steps: Sampling steps; the model's own if None.
        guidance_scale: The model's own if None.
        seed: Decides the noise, the same at every time.

    Raises:
        ValueError: If the distance is not positive.
    """

    def __init__(
        self,
        every_n_steps: int = 5000,
        protocols: Sequence[str] = ("caption-accuracy", "fmd/flow"),
        data: str = "val",
        n: int = 64,
        num_objects: Sequence[int] = (1,),
        batch_size: int = 16,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"got every_n_steps={every_n_steps}, expected at least 1")
        super().__init__(every_n_steps)
        self.protocols, self.data, self.n = tuple(protocols), data, n
        self.num_objects, self.batch_size = tuple(num_objects), batch_size
        self.settings: dict[str, Any] = {"steps": steps, "guidance_scale": guidance_scale}
        self.seed = seed

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find out now what cannot be scored: it should not stop a run after hours.

        Raises:
            ValueError: If a protocol is unknown, or the model makes no clips.
        """
        from vdm.pipelines.evaluate import check_protocols

        check_protocols(self.protocols, self.n, self.batch_size)
        assert isinstance(pl_module, TrainingModule)
        if pl_module.parts().network is None:
            raise ValueError("got a model that makes no clips, expected no Scores in callbacks")

    def look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Path:
        """Score now.

        Returns:
            The folder with ``scores.json`` and the measurements.
        """
        from vdm.pipelines.evaluate import evaluate
        from vdm.pipelines.evaluate_report import GENERATED

        root = Path(trainer.default_root_dir) / "scores"
        folder = root / f"step-{trainer.global_step:08d}"
        earlier = sorted(path for path in root.glob("step-*") if path < folder)
        with averaged_model(trainer, pl_module) as generate:
            result = evaluate(
                generate,
                self.data,
                self.protocols,
                n=self.n,
                num_objects=self.num_objects,
                out=folder,
                batch_size=self.batch_size,
                seed=self.seed,
                baselines=False,
                known=earlier[-1] if earlier else None,
                **self.settings,
            )
        values = {
            f"scores/{data}/{name}".replace(" ", "-"): score.value
            for data, sources in result.scores.items()
            for name, score in sources.get(GENERATED, {}).items()
            if not score.not_enough
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, trainer.global_step)
        return folder
