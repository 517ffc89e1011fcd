"""The networks of Open-Sora 1.0 and 1.2 under their authors' names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vdm.layers.position_rules import SpaceAndTime
from vdm.models.dit import VideoDiT
from vdm.models.dit_presets import STDiT3Size, STDiTSize, stdit, stdit3
from vdm.models.filled_dit import FilledVideoDiT
from vdm.pretrained.diffusers_files import CONFIG, open_state, open_weights, read_config
from vdm.pretrained.diffusers_settings import ForeignConfig, reading_settings
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, fill

MARK = "blocks.0.attn_temp.qkv.weight"
PLACES, FRAMES = "pos_embed", "pos_embed_temporal"
"""Tables of positions in every file, which say what size of clips it is for."""
ROTATIONS = "rope.freqs"
KIND = "STDiT3"
NUM_HEADS = 16
SIDE = 32
"""Tokens along a side of a frame at which places are counted one by one."""
LONG, LONG_SCALE = 64, 2 / 3
"""Frames of the one model whose frames are counted otherwise, and what they are divided by."""

OUTSIDE = {
    "patch_embed": "x_embedder.proj",
    "text_embed.fc1": "y_embedder.y_proj.fc1",
    "text_embed.fc2": "y_embedder.y_proj.fc2",
    "time_embed.fc1": "t_embedder.mlp.0",
    "time_embed.fc2": "t_embedder.mlp.2",
    "scalar_embeds.fps.fc1": "fps_embedder.mlp.0",
    "scalar_embeds.fps.fc2": "fps_embedder.mlp.2",
    "shared_modulation": "t_block.1",
    "final.linear": "final_layer.linear",
}
ALONE = {
    "null_text": "y_embedder.y_embedding",
    "final.modulation.table": "final_layer.scale_shift_table",
}
IN_BLOCK = {
    "modulation.table": "scale_shift_table",
    "attention.to_out": "attn.proj",
    "attention.norm_q": "attn.q_norm",
    "attention.norm_k": "attn.k_norm",
    "attention_in_time.to_out": "attn_temp.proj",
    "cross_attention.to_q": "cross_attn.q_linear",
    "cross_attention.to_out": "cross_attn.proj",
    "feedforward.fc1": "mlp.fc1",
    "feedforward.fc2": "mlp.fc2",
}
FUSED = {
    "attention.to_q": ("attn.qkv", ("attention.to_q", "attention.to_k", "attention.to_v")),
    "attention_in_time.to_q": (
        "attn_temp.qkv",
        ("attention_in_time.to_q", "attention_in_time.to_k", "attention_in_time.to_v"),
    ),
    "cross_attention.to_k": (
        "cross_attn.kv_linear",
        ("cross_attention.to_k", "cross_attention.to_v"),
    ),
}
"""Maps that are one there, by the first of ours."""
FOLLOWING = {name for _, names in FUSED.values() for name in names[1:]}


def stdit_entries(network: VideoDiT) -> list[Entry]:
    """Where every weight of a network lies in its authors' file."""
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    is_alternating = "blocks.0.attention_in_time.to_q.weight" not in shapes
    places = []
    for key, shape in shapes.items():
        stem, _, kind = key.rpartition(".")
        if key in ALONE:
            places.append(Entry(ALONE[key], (key,)))
        elif found := re.fullmatch(r"blocks\.(\d+)\.(.+)", stem):
            block, inside = _block(int(found[1]), is_alternating), found[2]
            if inside in FOLLOWING:
                continue
            if inside in FUSED:
                theirs, ours = FUSED[inside]
                keys = tuple(f"blocks.{found[1]}.{name}.{kind}" for name in ours)
                places.append(Entry(f"{block}.{theirs}.{kind}", keys))
            elif f"{inside}.{kind}" in IN_BLOCK:  # a table has no kinds
                places.append(Entry(f"{block}.{IN_BLOCK[f'{inside}.{kind}']}", (key,)))
            else:
                places.append(Entry(f"{block}.{IN_BLOCK[inside]}.{kind}", (key,)))
        else:
            places.append(_outside(network, key, shape))
    return places


def _block(number: int, is_alternating: bool) -> str:
    """Blocks of either kind are counted by themselves where they alternate."""
    if not is_alternating:
        return f"blocks.{number}"
    return f"{('spatial', 'temporal')[number % 2]}_blocks.{number // 2}"


