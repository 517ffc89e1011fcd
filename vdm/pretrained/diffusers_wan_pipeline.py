"""Wan's whole models in diffusers' layout, read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vdm.autoencoder.causal_vae import CausalVAE
from vdm.conditioning.clip_image import ClipImageEncoder, ClipStatesEncoder
from vdm.conditioning.given import InPlace
from vdm.conditioning.picture import FramesOnGrey
from vdm.conditioning.t5_text import T5TextEncoder
from vdm.layers.position_rules import ThirdsRotary
from vdm.models.dit import VideoDiT
from vdm.models.experts import Experts
from vdm.pretrained.clip_pictures import FOLDER, check_pictures, save_pictures
from vdm.pretrained.diffusers_dit import load_dit, save_dit
from vdm.pretrained.diffusers_files import read_config
from vdm.pretrained.diffusers_folder import (
    VERSION,
    load_clip_image,
    load_vae,
    save_transformer,
    save_vae,
)
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

INDEX = "model_index.json"
FROM_WORDS, FROM_PICTURE = "WanPipeline", "WanImageToVideoPipeline"
WAN_PIPELINES = (FROM_WORDS, FROM_PICTURE)
PARTS = {"scheduler", "text_encoder", "tokenizer", "transformer", "vae"}
SECOND = "transformer_2"
PICTURES = {"image_encoder", FOLDER}
SETTINGS = {"boundary_ratio", "expand_timesteps"}
NUM_TEXT = 512

T2V, I2V, FLF2V = "Wan2.1-T2V", "Wan2.1-I2V-14B", "Wan2.1-FLF2V-14B"
T2V_A14B, I2V_A14B, TI2V_5B = "Wan2.2-T2V-A14B", "Wan2.2-I2V-A14B", "Wan2.2-TI2V-5B"
DEFAULTS = {
    T2V: Defaults(81, 16.0, 720, 1280, 50, 5.0),
    I2V: Defaults(81, 16.0, 720, 1280, 40, 5.0),
    FLF2V: Defaults(81, 16.0, 720, 1280, 50, 5.0),
    T2V_A14B: Defaults(81, 16.0, 720, 1280, 40, 4.0, 3.0),
    I2V_A14B: Defaults(81, 16.0, 720, 1280, 40, 3.5, 3.5),
    TI2V_5B: Defaults(121, 24.0, 704, 1280, 50, 5.0),
}
"""What is published for each system."""
SMALL = (480, 832)
SMALL_SHIFT = 3.0
"""Up to which noise times are moved for small clips, of which these are the height and width."""


def is_wan(network: nn.Module | None) -> bool:
    """Whether a network is of the kind of Wan's."""
    one = network.high if isinstance(network, Experts) else network
    return isinstance(one, VideoDiT) and isinstance(one.options.positions, ThirdsRotary)


