"""CLIP's image transformer under the names of open-clip, in which authors ship it."""

from __future__ import annotations

import re

from vdm.conditioning.clip_image import ClipImageEncoder
from vdm.conditioning.resampler import Resampler
from vdm.pretrained.keymap import Entry

OUTSIDE = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
}
IN_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
PROJECTION = "model.visual_projection.weight"
RESAMPLER = {
    "queries": "latents",
    "proj_in.weight": "proj_in.weight",
    "proj_in.bias": "proj_in.bias",
    "proj_out.weight": "proj_out.weight",
    "proj_out.bias": "proj_out.bias",
    "norm.weight": "norm_out.weight",
    "norm.bias": "norm_out.bias",
}
IN_RESAMPLER = {
    "norm_features": "0.norm1",
    "norm_queries": "0.norm2",
    "attention.to_q": "0.to_q",
    "attention.to_k": "0.to_kv",
    "attention.to_out": "0.to_out",
    "norm_out": "1.0",
    "feedforward.fc1": "1.1",
    "feedforward.fc2": "1.3",
}
"""Modules of a block, whose attention and feed-forward are a list."""


def open_clip_entries(encoder: ClipImageEncoder) -> list[Entry]:
    """Where every weight lies in open-clip's image tower; there q, k and v are one matrix."""
    found = [Entry("proj", (PROJECTION,), is_transposed=True)]
    for key in encoder.state_dict():
        name = key.removeprefix("model.vision_model.")
        stem, _, kind = name.rpartition(".")
        if key == PROJECTION or re.search(r"\.[kv]_proj$", stem):
            continue
        if place := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", stem):
            block = f"transformer.resblocks.{place[1]}"
            if place[2] == "self_attn.q_proj":
                ours = tuple(key.replace("q_proj", f"{part}_proj") for part in "qkv")
                found.append(Entry(f"{block}.attn.in_proj_{kind}", ours))
            else:
                found.append(Entry(f"{block}.{IN_LAYER[place[2]]}.{kind}", (key,)))
        elif name in OUTSIDE:
            found.append(Entry(OUTSIDE[name], (key,)))
        else:
            found.append(Entry(f"{OUTSIDE[stem]}.{kind}", (key,)))
    return found


def resampler_entries(resampler: Resampler) -> list[Entry]:
    """Where every weight lies in the resampler of IP-Adapter Plus; there k and v are one matrix."""
    found = []
    for key in resampler.state_dict():
        if key in RESAMPLER:
            found.append(Entry(RESAMPLER[key], (key,)))
            continue
        _, block, inside = key.split(".", 2)
        stem, _, kind = inside.rpartition(".")
        if stem in IN_RESAMPLER:
            both = (key, key.replace("to_k", "to_v")) if stem == "attention.to_k" else (key,)
            found.append(Entry(f"layers.{block}.{IN_RESAMPLER[stem]}.{kind}", both))
    return found
