"""Whole transformer models in diffusers' layout, read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vdm.autoencoder.ltx_vae import LTXVAE
from vdm.conditioning.given import DrawnInPlace, GivenAhead
from vdm.conditioning.picture import FirstFrame
from vdm.conditioning.t5_text import Padding, T5TextEncoder
from vdm.layers.position_rules import CausalSecondsRotary, SecondsRotary
from vdm.models.dit import VideoDiT
from vdm.models.joint_dit import JointDiT
from vdm.pretrained.diffusers_dit import load_dit, save_dit
from vdm.pretrained.diffusers_dit_config import FIRST_ALONE, config_from_dit
from vdm.pretrained.diffusers_files import CONFIG, INDEX, read_config, read_index
from vdm.pretrained.diffusers_folder import VERSION, load_vae, save_vae
from vdm.pretrained.diffusers_scheduler import (
    SCHEDULER_CONFIG,
    SamplingRules,
    config_from_rules,
    read_rules,
    rules_of,
)
from vdm.pretrained.loading import Reading
from vdm.pretrained.parts import Defaults, Parts, around
from vdm.pretrained.t5_folder import load_t5_text, save_t5_text

TEXT_TO_VIDEO, IMAGE_TO_VIDEO = "CogVideoXPipeline", "CogVideoXImageToVideoPipeline"
LATTE_TO_VIDEO, LTX_TO_VIDEO = "LattePipeline", "LTXPipeline"
LTX_CONDITION, LATE_LTX = "LTXConditionPipeline", "LTX-Video-0.9.5"
DIT_PIPELINES = (
    TEXT_TO_VIDEO,
    IMAGE_TO_VIDEO,
    "CogVideoXVideoToVideoPipeline",
    LATTE_TO_VIDEO,
    LTX_TO_VIDEO,
    "LTXImageToVideoPipeline",
    LTX_CONDITION,
)
PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
NUM_TEXT = 226
"""Tokens that the published pipeline gives a text, whatever the network's settings say."""

OLD = Defaults(49, 8.0, 480, 720, 50, 6.0, frames_first=True)
NEW = Defaults(81, 16.0, 768, 1360, 50, 6.0, frames_first=True, pads_frames=True)
"""What is published for CogVideoX and for its version 1.5."""
LATTE = Defaults(16, 8.0, 512, 512, 50, 7.5)
LTX = Defaults(161, 25.0, 512, 704, 50, 3.0)
UNSHIFTED = {"shift": 1.0}
"""Arguments of times that a scheduler leaves as they are."""
LTX_DECODE_NOISE = 0.025
"""Of decoders that are told a noise time, as their authors recommend."""


@dataclass(frozen=True)
class _Kind:
    """What a network's own structure tells of its system.

    Args:
        pipeline: Class of the whole.
        system: Its name.
        defaults: What is published for it.
        words: Tokens of a text, what becomes of those that fill up, whether capitals do not count.
        given: How a picture that clips start from is shown; None where none is.
        time_grid: What it walks on whatever its scheduler says; what that says if None.
    """

    pipeline: str
    system: str
    defaults: Defaults
    words: tuple[int, Padding, bool]
    given: Any = None
    time_grid: str | None = None