def read_wan_pipeline(
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
    index, where = read_config(folder, INDEX), folder / INDEX
    found = _check_parts(index, where)
    rules = read_rules(folder / "scheduler")
    network = load_dit(folder / "transformer", how)
    if not isinstance(network, VideoDiT) or not is_wan(network):
        raise ValueError(f"{folder / 'transformer'}: got a network of another kind than Wan's")
    given = _given_in(network, index, where)
    if SECOND in found:
        boundary = index["boundary_ratio"] * rules.preconditioning.scale
        network = Experts(network, load_dit(folder / SECOND, how), boundary).eval()
    autoencoder = load_vae(folder / "vae", how)
    image_encoder = _read_image_encoder(folder, how) if found >= PICTURES else None
    places = (folder / "text_encoder", folder / "tokenizer")
    words = load_t5_text(*places, NUM_TEXT, "zeroed", mends=True, how=how)
    return assemble_wan(
        folder.resolve().name, network, words, autoencoder, image_encoder, rules, given
    )


def assemble_wan(
    name: str,
    network: nn.Module,
    words: T5TextEncoder,
    autoencoder: nn.Module,
    image_encoder: nn.Module | None,
    rules: SamplingRules,
    given: Any,
) -> Parts:
    """A model of its parts, with what is published for it.

    Args:
        name: What it is called.
        network: One network or two.
        words: The text encoder.
        autoencoder: The autoencoder.
        image_encoder: The image encoder, for networks that read its states.
        rules: How it is sampled.
        given: How given frames are shown.
    """
    system = system_of(isinstance(network, Experts), given)
    defaults = replace(
        DEFAULTS[system],
        sampler=rules.sampler,
        time_grid=rules.time_grid,
        time_grid_args=rules.time_grid_args,
    )
    if system in (T2V, I2V) and rules.time_grid_args.get("shift", 1.0) <= SMALL_SHIFT:
        defaults = replace(defaults, height=SMALL[0], width=SMALL[1])
    return Parts(
        name,
        network,
        words,
        autoencoder,
        image_encoder,
        schedule=rules.schedule,
        target=rules.target,
        preconditioning=rules.preconditioning,
        given=given,
        defaults=defaults,
        envelope=around(defaults),
        system=system,
    )


def _check_parts(index: Mapping[str, Any], where: Path) -> set[str]:
    """The parts of a model, of which none is missing or surplus.

    Raises:
        ValueError: If one is, or there is a setting that is not read.
    """
    listed = {name: value for name, value in index.items() if isinstance(value, list)}
    found = {name for name, value in listed.items() if any(value)}
    needed = PARTS | (PICTURES if found & PICTURES else set())
    if missing := sorted(needed - found):
        raise ValueError(f"{where}: has no {missing[0]}")
    if surplus := sorted(found - PARTS - PICTURES - {SECOND}):
        raise ValueError(f"{where}: got a part {surplus[0]}, expected {', '.join(sorted(PARTS))}")
    settings = {name for name in index if name not in listed and not name.startswith("_")}
    if surplus := sorted(settings - SETTINGS):
        raise ValueError(f"{where}: got {surplus[0]}, which nothing reads")
    boundary = index.get("boundary_ratio")
    if (SECOND in found) != isinstance(boundary, (int, float)):
        expected = "a number from 0 to 1" if SECOND in found else f"None without {SECOND}"
        raise ValueError(f"{where}: got boundary_ratio={boundary!r}, expected {expected}")
    return found


def _given_in(network: VideoDiT, index: Mapping[str, Any], where: Path) -> Any:
    """How given frames are shown to a network.

    Raises:
        ValueError: If the whole is said to be another than the network.
    """
    picture, reads_masks = network.options.cross.picture, bool(network.frame_conditioning)
    is_in_place = bool(index.get("expand_timesteps"))
    if is_in_place and reads_masks:
        raise ValueError(
            f"{where}: got expand_timesteps=True, expected False: the network reads masks"
        )
    if any(index.get(name, [None])[0] for name in PICTURES) != (picture is not None):
        expected = "no image_encoder" if picture is None else "an image_encoder"
        raise ValueError(f"{where}: expected {expected}, as the network reads its states or not")
    kinds = {FROM_WORDS, FROM_PICTURE} if is_in_place else {_class_of(network)}
    if (kind := index["_class_name"]) not in kinds:
        raise ValueError(f"{where}: got class {kind}, expected {_class_of(network)}")
    return given_by(network, is_in_place)


def given_by(network: VideoDiT, is_in_place: bool) -> InPlace | FramesOnGrey | None:
    """How given frames are shown to a network.

    Args:
        network: The network.
        is_in_place: Whether it is told a noise level for every frame.
    """
    if is_in_place:
        return InPlace()
    if not network.frame_conditioning:
        return None
    picture = network.options.cross.picture
    return FramesOnGrey(0 if picture is None else 1 if picture.num_tokens is None else 2)


def _class_of(network: VideoDiT) -> str:
    """Class of the whole that a network is of."""
    return FROM_PICTURE if network.frame_conditioning else FROM_WORDS


def system_of(has_two: bool, given: Any) -> str:
    """Which system it is, by whether it has two networks, and how given frames are shown."""
    if isinstance(given, FramesOnGrey):
        return {0: I2V_A14B, 1: I2V, 2: FLF2V}[given.num_told]
    if has_two:
        return T2V_A14B
    return T2V if given is None else TI2V_5B


def _read_image_encoder(folder: Path, how: Reading) -> ClipImageEncoder:
    """The image encoder, whose pictures are prepared as usual.

    Raises:
        ValueError: If they are not.
    """
    encoder = load_clip_image(folder / "image_encoder", how, ClipStatesEncoder)
    check_pictures(folder, encoder.size)
    return encoder


def save_wan_pipeline(parts: Parts, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """The inverse of :func:`read_wan_pipeline`: a folder that diffusers itself loads.

    Args:
        parts: A model of Wan's kind.
        folder: Made if need be.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        The folder.

    Raises:
        ValueError: If diffusers has no class for a part of it.
    """
    network, words, autoencoder = parts.network, parts.text_encoder, parts.autoencoder
    if not isinstance(words, T5TextEncoder) or not isinstance(autoencoder, CausalVAE):
        kinds = ", ".join(type(part).__name__ for part in parts.modules.values())
        raise ValueError(f"diffusers has no class for {kinds}; expected layout='vdm'")
    asked, said = (NUM_TEXT, "zeroed", False), (words.max_length, words.padding, words.lowers)
    if said != asked:
        raise ValueError(f"got texts of {said} (tokens, padding, lowers), expected {asked} of Wan")
    rules = rules_of(parts)
    scheduler = config_from_rules(rules)
    networks: dict[str, Any] = {"transformer": network, SECOND: None}
    boundary = None
    if isinstance(network, Experts):
        networks = {"transformer": network.high, SECOND: network.low}
        boundary = network.boundary / rules.preconditioning.scale
    index: dict[str, Any] = {
        "_class_name": _class_of(networks["transformer"]),
        "_diffusers_version": VERSION,
        "boundary_ratio": boundary,
        "expand_timesteps": isinstance(parts.given, InPlace),
    }
    for name, one in networks.items():
        index[name] = [None, None]
        if one is not None:
            save_dit(one, folder / name, dtype)
            index[name] = ["diffusers", "WanTransformer3DModel"]
    save_vae(autoencoder, folder / "vae", dtype)
    index["vae"] = ["diffusers", read_config(folder / "vae")["_class_name"]]
    if index["_class_name"] == FROM_PICTURE:
        index |= _save_image_encoder(parts.image_encoder, folder, dtype)
    _write_json(folder / "scheduler" / SCHEDULER_CONFIG, scheduler)
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    index |= save_t5_text(words, folder / "text_encoder", folder / "tokenizer", dtype)
    _write_json(folder / INDEX, index)
    return folder


def _save_image_encoder(
    encoder: nn.Module | None, folder: Path, dtype: torch.dtype | None
) -> dict[str, list[str | None]]:
    if not isinstance(encoder, ClipStatesEncoder):
        return {name: [None, None] for name in sorted(PICTURES)}
    saved = save_transformer(encoder, encoder.kind, folder / "image_encoder", dtype)
    return {"image_encoder": list(saved), FOLDER: list(save_pictures(folder, encoder.size))}


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
