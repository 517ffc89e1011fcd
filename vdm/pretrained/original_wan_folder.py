"""Wan 2.1 and 2.2 in the folders of their authors: networks, a VAE, encoders of text and pictures.

Weights are those of the models in diffusers' layout, and so is what is computed. The authors' own
code shows pictures to CLIP as squares into which they are squeezed, here the square in the middle.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm.conditioning.clip_image import ClipStatesEncoder
from vdm.conditioning.t5_text import T5TextEncoder, read_tokenizer
from vdm.models.experts import Experts
from vdm.pretrained.diffusers_files import open_state, open_weights
from vdm.pretrained.diffusers_scheduler import rules_from_config
from vdm.pretrained.diffusers_settings import reading_settings
from vdm.pretrained.diffusers_wan_pipeline import (
    FLF2V,
    I2V,
    I2V_A14B,
    NUM_TEXT,
    T2V,
    T2V_A14B,
    TI2V_5B,
    assemble_wan,
    given_by,
    system_of,
)
from vdm.pretrained.keymap import Entry, ForeignWeights, renamed
from vdm.pretrained.loading import Reading, fill
from vdm.pretrained.original_causal_vae import load_original_vae
from vdm.pretrained.original_wan import load_original_wan
from vdm.pretrained.parts import Parts

T5, TOKENIZER = "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE, VAE_22 = "Wan2.1_VAE.pth", "Wan2.2_VAE.pth"
PAIR = ("high_noise_model", "low_noise_model")
"""Files and folders, as they are called where they are published."""
SHIFTS = {T2V: 5.0, I2V: 5.0, FLF2V: 16.0, T2V_A14B: 12.0, I2V_A14B: 5.0, TI2V_5B: 5.0}
"""How far noise times are moved, by its authors' settings."""
BOUNDARIES = {T2V_A14B: 0.875, I2V_A14B: 0.9}
"""Noise time at which the second network takes over."""
NUM_HEADS = 16
"""Attention heads of CLIP, which no weight tells."""

