"""One call from a name or a path to a model that generates."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from vdm.conditioning.smaller import SmallerClip
from vdm.layers.attention_backends import Backend
from vdm.models.regions import compile_regions
from vdm.pipelines.cascade import Cascade, make_stage
from vdm.pipelines.generate import Generator
from vdm.pipelines.quantize import quantize as quantize_parts
from vdm.pipelines.upscale import Upscaler
from vdm.pretrained import read
from vdm.pretrained.cascades import StageCard, is_cascade, read_cascade
from vdm.pretrained.certificates import certificate
from vdm.pretrained.components import parse_dtype
from vdm.pretrained.diffusers_control import Control
from vdm.pretrained.loading import Reading
from vdm.pretrained.lora import Lora
from vdm.pretrained.parts import Parts
from vdm.pretrained.sources import locate


def load(
    source: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    motion: str | Path | None = None,
    lora: Lora | None = None,
    control: Control | None = None,
    variant: str | None = None,
    profile: str = "diffusers",
    offload: str | None = None,
    quantize: str | None = None,
    compile: bool = False,
    attention: str | None = None,
) -> Generator:
    """Load a model that generates.

    Of a published system it says, on the error stream, how close it is to its reference.

    Args:
        source: A bundled name, a model folder of ours or in diffusers' layout, a cascade's, the
            single file of a model's authors, LaVie's release or one of its files, a run's folder or
            ``final.safetensors``, or a Lightning ``.ckpt`` of ours. Averaged weights are preferred.
        dtype: Number format to compute in, e.g. ``"bfloat16"``; float32 by default, whatever the
            files store.
        device: Where to compute; torch's default device if None.
        motion: A motion adapter, for image models: a folder, its authors' file, or a name on the
            hub.
        lora: Low-rank changes that are added to the weights of a model in diffusers' layout: a file
            (of diffusers, PEFT, kohya's scripts or AnimateDiff's authors), a folder with one, or a
            name on the hub; several of them; or ``{source: scale}``.
        control: SparseCtrl, which steers a model with motion modules by given frames: a folder, its
            authors' file, or a name on the hub; or ``{source: scale}``.
        variant: Which weights of a model in diffusers' layout that has several, e.g. ``fp16``; the
            plain ones if None.
        profile: Whose numerics, for imported models whose references disagree.
        offload: ``"cpu"`` keeps weights there and moves each part to the device while it works.
        quantize: ``int8`` holds the weights of linear maps in eight bits, ``int8-dynamic`` computes
            in eight bits too. What it saves and how far the weights are off is said on the error
            stream, and the format in every clip.
        compile: Compile the network when it is first used.
        attention: Attention kernel: ``auto``, ``plain``, ``sdpa`` or ``flash``.

    Returns:
        The generator; a cascade is one too.

    Raises:
        FileNotFoundError: If a path leads nowhere.
        ValueError: If the source is no model, or an argument does not apply to it.
    """
    cards: list[StageCard] = []
    number = parse_dtype(dtype) or torch.float32
    how = Reading(variant, number)
    if is_cascade(source):
        name, cards = read_cascade(source)
        models = _read_stages(locate(source), [card.model for card in cards], how)
    else:
        models = {"": read(source, "ema", motion, profile, lora, control, how)}
        name = models[""].name
    if cards:
        _refuse(name, motion=motion, lora=lora, control=control, variant=variant)
    generators = {}
    for place, parts in models.items():
        if quantize is not None:
            print(f"{parts.name}: {quantize_parts(parts, quantize)}", file=sys.stderr)
        kind = Upscaler if isinstance(parts.given, SmallerClip) else Generator
        made = kind(parts, dtype=number, device=device, offload=offload)
        if attention is not None:
            set_attention(made.network, attention)
        if compile:
            compile_regions(made.network)
        generators[place] = made
        if found := certificate(parts.system):
            print(found, file=sys.stderr)
    if not cards:
        return generators[""]
    return Cascade([make_stage(card, generators[card.model]) for card in cards], name)


def _read_stages(folder: Path, places: Sequence[str], how: Reading) -> dict[str, Parts]:
    """The models of a cascade by folder; an encoder that several have is held once."""
    models: dict[str, Parts] = {}
    shared: dict[tuple[str, str], nn.Module | None] = {}
    for place in dict.fromkeys(places):
        parts = models[place] = read(folder / place, how=how)
        for name in ("autoencoder", "text_encoder"):
            if digest := parts.hashes.get(name):
                module = shared.setdefault((name, digest), getattr(parts, name))
                setattr(parts, name, module)
    return models


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
    kinds = {"motion": "an image model"}
    kinds |= dict.fromkeys(("lora", "control", "variant"), "a model in diffusers' layout")
    for argument, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"got {argument}={str(value)!r}, expected None: {argument} is for "
                f"{kinds[argument]}, and {name} is none"
            )
