"""From a published model, or one of ours, to its network in training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vdm.conditioning.dropout import ConditionDropout
from vdm.conditioning.picture import MovedPicture, Picture
from vdm.diffusion.losses import DenoisingLoss
from vdm.diffusion.preconditioning import (
    DiscreteTimesteps,
    NoPreconditioning,
    SVDPreconditioning,
)
from vdm.diffusion.times import DiscreteUniform, EDMLogNormal, TimeDistribution, Uniform
from vdm.diffusion.weighting import Constant, EDMWeighting, Weighting
from vdm.pretrained.loading import Reading
from vdm.pretrained.parts import Defaults, Parts
from vdm.pretrained.sources import read
from vdm.training.base import TrainingModule
from vdm.training.diffusion_module import OF_THE_DATA, DiffusionModule
from vdm.training.optimizers import OptimizerPlan

SVD_TIMES = EDMLogNormal(mean=0.7, std=1.6)
"""Noise levels of the image-to-video model in training: arXiv:2311.15127, appendix D."""
SVD_WEIGHTING = EDMWeighting(sigma_data=1.0)


class FineTuning(DiffusionModule):
    """A model whose network is trained on as it was trained; all other parts stay as they are.

    What training leaves is a model of the same kind: it is exported like the one that it came from,
    and its checkpoints are those of a :class:`DiffusionModule`, which need the source no longer.

    Args:
        model: What :func:`vdm.load` takes, a cascade aside.
        optimizer: How the network is trained.
        times: Which noise times are visited; those of its own training, as far as they are known,
            if None.
        weighting: How much each counts; likewise.
        dropout: How often a caption, or the picture, is left out.
        motion: A motion adapter, for an image model.
        num_bins: Parts of [0, 1] over which the validation loss is split by noise time.
        name: What the model is called; as before if None.
        seed: Everything that training draws is derived from it.
        compile: Compile the network's layers when they are first used.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is no model, or one that is shown frames, of which nothing says how often.
    """

    def __init__(
        self,
        model: str,
        optimizer: OptimizerPlan,
        times: TimeDistribution | None = None,
        weighting: Weighting | None = None,
        dropout: ConditionDropout = ConditionDropout(),  # noqa: B008 (frozen)
        motion: str | None = None,
        num_bins: int = 8,
        name: str | None = None,
        seed: int = 0,
        compile: bool = False,
    ) -> None:
        parts = read(model, motion=motion, how=Reading(dtype=torch.float32))
        network = _trainable(parts, model)
        usual = {key: getattr(Defaults(), key) for key in OF_THE_DATA}
        arguments: dict[str, Any] = {
            "network": network,
            "loss": _loss(parts, times, weighting),
            "optimizer": optimizer,
            "text_encoder": parts.text_encoder,
            "autoencoder": parts.autoencoder,
            "dropout": dropout,
            "defaults": replace(parts.defaults, **usual),
            "num_bins": num_bins,
            "name": name or parts.name,
            "seed": seed,
            "compile": compile,
            "picture": _picture(parts, dropout),
        }
        super().__init__(**arguments)
        self._init_args = arguments

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, **changes: Any
    ) -> TrainingModule:
        """The module of a checkpoint, see :meth:`TrainingModule.load_from_checkpoint`."""
        return DiffusionModule.load_from_checkpoint(checkpoint_path, **changes)


def _trainable(parts: Parts, source: str) -> nn.Module:
    """The network of a model that can be trained on as it is."""
    if parts.network is None or parts.schedule is None:
        raise ValueError(f"got {source}, which has no network to train on")
    if parts.given is not None and not isinstance(parts.given, Picture):
        raise ValueError(
            f"got {source}, which is shown frames: expected a recipe of DiffusionModule with "
            "start and frames"
        )
    return parts.network.requires_grad_(True)


def _picture(parts: Parts, dropout: ConditionDropout) -> MovedPicture | None:
    """What a network is told of the first frame, if it moves pictures."""
    if not isinstance(parts.given, Picture) or parts.image_encoder is None:
        return None
    return MovedPicture(parts.image_encoder, parts.given, dropout=dropout.probability)


def _loss(
    parts: Parts, times: TimeDistribution | None, weighting: Weighting | None
) -> DenoisingLoss:
    """The loss of the model's own rules."""
    scales = parts.preconditioning or NoPreconditioning()
    usual: tuple[TimeDistribution, Weighting] = Uniform(), Constant()
    if isinstance(scales, SVDPreconditioning):
        usual = SVD_TIMES, SVD_WEIGHTING
    elif isinstance(scales, DiscreteTimesteps):
        usual = DiscreteUniform(scales.num_steps), Constant()
    return DenoisingLoss(
        parts.schedule, parts.target, scales, times or usual[0], weighting or usual[1]
    )
