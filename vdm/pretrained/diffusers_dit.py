"""Transformers in diffusers' layout: where every weight belongs, and component folders.

The layout is that of diffusers 0.42; its key names are the only thing here that is not ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vdm.layers.embeddings import NUM_FRAME_MASKS
from vdm.layers.position_rules import (
    CausalSecondsRotary,
    SecondsRotary,
    SpaceThenTime,
    ThirdsRotary,
)
from vdm.models.dit import VideoDiT
from vdm.models.dual_stream_dit import DualStreamDiT
from vdm.models.joint_dit import JointDiT
from vdm.pretrained.diffusers_dit_config import config_from_dit, dit_from_config
from vdm.pretrained.diffusers_dual_stream import hunyuan_entries
from vdm.pretrained.diffusers_files import CONFIG, open_weights, read_config
from vdm.pretrained.diffusers_folder import save_component
from vdm.pretrained.diffusers_settings import reading_settings
from vdm.pretrained.keymap import Entry, ForeignWeights, renamed
from vdm.pretrained.loading import Reading, fill

COGVIDEOX = [
    (r"patch_embed", "patch_embed.proj"),
    (r"text_embed", "patch_embed.text_proj"),
    (r"learned\.table", "patch_embed.pos_embedding"),
    (r"time_embed\.fc", "time_embedding.linear_"),
    (r"offset_embed\.fc", "ofs_embedding.linear_"),
    (r"norm(?=\.|$)", "norm_final"),
    (r"final\.norm", "norm_out.norm"),
    (r"final\.modulation", "norm_out"),
    (r"final\.linear", "proj_out"),
    (r"blocks\.(\d+)\.norm(\d)", r"transformer_blocks.\1.norm\2.norm"),
    (r"blocks\.(\d+)\.modulation(\d)", r"transformer_blocks.\1.norm\2"),
    (r"blocks\.(\d+)\.attention\.to_out", r"transformer_blocks.\1.attn1.to_out.0"),
    (r"blocks\.(\d+)\.attention", r"transformer_blocks.\1.attn1"),
    (r"blocks\.(\d+)\.feedforward\.fc1", r"transformer_blocks.\1.ff.net.0.proj"),
    (r"blocks\.(\d+)\.feedforward\.fc2", r"transformer_blocks.\1.ff.net.2"),
]
"""How keys of ours begin, and how theirs do; the rest is the same."""

LATTE = [
    (r"patch_embed", "pos_embed.proj"),
    (r"text_embed\.fc", "caption_projection.linear_"),
    (r"time_embed\.fc", "adaln_single.emb.timestep_embedder.linear_"),
    (r"shared_modulation", "adaln_single.linear"),
    (r"final\.modulation\.table", "scale_shift_table"),
    (r"final\.linear", "proj_out"),
    (r"spatial\.(\d+)", r"transformer_blocks.\1"),
    (r"temporal\.(\d+)", r"temporal_transformer_blocks.\1"),
]
"""Likewise, where blocks of one kind are counted by themselves."""
WAN = [
    (r"patch_embed", "patch_embedding"),
    (r"text_embed\.fc", "condition_embedder.text_embedder.linear_"),
    (r"time_embed\.fc", "condition_embedder.time_embedder.linear_"),
    (r"image_embed\.table", "condition_embedder.image_embedder.pos_embed"),
    (r"image_embed\.norm_in", "condition_embedder.image_embedder.norm1"),
    (r"image_embed\.norm_out", "condition_embedder.image_embedder.norm2"),
    (r"image_embed\.maps\.fc1", "condition_embedder.image_embedder.ff.net.0.proj"),
    (r"image_embed\.maps\.fc2", "condition_embedder.image_embedder.ff.net.2"),
    (r"shared_modulation", "condition_embedder.time_proj"),
    (r"final\.modulation\.table", "scale_shift_table"),
    (r"final\.linear", "proj_out"),
    (r"blocks\.(\d+)\.norm_cross", r"blocks.\1.norm2"),
    (r"blocks\.(\d+)\.ff\.", r"blocks.\1.ffn."),
    (r"blocks", "blocks"),
]
LTX = [
    (r"patch_embed", "proj_in"),
    (r"text_embed\.fc", "caption_projection.linear_"),
    (r"time_embed\.fc", "time_embed.emb.timestep_embedder.linear_"),
    (r"shared_modulation", "time_embed.linear"),
    (r"final\.modulation\.table", "scale_shift_table"),
    (r"final\.linear", "proj_out"),
    (r"blocks", "transformer_blocks"),
]
IN_BLOCK = [
    (r"norm_cross", "norm_cross"),
    (r"modulation\.table", "scale_shift_table"),
    (r"attention\.to_out", "attn1.to_out.0"),
    (r"attention", "attn1"),
    (r"cross_attention\.to_out", "attn2.to_out.0"),
    (r"cross_attention\.to_([kv])_image", r"attn2.add_\1_proj"),
    (r"cross_attention\.norm_k_image", "attn2.norm_added_k"),
    (r"cross_attention", "attn2"),
    (r"feedforward\.fc1", "ff.net.0.proj"),
    (r"feedforward\.fc2", "ff.net.2"),
]


def load_dit(
    folder: str | Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
    more: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A transformer from a component folder, in eval mode.

    Args:
        folder: Holds ``config.json`` and the weights.
        how: How weights are read.
        more: Further settings, which its pipeline stands for.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a setting, a key, a shape or a value is not as it has to be.
    """
    folder = Path(folder)
    config, said = read_config(folder) | dict(more or {}), str(folder / CONFIG)
    with torch.device("meta"), reading_settings(said):
        network = dit_from_config(config, said)
    if how.is_plan:
        return network.eval()
    where, weights = str(folder), open_weights(folder, how.variant)
    unused = [key for key in weights if key.endswith(".norm_added_q.weight")]
    read = ForeignWeights(weights, dit_entries(network), unused, where)
    fill(network, read, where, how.dtype)
    return network


