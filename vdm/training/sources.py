"""What a run takes from trained models: a frozen autoencoder, weights to start from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vdm.pretrained.loading import fill
from vdm.pretrained.sources import read


@dataclass(frozen=True)
class Start:
    """A trained model of another shape to start from.

    Args:
        source: A bundled name; a folder, a run's folder or a file.
        new: Beginnings of the names of what is not taken from it, e.g. ``patch_embed``.
    """

    source: str
    new: Sequence[str] = ()


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


def start_from(source: str | Path | Start, modules: Mapping[str, nn.Module]) -> None:
    """Copy a trained model's averaged weights into the same parts of a new one.

    A network may be told more numbers than the trained one was (``scalars``): what embeds those is
    new.

    Args:
        source: A bundled name; a folder, a run's folder or a file; or which parts of one.
        modules: Parts to fill, by name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the source lacks a part, or has it in another shape; or nothing is called as
            that which is to be new.
    """
    begin = source if isinstance(source, Start) else Start(str(source))
    new, trained = tuple(begin.new), read(begin.source).modules
    names = [key for module in modules.values() for key in module.state_dict()]
    for word in new:
        if not any(name.startswith(word) for name in names):
            groups = {name.rpartition(".")[0] for name in names}
            nearest = difflib.get_close_matches(word, groups, 1, 0)[0]
            raise ValueError(f"got start.new={word!r}, which names nothing; nearest {nearest!r}")
    for name, module in modules.items():
        if name not in trained:
            raise ValueError(f"got {begin.source} to start from, which has no {name}")
        trainable = [p for p in module.parameters() if p.requires_grad]
        own = {key: value for key, value in module.state_dict().items() if key.startswith(new)}
        taken = trained[name].state_dict().items()
        state = {**_of_new_scalars(module, trained[name]), **own}
        state |= {key: value for key, value in taken if not key.startswith(new)}
        fill(module, state, f"{begin.source}, {name}").train()
        for parameter in trainable:
            parameter.requires_grad_(True)


def _of_new_scalars(module: nn.Module, trained: nn.Module) -> dict[str, Tensor]:
    """The state of a module that embeds numbers which another one is not told."""
    known = set(getattr(trained, "scalars", ()))
    new = tuple(
        f"scalar_embeds.{name}." for name in getattr(module, "scalars", ()) if name not in known
    )
    return {key: value for key, value in module.state_dict().items() if key.startswith(new)}
