"""CLIP's image transformer under the names of open-clip, in which authors ship it."""

from __future__ import annotations

import re

from vdm.conditioning.clip_image import ClipImageEncoder
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
