"""What CLIP's text and image transformers share: transformers builds them, wherever tensors lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def build_clip(kind: str, config: Mapping[str, Any]) -> Any:
    """A module of transformers with random weights.

    Its tables of positions, which are in no file, are there even where it is built on the meta
    device.

    Args:
        kind: Name of its class.
        config: Settings of that class.

    Raises:
        ValueError: If transformers is not installed, or refuses the settings.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ValueError(
            "CLIP's encoders need transformers: pip install 'vdm[transformers]'"
        ) from error
    made = getattr(transformers, kind)
    try:
        model = made(made.config_class(**config))
    except Exception as error:  # settings of others, of which each goes wrong in its own way
        said = " ".join(str(error).split())
        raise ValueError(f"got settings of which there is no {kind}: {said}") from error
    for name, table in list(model.named_buffers()):
        owner, _, last = name.rpartition(".")
        places = torch.arange(table.numel(), device="cpu").reshape(table.shape)
        model.get_submodule(owner).register_buffer(last, places, persistent=False)
    return model
