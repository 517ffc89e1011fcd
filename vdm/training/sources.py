"""Where a frozen autoencoder comes from: a bundled model, a model folder, a run."""

from __future__ import annotations

from pathlib import Path

from torch import nn

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