UMT5 = [
    (r"shared\.", "token_embedding."),
    (r"encoder\.final_layer_norm\.", "norm."),
    (
        r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\.",
        r"blocks.\1.pos_embedding.embedding.",
    ),
    (r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.", r"blocks.\1.attn."),
    (r"encoder\.block\.(\d+)\.layer\.0\.layer_norm\.", r"blocks.\1.norm1."),
    (r"encoder\.block\.(\d+)\.layer\.1\.layer_norm\.", r"blocks.\1.norm2."),
    (r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0\.", r"blocks.\1.ffn.gate.0."),
    (r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1\.", r"blocks.\1.ffn.fc1."),
    (r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo\.", r"blocks.\1.ffn.fc2."),
]
"""How keys of transformers begin, and how the authors' do."""
TOWER = [
    (r"embeddings\.class_embedding", "visual.cls_embedding"),
    (r"embeddings\.patch_embedding\.", "visual.patch_embedding."),
    (r"embeddings\.position_embedding\.weight", "visual.pos_embedding"),
    (r"pre_layrnorm\.", "visual.pre_norm."),
    (r"post_layernorm\.", "visual.post_norm."),
    (r"encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"visual.transformer.\1.norm\2."),
    (r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.", r"visual.transformer.\1.attn.to_qkv."),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"visual.transformer.\1.attn.proj."),
    (r"encoder\.layers\.(\d+)\.mlp\.fc1\.", r"visual.transformer.\1.mlp.0."),
    (r"encoder\.layers\.(\d+)\.mlp\.fc2\.", r"visual.transformer.\1.mlp.2."),
]
"""Likewise of the image tower; the text tower beside it is not read."""


def is_wan_folder(path: Path) -> bool:
    """Whether a folder is one of Wan's authors."""
    return (path / TOKENIZER).is_dir()


def read_wan_folder(
    folder: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """A model from its authors' folder.

    Args:
        folder: Holds the text encoder and its tokenizer, a VAE, and a network or two; for models
            that are told of pictures in tokens, CLIP.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is damaged, of another model, or a key, a shape or a value is not as it
            has to be.

    Source:
        Wan team 2025, arXiv:2503.20314; the settings of its inference code.
    """
    has_two = (folder / PAIR[0]).is_dir()
    places = [folder / name for name in PAIR] if has_two else [folder]
    first, *second = (
        load_original_wan(open_weights(place, how.variant), place, how=how) for place in places
    )
    is_in_place = (folder / VAE_22).is_file()
    given = given_by(first, is_in_place)
    system = system_of(has_two, given)
    scheduler = {
        "_class_name": "UniPCMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": SHIFTS[system],
    }
    rules = rules_from_config(scheduler)
    network: Any = first
    if second:
        network = Experts(first, second[0], BOUNDARIES[system] * rules.preconditioning.scale).eval()
    tells = first.options.cross.picture is not None
    return assemble_wan(
        folder.resolve().name,
        network,
        load_umt5(folder / T5, folder / TOKENIZER, how),
        load_original_vae(folder / (VAE_22 if is_in_place else VAE), how),
        load_wan_clip(folder / CLIP, how) if tells else None,
        rules,
        given,
    )


def load_umt5(
    path: Path,
    tokenizer: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> T5TextEncoder:
    """The encoder of text in Wan's authors' file, in eval mode.

    Args:
        path: The file.
        tokenizer: The folder of its tokenizer.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a key, a shape or a value is not as it has to be.
    """
    state, where = open_state(path), str(path)
    names = ("token_embedding", "blocks.0.pos_embedding.embedding", "blocks.0.attn.q")
    tokens, buckets, queries, inner = (
        _shape(state, f"{name}.weight", 2, where) for name in (*names, "blocks.0.ffn.fc1")
    )
    config = {
        "model_type": "umt5",
        "vocab_size": tokens[0],
        "d_model": tokens[1],
        "d_kv": queries[0] // buckets[1],
        "d_ff": inner[0],
        "num_layers": _count(state, r"blocks\.(\d+)\."),
        "num_heads": buckets[1],
        "relative_attention_num_buckets": buckets[0],
        "feed_forward_proj": "gated-gelu",
    }
    with torch.device("meta"), reading_settings(where):
        encoder = T5TextEncoder(config, read_tokenizer(tokenizer), NUM_TEXT, "zeroed", mends=True)
    if how.is_plan:
        return encoder.eval()
    places = [
        Entry(renamed(key.removeprefix("model."), UMT5), (key,)) for key in encoder.state_dict()
    ]
    fill(encoder, ForeignWeights(state, places, where=where), where, how.dtype)
    return encoder


def load_wan_clip(
    path: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> ClipStatesEncoder:
    """The encoder of pictures in Wan's authors' file, in eval mode.

    Args:
        path: The file, which holds an encoder of text besides.
        how: How weights are read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key, a shape or a value is not as it has to be.
    """
    state, where = open_state(path), str(path)
    dim, _, side, _ = _shape(state, "visual.patch_embedding.weight", 4, where)
    _, num_tokens, _ = _shape(state, "visual.pos_embedding", 3, where)
    config = {
        "hidden_size": dim,
        "intermediate_size": _shape(state, "visual.transformer.0.mlp.0.weight", 2, where)[0],
        "num_hidden_layers": _count(state, r"visual\.transformer\.(\d+)\."),
        "num_attention_heads": NUM_HEADS,
        "patch_size": side,
        "image_size": side * math.isqrt(num_tokens - 1),
        "hidden_act": "gelu",
    }
    with torch.device("meta"), reading_settings(where):
        encoder = ClipStatesEncoder(config)
    if how.is_plan:
        return encoder.eval()
    unread = [key for key in state if not key.startswith("visual.")]
    read = ForeignWeights(state, _tower_entries(encoder), [*unread, "visual.head"], where)
    fill(encoder, read, where, how.dtype)
    return encoder


def _tower_entries(encoder: ClipStatesEncoder) -> list[Entry]:
    """Where every weight lies; there q, k and v are one matrix."""
    found = []
    for key, value in encoder.state_dict().items():
        if re.search(r"\.[kv]_proj\.", key):
            continue
        name = renamed(key.removeprefix("model.").removeprefix("vision_model."), TOWER)
        shape = tuple(value.shape)
        if name.endswith("_embedding"):  # for every clip the same
            theirs = (*(1,) * (3 - len(shape)), *shape)
            found.append(Entry(name, (key,), shapes=(theirs, shape)))
        elif "q_proj" in key:
            found.append(Entry(name, tuple(key.replace("q_proj", f"{x}_proj") for x in "qkv")))
        else:
            found.append(Entry(name, (key,)))
    return found


def _shape(state: Mapping[str, Tensor], key: str, rank: int, where: str) -> tuple[int, ...]:
    """The shape of a tensor that tells how large a model is.

    Raises:
        ValueError: If it is not there, or has another number of axes.
    """
    if key not in state or state[key].ndim != rank:
        raise ValueError(f"{where}: has no {key} of {rank} axes, expected a file of Wan")
    return tuple(state[key].shape)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many layers there are."""
    return len({found[1] for key in state if (found := re.match(pattern, key))})
