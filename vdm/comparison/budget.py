"""How many operations a training step takes, and how many steps a budget pays for.

Counted are the products of the forward and the backward pass of everything that is trained, by
torch's own counter, on real latents and captions. Not counted: the optimiser, element-wise work,
and what all arms share (drawing clips, encoding them once, validation).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vdm.comparison.experiment import Budget
from vdm.data.datamodules import ShapesLatents
from vdm.training.cli import build, quiet
from vdm.training.diffusion_module import DiffusionModule
from vdm.utils.video_io import from_uint8

TOLERANCE = 0.01
"""Largest relative difference between the budgets of two arms."""
NUM_COUNTED = 4
"""Samples that the operations are counted on."""


@dataclass(frozen=True)
class StepCost:
    """What one training step takes.

    Args:
        forward_flops: Operations of the forward pass of a batch.
        backward_flops: Operations of the backward pass.
        batch_size: Samples in the batch.
        num_parameters: Trained parameters.
    """

    forward_flops: int
    backward_flops: int
    batch_size: int
    num_parameters: int

    @property
    def flops(self) -> int:
        """Operations of a step."""
        return self.forward_flops + self.backward_flops

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def build_stage(
    configs: Sequence[Path], overrides: Sequence[str], folder: str | Path
) -> tuple[DiffusionModule, ShapesLatents]:
    """What a recipe trains, and on what.

    Args:
        configs: Recipe first, then overlays.
        overrides: Keys on the command line.
        folder: Where the run would write; nothing is written.

    Raises:
        TypeError: If the recipe trains no diffusion model on latents.
        ValueError: If the recipe cannot be read.
    """
    with quiet():
        module, data, _ = build(configs, overrides, folder)
    if not isinstance(module, DiffusionModule) or not isinstance(data, ShapesLatents):
        raise TypeError(
            f"got {type(module).__name__} on {type(data).__name__}, expected a DiffusionModule on "
            "ShapesLatents"
        )
    return module, data


def count_step(module: DiffusionModule, data: ShapesLatents) -> StepCost:
    """Count the operations of one step.

    Args:
        module: What is trained; it is left with gradients.
        data: What it is trained on; no cache is made.
    """
    spec, stride = data.shapes, data.view.stride
    pairs = [spec.source("train").clip(index) for index in range(NUM_COUNTED)]
    video = from_uint8(torch.stack([torch.from_numpy(frames) for frames, _ in pairs]))
    latents = module.latents({"video": video})[:, :, ::stride]
    batch = {
        "latents": latents,
        "caption": [caption for _, caption in pairs],
        "index": torch.arange(NUM_COUNTED),
        "fps": torch.full((NUM_COUNTED,), spec.fps / stride),
    }
    if data.view.low_size is not None:
        batch["hint"] = latents
    module.train()
    with FlopCounterMode(display=False) as forward, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody logs here
        loss = module.training_step(batch, 0)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    size = data.batch_size
    scale = size / NUM_COUNTED
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return StepCost(
        round(forward.get_total_flops() * scale),
        round(backward.get_total_flops() * scale),
        size,
        trained,
    )


def steps_within(budget: Budget, cost: StepCost, share: float = 1.0) -> int:
    """Steps that come closest to a budget.

    Args:
        budget: What there is.
        cost: Of one step.
        share: Part of the budget.

    Raises:
        ValueError: If whole steps cannot meet a budget of operations within 1 %.
    """
    if budget.steps is not None:
        return max(1, round(budget.steps * share))
    if budget.samples is not None:
        return max(1, round(budget.samples * share / cost.batch_size))
    wanted = float(budget.flops or 0) * share
    steps = max(1, round(wanted / cost.flops))
    if abs(steps * cost.flops / wanted - 1) > TOLERANCE:
        raise ValueError(
            f"got a budget of {wanted:.3g} operations for steps of {cost.flops:.3g}: no whole "
            f"number of steps comes within 1 %, expected at least {50 * cost.flops:.3g}"
        )
    return steps
