"""One call from a name or a path to a model that generates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from vdm.layers.attention_backends import Backend
from vdm.pipelines.generate import Generator
from vdm.pretrained import read
from vdm.pretrained.components import parse_dtype


def load(
    source: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    motion: str | Path | None = None,
    profile: str = "diffusers",
    offload: str | None = None,
    quantize: str | None = None,
    compile: bool = False,
    attention: str | None = None,
) -> Generator:
    """Load a model that generates.

    Args:
        source: A bundled name, a model folder, a run's folder or ``final.safetensors``, or a
            Lightning ``.ckpt`` of ours. Averaged weights are preferred.
        dtype: Number format to compute in, e.g. ``"bfloat16"``; float32 by default, whatever the
            files store.
        device: Where to compute; torch's default device if None.
        motion: A motion adapter, for image models.
        profile: Whose numerics, for imported models whose references disagree.
        offload: ``"cpu"`` keeps weights there and moves each part to the device while it works.
        quantize: A quantised weight format, for imported models.
        compile: Compile the network when it is first used.
        attention: Attention kernel: ``auto``, ``plain``, ``sdpa`` or ``flash``.

    Returns:
        The generator.

    Raises:
        FileNotFoundError: If a path leads nowhere.
        ValueError: If the source is no model, or an argument does not apply to it.
    """
    parts = read(source)
    _refuse(parts.name, motion=motion, quantize=quantize)
    if profile != "diffusers":
        raise ValueError(
            f"got profile={profile!r}: {parts.name} has no reference to differ from, "
            "expected the default 'diffusers'"
        )
    generator = Generator(parts, dtype=parse_dtype(dtype), device=device, offload=offload)
    if attention is not None:
        set_attention(generator.network, attention)
    if compile:
        generator.network.compile()
    return generator


def set_attention(network: nn.Module, backend: str) -> int:
    """Choose the attention kernel of every attention layer.

    Returns:
        How many layers there are.

    Raises:
        ValueError: If the kernel is unknown or the network has no attention.
    """
    if backend not in get_args(Backend):
        raise ValueError(
            f"got attention={backend!r}, expected one of {', '.join(get_args(Backend))}"
        )
    layers: list[Any] = [module for module in network.modules() if hasattr(module, "backend")]
    if not layers:
        raise ValueError(f"got attention={backend!r}: {type(network).__name__} has no attention")
    for layer in layers:
        layer.backend = backend
    return len(layers)


def _refuse(name: str, **arguments: object) -> None:
    """Refuse arguments that would be ignored."""
    kinds = {"motion": "an image model", "quantize": "an imported model"}
    for argument, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"got {argument}={str(value)!r}, expected None: {argument} is for "
                f"{kinds[argument]}, and {name} is none"
            )
