"""Components in diffusers' layout, read into our modules and written from them."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdm.autoencoder.causal_vae import ChunkedVAE
from vdm.autoencoder.image_vae import ImageVAE
from vdm.conditioning.clip_image import ClipImageEncoder
from vdm.conditioning.clip_pair import ClipPairEncoder
from vdm.conditioning.clip_text import ClipTextEncoder, read_tokenizer
from vdm.models.unet3d import UNet3D
from vdm.pretrained.diffusers_causal_vae import (
    FAMILIES,
    causal_vae_entries,
    causal_vae_from_config,
    config_from_causal_vae,
)
from vdm.pretrained.diffusers_files import CONFIG, STEMS, open_state, open_weights, read_config
from vdm.pretrained.diffusers_settings import reading_settings
from vdm.pretrained.diffusers_unet import entries, tables
from vdm.pretrained.diffusers_unet_config import config_from_unet, unet_from_config
from vdm.pretrained.diffusers_vae import (
    config_from_vae,
    modern_names,
    vae_entries,
    vae_from_config,
)
from vdm.pretrained.keymap import Entry, ForeignWeights, to_foreign
from vdm.pretrained.loading import Reading, cast_weight, fill, write_safetensors
from vdm.pretrained.lora import LoraFile, Merged
from vdm.pretrained.original_motion import read_motion
from vdm.pretrained.tensor_files import Renamed

WEIGHTS = f"{STEMS[0]}.safetensors"
VERSION = "0.42.1"
"""Whose layout is read and written."""


def load_unet(
    folder: str | Path,
    motion: str | Path | None = None,
    profile: str = "diffusers",
    lora: Sequence[LoraFile] = (),
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> UNet3D:
    """A U-Net from a component folder, in eval mode; its weights are those of the files.

    Args:
        folder: Holds ``config.json`` and the weights.
        motion: Likewise a motion adapter, for an image model; or its authors' file.
        profile: Whose numerics, where references disagree.
        lora: Low-rank changes, of which those of the U-Net are added.
        how: How weights are read; of a motion adapter, its only files.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a setting, a key, a shape or a value is not as it has to be.
    """
    folder = Path(folder)
    adapter, modules = (None, None) if motion is None else _open_motion(Path(motion), how)
    config, said = read_config(folder), str(folder / CONFIG)
    with torch.device("meta"), reading_settings(said):
        network, family = unet_from_config(config, said, adapter, profile)
    if how.is_plan:
        return network.eval()
    weights: Mapping[str, Tensor] = open_weights(folder, how.variant)
    if modules is not None:
        weights = ChainMap(_with_picture(dict(modules), weights), weights)  # type: ignore[arg-type]
    weights = Merged(weights, lora, "unet") if lora else weights
    where = str(folder)
    read = ForeignWeights(weights, entries(network, family), tables(weights), where)
    fill(network, read, where, how.dtype)
    return network


def _with_picture(motion: dict[str, Tensor], image: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Motion modules; the first convolution of those that read a picture, with the model's part.

    It sees the noisy latents as the image model does, and what is new to that as it was trained.
    """
    if "conv_in.weight" in motion:
        seen = image["conv_in.weight"]
        motion["conv_in.weight"] = torch.cat(
            (seen, motion["conv_in.weight"][:, seen.shape[1] :]), 1
        )
        motion["conv_in.bias"] = image["conv_in.bias"]
    return motion


def _open_motion(path: Path, how: Reading) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """Settings and weights of a motion adapter."""
    if path.is_dir():
        return read_config(path), {} if how.is_plan else open_weights(path)
    return read_motion(open_state(path), str(path))