def save_dit(
    network: nn.Module,
    folder: str | Path,
    dtype: torch.dtype | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """The inverse of :func:`load_dit`: a component folder that diffusers itself loads.

    Args:
        network: A transformer of a kind that diffusers has a class for.
        folder: Made if need be.
        dtype: Store floating-point weights in this type; as they are if None.
        more: Further settings, which are of its pipeline.

    Returns:
        The folder.

    Raises:
        ValueError: If diffusers has no class for it, or a weight does not fit into ``dtype``.
    """
    config = config_from_dit(network) | dict(more or {})
    return save_component(network, config, dit_entries(network), Path(folder), dtype)


def dit_entries(network: nn.Module) -> list[Entry]:
    """Where every weight of a transformer lies in diffusers' layout.

    Raises:
        ValueError: If it is of no published kind.
    """
    if isinstance(network, DualStreamDiT):
        return hunyuan_entries(network)
    state = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if isinstance(network, JointDiT):
        return [_cogvideox(network, key, shape) for key, shape in state.items()]
    if isinstance(network, VideoDiT):
        place = PLACES.get(type(network.options.positions))
        if place is not None:
            return [place(network, key, shape) for key, shape in state.items()]
    raise ValueError(f"got a {type(network).__name__}, for which diffusers has no names")


def _cogvideox(network: JointDiT, key: str, shape: tuple[int, ...]) -> Entry:
    theirs = renamed(key, COGVIDEOX)
    if key == "patch_embed.weight" and network.patch_size[0] == 1:
        return _kernel(theirs, key, shape, network.patch_size[1:])
    if key == "learned.table":
        return Entry(theirs, (key,), shapes=((1, *shape), shape))
    return Entry(theirs, (key,))


def _latte(network: VideoDiT, key: str, shape: tuple[int, ...]) -> Entry:
    name = key
    if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", key):
        number = int(found[1])
        kind = "temporal" if number % 2 else "spatial"
        name = f"{kind}.{number // 2}.{renamed(found[2], IN_BLOCK)}"
    theirs = renamed(name, LATTE)
    if key == "patch_embed.weight":
        return _kernel(theirs, key, shape, network.patch_size[1:])
    if key.startswith("final.linear."):  # theirs lists channels innermost
        _, ph, pw = network.patch_size
        return Entry(theirs, (key,), groups=(ph * pw, shape[0] // (ph * pw)))
    return Entry(theirs, (key,))


def _wan(network: VideoDiT, key: str, shape: tuple[int, ...]) -> Entry:
    name = key
    if found := re.fullmatch(r"(blocks\.\d+)\.(.+)", key):
        name = f"{found[1]}.{renamed(found[2], IN_BLOCK)}"
    theirs, patch = renamed(name, WAN), network.patch_size
    if key == "patch_embed.weight":
        kernel = _kernel(theirs, key, shape, patch)
        return (
            replace(kernel, columns=_masks_last(network)) if network.frame_conditioning else kernel
        )
    if key.startswith("final.linear."):
        return Entry(theirs, (key,), groups=(math.prod(patch), shape[0] // math.prod(patch)))
    if key.endswith(("modulation.table", "image_embed.table")):
        return Entry(theirs, (key,), shapes=((1, *shape), shape))
    return Entry(theirs, (key,))


def _masks_last(network: VideoDiT) -> tuple[int, ...]:
    """Where the inputs of a patch are found there: ahead of the given latents stand the masks."""
    channels, size = network.in_channels, math.prod(network.patch_size)
    noisy = range(channels * size)
    masks = range(channels * size, (channels + NUM_FRAME_MASKS) * size)
    given = range(masks.stop, masks.stop + channels * size)
    return (*noisy, *given, *masks)


def _ltx(network: VideoDiT, key: str, shape: tuple[int, ...]) -> Entry:
    name = key
    if found := re.fullmatch(r"(blocks\.\d+)\.(.+)", key):
        name = f"{found[1]}.{renamed(found[2], IN_BLOCK)}"
    return Entry(renamed(name, LTX), (key,))


PLACES: dict[type | None, Callable[[VideoDiT, str, tuple[int, ...]], Entry]] = {
    SpaceThenTime: _latte,
    ThirdsRotary: _wan,
    SecondsRotary: _ltx,
    CausalSecondsRotary: _ltx,
}
"""Which system a network is of, told by how its tokens know their places."""


def _kernel(theirs: str, key: str, shape: tuple[int, ...], patch: tuple[int, ...]) -> Entry:
    """A map of patches, which is a convolution there."""
    rows, columns = shape
    return Entry(theirs, (key,), shapes=((rows, columns // math.prod(patch), *patch), shape))
