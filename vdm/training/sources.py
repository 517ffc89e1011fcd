"""What a run takes from trained models: a frozen autoencoder, weights to start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from vdm.pretrained.loading import fill
from vdm.pretrained.sources import read


def read_autoencoder(source: str | Path) -> nn.Module:
    """The autoencoder of a model, averaged weights, in eval mode and without gradients.

    Args:
        source: A bundled name; a folder, a run's folder or a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the source is damaged, unknown, or has no autoencoder.
    """
    autoencoder = read(source).autoencoder
    if autoencoder is None:
        raise ValueError(f"got {source}, which has no autoencoder; expected a model with one")
    return autoencoder


def start_from(source: str | Path, modules: Mapping[str, nn.Module]) -> None:
    """Copy a trained model's averaged weights into the same parts of a new one.

    Args:
        source: A bundled name; a folder, a run's folder or a file.
        modules: Parts to fill, by name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the source lacks a part, or has it in another shape.
    """
    trained = read(source).modules
    for name, module in modules.items():
        if name not in trained:
            raise ValueError(f"got {source} to start from, which has no {name}")
        trainable = [p for p in module.parameters() if p.requires_grad]
        fill(module, trained[name].state_dict(), f"{source}, {name}").train()
        for parameter in trainable:
            parameter.requires_grad_(True)
