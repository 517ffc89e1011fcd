"""Which rule moves which parameter, and how far: optimiser plans that a recipe chooses from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vdm.training.muon import MuonAdamW
from vdm.training.rates import ConstantRate, RateSchedule


class OptimizerPlan(ABC):
    """How the parameters of a module are trained."""

    rate: RateSchedule

    @abstractmethod
    def optimizer(self, module: nn.Module) -> Optimizer:
        """The optimiser of a module's trainable parameters."""

    def configure(self, module: nn.Module, total_steps: int) -> dict[str, Any]:
        """The optimiser with its learning rate per step, as Lightning takes them.

        Args:
            module: The module.
            total_steps: Optimiser steps of the whole run, -1 where it has no end.

        Raises:
            ValueError: If the run's length does not fit the schedule.
        """
        self.rate.check(total_steps)
        optimizer = self.optimizer(module)
        rate = self.rate
        # A plain function: its state would go into checkpoints, the length of the run with it.
        scheduler = LambdaLR(optimizer, lambda step: rate.factor(step, total_steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def split_parameters(
    module: nn.Module, outer: Sequence[str] = ()
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Sort trainable parameters by how they should be treated.

    Args:
        module: The module.
        outer: Parts of parameter names that mark matrices next to the data, which are no hidden
            ones.

    Returns:
        Hidden matrices (and kernels); outer matrices; vectors, biases and embeddings.
    """
    tables = {
        id(parameter)
        for child in module.modules()
        if isinstance(child, nn.Embedding)
        for parameter in child.parameters(recurse=False)
    }
    hidden, others, flat = [], [], []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or id(parameter) in tables or name.endswith("_embed"):
            flat.append(parameter)
        elif any(word in name for word in outer):
            others.append(parameter)
        else:
            hidden.append(parameter)
    return hidden, others, flat


def _groups(*groups: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]


@dataclass(frozen=True)
class AdamWPlan(OptimizerPlan):
    """AdamW; vectors, biases and embeddings do not decay.

    Args:
        lr: Peak learning rate.
        weight_decay: Of matrices and kernels.
        betas: Decay rates of the two moments.
        eps: Added to the root of the second moment.
        rate: The learning rate over the run.

    Source:
        Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", arXiv:1711.05101.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    rate: RateSchedule = field(default_factory=ConstantRate)

    def optimizer(self, module: nn.Module) -> Optimizer:
        """AdamW over two groups."""
        hidden, outer, flat = split_parameters(module)
        groups = _groups(
            {"params": hidden + outer, "weight_decay": self.weight_decay},
            {"params": flat, "weight_decay": 0.0},
        )
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


@dataclass(frozen=True)
class MuonPlan(OptimizerPlan):
    """Muon for hidden matrices, AdamW for the rest, in one optimiser.

    Args:
        lr: Peak learning rate of both.
        weight_decay: Of matrices and kernels.
        momentum: Of Muon.
        newton_schulz_steps: Iterations per step of a matrix.
        newton_schulz_dtype: Their precision: bfloat16 is half the work on processors that have it.
        betas: Decay rates of AdamW's two moments.
        outer: Parts of the names of matrices that AdamW trains: those next to the data.
        rate: The learning rate over the run.

    Source:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
        https://kellerjordan.github.io/posts/muon.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    momentum: float = 0.95
    newton_schulz_steps: int = 5
    newton_schulz_dtype: Literal["float32", "bfloat16"] = "float32"
    betas: tuple[float, float] = (0.9, 0.99)
    outer: Sequence[str] = ("embed", "final", "modulation", "discriminator")
    rate: RateSchedule = field(default_factory=ConstantRate)

    def optimizer(self, module: nn.Module) -> Optimizer:
        """One optimiser over three groups."""
        hidden, outer, flat = split_parameters(module, self.outer)
        groups = _groups(
            {"params": hidden, "orthogonal": True},
            {"params": outer},
            {"params": flat, "weight_decay": 0.0},
        )
        return MuonAdamW(
            groups,
            lr=self.lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            newton_schulz_steps=self.newton_schulz_steps,
            newton_schulz_dtype=getattr(torch, self.newton_schulz_dtype),
            betas=self.betas,
        )
