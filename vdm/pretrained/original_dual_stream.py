"""Where weights of double-stream and single-stream blocks lie in their authors' files."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from torch import Tensor

from vdm.models.dual_stream_dit import DualStreamDiT
from vdm.pretrained.keymap import Entry, renamed

QKV = ("to_q", "to_k", "to_v")


@dataclass(frozen=True)
class DualStreamNames:
    """What the authors of a network call its parts.

    Args:
        outside: How keys of ours begin outside of blocks, and how theirs do.
        stream: The same behind the name of a stream in a double-stream block.
        single: The same behind the number of a single-stream block.
        refiner: The same behind the number of a block over text.
        fuses: Whether queries, keys and values are one matrix, in single-stream blocks with the
            way into the feed-forward network; otherwise there the values alone are one with it.
    """

    outside: tuple[tuple[str, str], ...]
    stream: tuple[tuple[str, str], ...]
    single: tuple[tuple[str, str], ...]
    refiner: tuple[tuple[str, str], ...] = ()
    fuses: bool = True


SHARED = (
    (r"pooled_embed\.0", "vector_in.in_layer"),
    (r"pooled_embed\.2", "vector_in.out_layer"),
    (r"final\.modulation\.linear", "final_layer.adaLN_modulation.1"),
    (r"final\.linear", "final_layer.linear"),
)
HUNYUAN_ORIGINAL = DualStreamNames(
    (
        *SHARED,
        (r"patch_embed", "img_in.proj"),
        (r"text_embed\.time_embed\.fc1", "txt_in.t_embedder.mlp.0"),
        (r"text_embed\.time_embed\.fc2", "txt_in.t_embedder.mlp.2"),
        (r"text_embed\.mean_embed\.0", "txt_in.c_embedder.linear_1"),
        (r"text_embed\.mean_embed\.2", "txt_in.c_embedder.linear_2"),
        (r"text_embed\.embed", "txt_in.input_embedder"),
        (r"(time|guidance)_embed\.fc1", r"\1_in.mlp.0"),
        (r"(time|guidance)_embed\.fc2", r"\1_in.mlp.2"),
    ),
    (
        (r"modulation", "mod"),
        (r"attention\.to_q", "attn_qkv"),
        (r"attention\.to_out", "attn_proj"),
        (r"attention\.norm_(.)", r"attn_\1_norm"),
        (r"feedforward", "mlp"),
    ),
    (
        (r"modulation", "modulation"),
        (r"attention\.to_q", "linear1"),
        (r"attention\.to_out", "linear2"),
        (r"attention\.norm_(.)", r"\1_norm"),
    ),
    (
        (r"norm", "norm"),
        (r"attention\.to_q", "self_attn_qkv"),
        (r"attention\.to_out", "self_attn_proj"),
        (r"feedforward\.0", "mlp.fc1"),
        (r"feedforward\.2", "mlp.fc2"),
        (r"gates\.linear", "adaLN_modulation.1"),
    ),
)
OPEN_SORA_ORIGINAL = DualStreamNames(
    (
        *SHARED,
        (r"patch_embed", "img_in"),
        (r"given_embed", "cond_in"),
        (r"text_embed", "txt_in"),
        (r"time_embed\.fc1", "time_in.in_layer"),
        (r"time_embed\.fc2", "time_in.out_layer"),
    ),
    (
        (r"modulation\.linear", "mod.lin"),
        (r"attention\.to_([qkv])", r"attn.\1_proj"),
        (r"attention\.to_out", "attn.proj"),
        (r"attention\.norm_q\.weight", "attn.norm.query_norm.scale"),
        (r"attention\.norm_k\.weight", "attn.norm.key_norm.scale"),
        (r"feedforward\.fc1", "mlp.0"),
        (r"feedforward\.fc2", "mlp.2"),
    ),
    (
        (r"modulation\.linear", "modulation.lin"),
        (r"attention\.to_v", "v_mlp"),
        (r"attention\.to_([qk])", r"\1_proj"),
        (r"attention\.to_out", "linear2"),
        (r"attention\.norm_q\.weight", "norm.query_norm.scale"),
        (r"attention\.norm_k\.weight", "norm.key_norm.scale"),
    ),
    fuses=False,
)


def dual_stream_entries(network: DualStreamDiT, names: DualStreamNames) -> list[Entry]:
    """Where every weight lies in the authors' file.

    Args:
        network: The network.
        names: What they call its parts.
    """
    state = network.state_dict()
    found = [_entry(network, key, state, names) for key in state]
    return [entry for entry in found if entry is not None]


def _entry(
    network: DualStreamDiT, key: str, state: dict[str, Tensor], names: DualStreamNames
) -> Entry | None:
    """The tensor of theirs that begins with one of ours; None if ours stands further behind."""
    group = _group(key, names.fuses)
    if key != group[0]:
        return None
    theirs = _name(key, names)
    if key == "patch_embed.weight" and names is HUNYUAN_ORIGINAL:  # a convolution there
        rows, columns = state[key].shape
        kernel = (rows, columns // math.prod(network.patch_size), *network.patch_size)
        return Entry(theirs, group, shapes=(kernel, (rows, columns)))
    return Entry(theirs, group, sizes=tuple(len(state[part]) for part in group))


def _group(key: str, fuses: bool) -> tuple[str, ...]:
    """Our keys that are one tensor there, of which this is one."""
    found = re.fullmatch(r"(.+\.)(attention\.to_[qkv]|to_hidden)(\..+)", key)
    if found is None:
        return (key,)
    head, part, tail = found.groups()
    parts = [f"attention.{name}" for name in QKV]
    if key.startswith("single_blocks."):
        parts.append("to_hidden")
    if not fuses:  # but values with the way into the feed-forward network
        parts = parts[2:] if part in parts[2:] else [part]
    return tuple(f"{head}{name}{tail}" for name in parts)


def _name(key: str, names: DualStreamNames) -> str:
    """What they call the tensor that begins with one of ours."""
    if found := re.match(r"(double_blocks\.\d+)\.(video|text)\.", key):
        stream = {"video": "img", "text": "txt"}[found[2]]
        return f"{found[1]}.{stream}_{renamed(key[found.end() :], names.stream)}"
    if found := re.match(r"(single_blocks\.\d+)\.", key):
        return f"{found[1]}.{renamed(key[found.end() :], names.single)}"
    if found := re.match(r"text_embed\.blocks\.(\d+)\.", key):
        head = f"txt_in.individual_token_refiner.blocks.{found[1]}"
        return f"{head}.{renamed(key[found.end() :], names.refiner)}"
    return renamed(key, names.outside)