def save_unet(
    network: UNet3D,
    folder: str | Path,
    dtype: torch.dtype | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """The inverse of :func:`load_unet`: a component folder that diffusers itself loads.

    Args:
        network: A U-Net of a kind that diffusers has a class for.
        folder: Made if need be.
        dtype: Store floating-point weights in this type; as they are if None.
        more: Further settings, which are of its pipeline: ``sample_size``, ``num_frames``.

    Returns:
        The folder.

    Raises:
        ValueError: If diffusers has no class for it, or a weight does not fit into ``dtype``.
    """
    config, family = config_from_unet(network)
    config |= more or {}
    return save_component(network, config, entries(network, family), Path(folder), dtype)


def load_vae(
    folder: str | Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> ImageVAE | ChunkedVAE:
    """A VAE from a component folder, in eval mode.

    Args:
        folder: Holds ``config.json`` and the weights.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a setting, a key, a shape or a value is not as it has to be.
    """
    folder = Path(folder)
    config, said, where = read_config(folder), str(folder / CONFIG), str(folder)
    is_causal = config.get("_class_name") in FAMILIES
    with torch.device("meta"), reading_settings(said):
        vae = (causal_vae_from_config if is_causal else vae_from_config)(config, said)
    if how.is_plan:
        return vae.eval()
    found = open_weights(folder, how.variant)
    if isinstance(vae, ImageVAE):
        weights = Renamed(found, {name: key for key, name in modern_names(found).items()})
        read = ForeignWeights(weights, vae_entries(vae), where=where)
    else:
        read = ForeignWeights(found, causal_vae_entries(vae), where=where)
    fill(vae, read, where, how.dtype)
    return vae


def save_vae(
    vae: ImageVAE | ChunkedVAE, folder: str | Path, dtype: torch.dtype | None = None
) -> Path:
    """The inverse of :func:`load_vae`: a component folder that diffusers itself loads.

    Args:
        vae: An image VAE or a causal one.
        folder: Made if need be.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        The folder.

    Raises:
        ValueError: If diffusers has no class for it, or a weight does not fit into ``dtype``.
    """
    if isinstance(vae, ChunkedVAE):
        config, places = config_from_causal_vae(vae), causal_vae_entries(vae)
        return save_component(vae, config, places, Path(folder), dtype)
    return save_component(vae, config_from_vae(vae), vae_entries(vae), Path(folder), dtype)


def load_clip_text(
    folder: str | Path,
    tokenizer: str | Path,
    lora: Sequence[LoraFile] = (),
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> ClipTextEncoder:
    """CLIP's text transformer from a component folder, and its tokenizer from another.

    Args:
        folder: Holds ``config.json`` and the weights.
        tokenizer: Holds the tokenizer's files.
        lora: Low-rank changes, of which those of the text encoder are added.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is of another class, or a key, a shape or a value is not as it has to be.
    """
    folder = Path(folder)
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in ("clip_text_model", "clip"):
        raise ValueError(f"{folder / CONFIG}: got model_type={kind!r}, expected 'clip_text_model'")
    words = read_tokenizer(Path(tokenizer))
    with torch.device("meta"), reading_settings(f"{folder / CONFIG}, {tokenizer}"):
        encoder = ClipTextEncoder(config, words)
    fill_clip_text(encoder, folder, lora, "text_encoder", how)
    return encoder.eval()


def load_clip_pair(
    folder: Path,
    is_silent: bool,
    lora: Sequence[LoraFile] = (),
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> ClipPairEncoder:
    """The two text transformers of a model, with their tokenizers.

    Args:
        folder: Holds ``text_encoder``, ``text_encoder_2``, ``tokenizer`` and ``tokenizer_2``.
        is_silent: Whether zeros stand for what guidance leads away from, where nothing is said.
        lora: Low-rank changes, of which those of the text encoders are added.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a key, a shape or a value is not as it has to be.
    """
    places = ("text_encoder", "text_encoder_2")
    configs = [read_config(folder / name) for name in places]
    words = [read_tokenizer(folder / name.replace("text_encoder", "tokenizer")) for name in places]
    with torch.device("meta"), reading_settings(str(folder)):
        pair = ClipPairEncoder(configs[0], words[0], configs[1], words[1], is_silent)
    for name, encoder in zip(places, (pair.first, pair.second), strict=True):
        fill_clip_text(encoder, folder / name, lora, name, how)
    return pair.eval()


def fill_clip_text(
    encoder: ClipTextEncoder, folder: Path, lora: Sequence[LoraFile], part: str, how: Reading
) -> None:
    """The weights of a text transformer, with or without a projection."""
    if how.is_plan:
        return
    prefix, where = "text_model.", str(folder)  # left out by transformers 5, projection or not

    weights = open_weights(folder, how.variant)
    # Low-rank changes call weights by their long names.
    is_long = bool(lora) or any(key.startswith(prefix) for key in weights)

    def named(key: str) -> str:
        is_named = not is_long or key.startswith((prefix, "text_projection"))
        return key if is_named else prefix + key

    found = Merged(Renamed(weights, {named(key): key for key in weights}), lora, part)
    places = [Entry(named(key.removeprefix("model.")), (key,)) for key in encoder.state_dict()]
    tables = [named("embeddings.position_ids")]
    fill(encoder, ForeignWeights(found, places, tables, where), where, how.dtype)


def load_clip_image(
    folder: str | Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
    cls: type[ClipImageEncoder] = ClipImageEncoder,
) -> ClipImageEncoder:
    """CLIP's image transformer from a component folder.

    Args:
        folder: Holds ``config.json`` and the weights.
        how: How weights are read.
        cls: What is read of it.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is of another class, or a key, a shape or a value is not as it has to be.
    """
    folder = Path(folder)
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in ("clip_vision_model", "clip"):
        raise ValueError(
            f"{folder / CONFIG}: got model_type={kind!r}, expected 'clip_vision_model'"
        )
    with torch.device("meta"), reading_settings(str(folder / CONFIG)):
        encoder = cls(config)
    if how.is_plan:
        return encoder.eval()
    found, where = open_weights(folder, how.variant), str(folder)
    ours = {key.removeprefix("model."): key for key in encoder.state_dict()}
    tower, tables = "vision_model.", ["vision_model.embeddings.position_ids"]
    # Left out by transformers 5 where there is no projection.
    is_long = any(key.startswith(tower) for key in found)
    is_bare = not any(name.startswith(tower) for name in ours)
    prefix = tower if is_long and is_bare else ""
    places = [Entry(prefix + name, (key,)) for name, key in ours.items()]
    fill(encoder, ForeignWeights(found, places, tables, where), where, how.dtype)
    return encoder


def save_transformer(
    module: nn.Module, kind: str, folder: Path, dtype: torch.dtype | None
) -> list[str]:
    """Settings and weights of a module of transformers.

    Args:
        module: Holds it as ``model``.
        kind: Its class.
        folder: Made if need be.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        Library and class, as ``model_index.json`` has them.
    """
    state = {
        key.removeprefix("model."): cast_weight(value, dtype, key)
        for key, value in module.state_dict().items()
    }
    arguments: Any = module._init_args
    model: Any = module.model
    said = {"architectures": [kind], "model_type": model.config.model_type}
    write_safetensors(state, folder / "model.safetensors", {"format": "pt"})
    text = json.dumps({**arguments["config"], **said}, indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    return ["transformers", kind]


def save_component(
    module: nn.Module,
    config: dict[str, Any],
    places: list[Entry],
    folder: Path,
    dtype: torch.dtype | None,
) -> Path:
    """Write weights, then the settings: a folder that has them is whole.

    Args:
        module: Whose weights.
        config: Its settings as diffusers names them.
        places: Where its weights belong.
        folder: Made if need be.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        The folder.

    Raises:
        ValueError: If a weight does not fit into ``dtype``.
    """
    ours = {key: cast_weight(value, dtype, key) for key, value in module.state_dict().items()}
    write_safetensors(to_foreign(ours, places), folder / WEIGHTS, {"format": "pt"})
    text = json.dumps({**config, "_diffusers_version": VERSION}, indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    return folder
