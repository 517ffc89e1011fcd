"""What the model can do by now: fixed captions and fixed noise, sampled every so many steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from lightning.pytorch.loggers import TensorBoardLogger

from vdm.training.base import TrainingModule
from vdm.training.looking import Look, averaged_model

PROMPTS = (
    "a large red circle moves left slowly.",
    "a small striped blue square spins clockwise quickly.",
    "a large green star bounces off the walls slowly.",
    "a small yellow triangle moves up quickly and a large purple cross stays still.",
)
COLUMNS = 8
"""Frames of a clip that are shown side by side."""


class SampleGrid(Look):
    """Samples with the averaged weights: a picture for TensorBoard, a moving one in a folder.

    It draws from generators of its own, so that a run with it ends like a run without.

    Args:
        every_n_steps: Optimiser steps from one grid to the next.
        prompts: One row each.
        steps: Sampling steps.
        guidance_scale: 1 is no guidance.
        seed: Decides the noise, the same at every step of the run.

    Raises:
        ValueError: If there is no prompt, or the distance is not positive.
    """

    def __init__(
        self,
        every_n_steps: int = 2000,
        prompts: Sequence[str] = PROMPTS,
        steps: int = 25,
        guidance_scale: float = 3.0,
        seed: int = 0,
    ) -> None:
        if every_n_steps < 1 or not prompts:
            raise ValueError(
                f"got every_n_steps={every_n_steps} and {len(prompts)} prompts, "
                "expected at least 1 of both"
            )
        super().__init__(every_n_steps)
        self.prompts = list(prompts)
        self.steps = steps
        self.guidance_scale = guidance_scale
        self.seed = seed

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find out now what cannot be sampled: it should not stop a run after hours.

        Raises:
            ValueError: If the model makes no clips, or does not read a prompt.
        """
        from vdm.pipelines.generate import Generator

        assert isinstance(pl_module, TrainingModule)
        with torch.random.fork_rng(devices=[]):
            Generator(pl_module.parts(), device=pl_module.device).check_prompt(self.prompts)

    def look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Path:
        """Sample now.

        Returns:
            The file with the clips side by side.
        """
        with averaged_model(trainer, pl_module) as generate:
            clip = generate(
                self.prompts,
                steps=self.steps,
                guidance_scale=self.guidance_scale,
                seed=self.seed,
                progress=False,
            )
        path = Path(trainer.default_root_dir) / "samples" / f"step-{trainer.global_step:08d}.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        clip.save(path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(
                    "samples", grid(clip.uint8()), trainer.global_step, dataformats="HWC"
                )
        return path


def grid(clips: UInt8[np.ndarray, "b t h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A clip per row, frames spread over its length from left to right."""
    count = min(COLUMNS, clips.shape[1])
    chosen = np.linspace(0, clips.shape[1] - 1, count).round().astype(int)
    return rearrange(clips[:, chosen], "b t h w c -> (b h) (t w) c")