def read_dit_pipeline(
    folder: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """A model from its folder.

    Args:
        folder: Holds ``model_index.json``.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a part is missing, surplus, or not as it has to be.
    """
    index = read_index(folder, PARTS)
    rules = read_rules(folder / "scheduler")
    meant = {FIRST_ALONE: True} if index["_class_name"] == LTX_CONDITION else {}
    network = load_dit(folder / "transformer", how, meant)
    autoencoder = load_vae(folder / "vae", how)
    settings = read_config(folder / "transformer", CONFIG)
    kind = _kind_of(network, settings)
    words = load_t5_text(folder / "text_encoder", folder / "tokenizer", *kind.words, how=how)
    return assemble_dit(folder.resolve().name, network, words, autoencoder, rules, settings)


def assemble_dit(
    name: str,
    network: nn.Module,
    words: T5TextEncoder | None,
    autoencoder: nn.Module,
    rules: SamplingRules,
    settings: Mapping[str, Any],
) -> Parts:
    """A model of its parts, with what is published for it.

    Args:
        name: What it is called.
        network: The network.
        words: The text encoder; None where prompts are states.
        autoencoder: The autoencoder.
        rules: How it is sampled.
        settings: Those of the network's class.

    Raises:
        ValueError: If network and autoencoder do not belong together.
    """
    kind = _kind_of(network, settings)
    strides: Any = autoencoder.strides
    _check_strides(network, strides, name)
    if kind.time_grid is not None:
        rules = _walking_on(kind.time_grid, rules, name)
    defaults = replace(
        _sized(kind, settings, strides[1]),
        sampler=rules.sampler,
        time_grid=rules.time_grid,
        time_grid_args=rules.time_grid_args,
    )
    if isinstance(autoencoder, LTXVAE) and autoencoder.decoder.decode_time is not None:
        defaults = replace(defaults, decode_noise=LTX_DECODE_NOISE)
    return Parts(
        name,
        network,
        words,
        autoencoder,
        schedule=rules.schedule,
        target=rules.target,
        preconditioning=rules.preconditioning,
        given=kind.given,
        defaults=defaults,
        envelope=around(defaults),
        system=kind.system,
    )


def save_dit_pipeline(parts: Parts, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """The inverse of :func:`read_dit_pipeline`: a folder that diffusers itself loads.

    Args:
        parts: A model of a kind that diffusers has a pipeline for.
        folder: Made if need be.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        The folder.

    Raises:
        ValueError: If diffusers has no class for a part of it.
    """
    network, words, autoencoder = parts.network, parts.text_encoder, parts.autoencoder
    if not isinstance(words, T5TextEncoder) or network is None or autoencoder is None:
        kinds = ", ".join(type(part).__name__ for part in parts.modules.values())
        raise ValueError(f"diffusers has no class for {kinds}; expected layout='vdm'")
    settings = config_from_dit(network)
    kind = _kind_of(network, settings | {"max_text_seq_length": words.max_length})
    if (words.max_length, words.padding, words.lowers) != kind.words:
        raise ValueError(
            f"got texts of {words.max_length} tokens with padding={words.padding!r} and "
            f"lowers={words.lowers}, expected {kind.words} of {kind.system}"
        )
    rules = rules_of(parts)
    if kind.time_grid == rules.time_grid:
        rules = replace(rules, time_grid="shifted", time_grid_args=dict(UNSHIFTED))
    scheduler = config_from_rules(rules)
    side = int(autoencoder.strides[1])  # type: ignore[index, arg-type]
    more: dict[str, Any] = {}
    if kind.pipeline == LATTE_TO_VIDEO:
        more["video_length"] = parts.defaults.num_frames
    elif isinstance(network, JointDiT):
        more["max_text_seq_length"] = words.max_length
    if isinstance(network, JointDiT) and network.patch_size[0] == 1:
        # The other networks are not told of one size of clip.
        more["sample_frames"] = parts.defaults.num_frames
        more["sample_height"] = parts.defaults.height // side
        more["sample_width"] = parts.defaults.width // side
    save_dit(network, folder / "transformer", dtype, more)
    save_vae(autoencoder, folder / "vae", dtype)  # type: ignore[arg-type]
    vae = read_config(folder / "vae")["_class_name"]
    _write_json(folder / "scheduler" / SCHEDULER_CONFIG, scheduler)
    index: dict[str, Any] = {
        "_class_name": kind.pipeline,
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "transformer": ["diffusers", settings["_class_name"]],
        "vae": ["diffusers", vae],
        **save_t5_text(words, folder / "text_encoder", folder / "tokenizer", dtype),
    }
    _write_json(folder / INDEX, index)
    return folder


def _kind_of(network: nn.Module, settings: Mapping[str, Any]) -> _Kind:
    """Which system a network is of.

    Args:
        network: The network.
        settings: Those of its class.
    """
    rule = network.options.positions if isinstance(network, VideoDiT) else None
    if isinstance(rule, CausalSecondsRotary):
        given, grid = GivenAhead(), "linear_quadratic"
        return _Kind(LTX_CONDITION, LATE_LTX, LTX, (256, "masked", False), given, grid)
    if isinstance(rule, SecondsRotary):
        return _Kind(LTX_TO_VIDEO, "LTX-Video", LTX, (128, "marked", False), DrawnInPlace())
    if not isinstance(network, JointDiT):
        return _Kind(LATTE_TO_VIDEO, "Latte-1", LATTE, (120, "masked_alike", True))
    suffix, pipeline = ("-I2V", IMAGE_TO_VIDEO) if network.given else ("", TEXT_TO_VIDEO)
    rotates = settings.get("use_rotary_positional_embeddings", False)
    # Positions that are added are those of texts of one length.
    adds = not rotates or network.learned is not None
    num_text = settings.get("max_text_seq_length", NUM_TEXT) if adds else NUM_TEXT
    words: tuple[int, Padding, bool] = (num_text, "read", False)
    if network.patch_size[0] == 2:
        system, defaults = f"CogVideoX1.5-5B{suffix}", NEW
    else:
        system, defaults = f"CogVideoX-5B{suffix}" if rotates else "CogVideoX-2B", OLD
    return _Kind(pipeline, system, defaults, words, FirstFrame() if network.given else None)


def _check_strides(network: nn.Module, strides: Sequence[int], where: str) -> None:
    """Refuse an autoencoder of other latents than a network counts seconds and pixels by.

    Raises:
        ValueError: If it is one.
    """
    rule = network.options.positions if isinstance(network, VideoDiT) else None
    if isinstance(rule, SecondsRotary) and tuple(strides) != rule.strides:
        raise ValueError(
            f"{where}: got an autoencoder with latents of {tuple(strides)} frames and pixels, "
            f"expected {rule.strides}"
        )


def _walking_on(grid: str, rules: SamplingRules, where: str) -> SamplingRules:
    """The rules of a scheduler that is handed its times.

    Raises:
        ValueError: If it would change them.
    """
    if (rules.time_grid, rules.time_grid_args) != ("shifted", UNSHIFTED):
        raise ValueError(
            f"{where}: got a scheduler with times {rules.time_grid} by {rules.time_grid_args}, "
            "expected one that shifts none: shift=1.0, use_dynamic_shifting=False"
        )
    return replace(rules, time_grid=grid, time_grid_args={})


def _sized(kind: _Kind, settings: Mapping[str, Any], side: int) -> Defaults:
    """Published settings, in the size of the network's clips if it is told one that is meant."""
    if kind.pipeline == LATTE_TO_VIDEO:
        size = settings.get("sample_size", 64) * side
        num_frames = settings.get("video_length", 16)
        return replace(kind.defaults, num_frames=num_frames, height=size, width=size)
    # LTX-Video is told no size, and version 1.5 a square that is larger than any clip.
    if kind.pipeline in (LTX_TO_VIDEO, LTX_CONDITION) or settings.get("patch_size_t") is not None:
        return kind.defaults
    return replace(
        kind.defaults,
        num_frames=settings.get("sample_frames", 49),
        height=settings.get("sample_height", 60) * side,
        width=settings.get("sample_width", 90) * side,
    )


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
