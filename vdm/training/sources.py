"""What a run takes from trained models: a frozen autoencoder, weights to start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

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

    A network may be told more numbers than the trained one was (``scalars``): what embeds those is
    new.

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
        state = {**_of_new_scalars(module, trained[name]), **trained[name].state_dict()}
        fill(module, state, f"{source}, {name}").train()
        for parameter in trainable:
            parameter.requires_grad_(True)


def _of_new_scalars(module: nn.Module, trained: nn.Module) -> dict[str, Tensor]:
    """The state of a module that embeds numbers which another one is not told."""
    known = set(getattr(trained, "scalars", ()))
    new = tuple(
        f"scalar_embeds.{name}." for name in getattr(module, "scalars", ()) if name not in known
    )
    return {key: value for key, value in module.state_dict().items() if key.startswith(new)}