def _outside(network: VideoDiT, key: str, shape: tuple[int, ...]) -> Entry:
    stem, _, kind = key.rpartition(".")
    theirs, patch = f"{OUTSIDE[stem]}.{kind}", network.patch_size
    if key == "patch_embed.weight":  # a convolution there
        kernel = (shape[0], shape[1] // math.prod(patch), *patch)
        return Entry(theirs, (key,), shapes=(kernel, shape))
    if stem == "final.linear":  # theirs lists channels innermost
        return Entry(theirs, (key,), groups=(math.prod(patch), shape[0] // math.prod(patch)))
    return Entry(theirs, (key,))


def is_stdit(keys: Iterable[str]) -> bool:
    """Whether keys are those of a network of Open-Sora 1.0."""
    return MARK in set(keys)


def load_stdit(
    path: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> tuple[VideoDiT, tuple[int, int]]:
    """The network of Open-Sora 1.0 in a single file, and the clips that it is for.

    Args:
        path: The file.
        how: How weights are read.

    Returns:
        The network in eval mode; frames of latents, and latents along a side of each.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or of another network, or a key, a shape or a value is not as
            it has to be.
    """
    state, where = open_state(path), str(path)
    if not is_stdit(state):
        raise ValueError(f"{where}: got a file of no known network, expected one of Open-Sora 1.0")
    size, grid = _size_in(state, where)
    with torch.device("meta"):
        network = stdit(size)
    sides = (grid[0], size.patch * grid[1])
    if how.is_plan:
        return network.eval(), sides
    read = ForeignWeights(state, stdit_entries(network), (PLACES, FRAMES), where)
    fill(network, read, where, how.dtype)
    return network, sides


def _size_in(state: Mapping[str, Tensor], where: str) -> tuple[STDiTSize, tuple[int, int, int]]:
    """How large a network is, and the tokens of its clips.

    Raises:
        ValueError: If what tells it is missing or of another shape, or positions are not those
            published for clips of this size.
    """
    told = (PLACES, FRAMES, "x_embedder.proj.weight", "y_embedder.y_embedding")
    if missing := [key for key in told if key not in state]:
        raise ValueError(f"{where}: misses {missing[0]}")
    tables = {key: state[key] for key in (PLACES, FRAMES)}
    kernel, text = state[told[2]], state[told[3]]
    ranks = [value.ndim for value in (*tables.values(), kernel, text)]
    if ranks != [3, 3, 5, 2]:
        raise ValueError(f"{where}: {', '.join(told)} have {ranks} axes, expected [3, 3, 5, 2]")
    dim, channels = kernel.shape[:2]
    side, num_frames = math.isqrt(tables[PLACES].shape[1]), tables[FRAMES].shape[1]
    depth = len({found[1] for key in state if (found := re.match(r"blocks\.(\d+)\.", key))})
    scales = (side / SIDE, LONG_SCALE if num_frames == LONG else 1.0)
    size = STDiTSize(
        NUM_HEADS, dim // NUM_HEADS, depth, channels, text.shape[1], text.shape[0], *scales
    )
    grid, rule = (num_frames, side, side), SpaceAndTime(*scales)
    device = torch.device("cpu")
    places = rule.added(grid, dim, device)
    assert places is not None
    expected = {
        PLACES: rearrange(places, "1 h w d -> 1 (h w) d"),
        FRAMES: rearrange(rule.within(grid, dim, device), "t 1 1 d -> 1 t d"),
    }
    for key, table in tables.items():
        if not is_table(table, expected[key]):
            raise ValueError(f"{where}: {key} holds other positions than those published")
    return size, grid


def is_stdit3(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a network of Open-Sora 1.2."""
    return config.get("model_type") == KIND


def load_stdit3(
    folder: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> FilledVideoDiT:
    """The network of Open-Sora 1.2 in its authors' folder, in eval mode.

    Args:
        folder: Holds ``config.json`` and the weights.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a setting, a key, a shape or a value is not as it has to be.
    """
    said, where = str(folder / CONFIG), str(folder)
    config = ForeignConfig(read_config(folder), said)
    with torch.device("meta"), reading_settings(said):
        network = stdit3(_size_of(config))
        config.close()
    if how.is_plan:
        return network.eval()
    state = open_weights(folder, how.variant)
    count = network.dim // network.num_heads // 2
    expected = 10_000.0 ** (-torch.arange(count, dtype=torch.float64) / count)
    if ROTATIONS not in state or not is_table(state[ROTATIONS], expected.float()):
        raise ValueError(f"{where}: {ROTATIONS} holds other frequencies than those published")
    read = ForeignWeights(state, stdit_entries(network), (ROTATIONS,), where)
    fill(network, read, where, how.dtype)
    return network


def _size_of(config: ForeignConfig) -> STDiT3Size:
    config.expect(
        model_type=KIND, mlp_ratio=4.0, pred_sigma=True, qk_norm=True, skip_y_embedder=False
    )
    for name in ("architectures", "auto_map", "torch_dtype", "transformers_version"):
        config.take(name, None)  # of files
    for name in ("class_dropout_prob", "drop_path", "only_train_temporal", "freeze_y_embedder"):
        config.take(name, None)  # of training
    for name in ("input_size", "enable_flash_attn", "enable_layernorm_kernel"):
        config.take(name, None)  # of how it is computed
    heads, (pt, ph, pw) = config.take("num_heads", 16), config.take("patch_size", (1, 2, 2))
    if pt != 1 or ph != pw:
        raise ValueError(f"got patch_size={(pt, ph, pw)}, expected (1, n, n)")
    return STDiT3Size(
        heads,
        config.take("hidden_size", 1152) // heads,
        config.take("depth", 28),
        config.take("in_channels", 4),
        config.take("caption_channels", 4096),
        config.take("model_max_length", 300),
        config.take("input_sq_size", 512),
        ph,
    )


def is_table(found: Tensor, expected: Tensor) -> bool:
    """Whether a table is the expected one, as well as half precision can tell."""
    return found.shape == expected.shape and torch.allclose(found.float(), expected, atol=4e-3)
