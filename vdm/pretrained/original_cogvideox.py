"""CogVideoX's networks out of their authors' files, in the layout of SwissArmyTransformer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vdm.models.dit_presets import (
    COGVIDEOX_2B,
    COGVIDEOX_5B,
    COGVIDEOX_15_5B,
    CogVideoXKind,
    CogVideoXSize,
    cogvideox,
)
from vdm.models.joint_dit import JointDiT
from vdm.pretrained.diffusers_dit import dit_entries
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, fill

MARK = "transformer.layers.0.attention.query_key_value.weight"
PATCHES, OFFSET = "mixins.patch_embed.proj.weight", "ofs_embed.0.weight"
TABLE = "mixins.pos_embed.pos_embedding"
COMPUTED = (
    TABLE,
    "mixins.pos_embed.freqs_sin",
    "mixins.pos_embed.freqs_cos",
    "transformer.position_embeddings.weight",
    "transformer.word_embeddings.weight",
)
"""Tables that are computed here, or of words, which these networks are not told so."""

RENAMES = (
    (r"^patch_embed\.", "mixins.patch_embed.proj."),
    (r"^text_embed\.", "mixins.patch_embed.text_proj."),
    (r"^learned\.table$", TABLE),
    (r"^time_embed\.fc1\.", "time_embed.0."),
    (r"^time_embed\.fc2\.", "time_embed.2."),
    (r"^offset_embed\.fc1\.", "ofs_embed.0."),
    (r"^offset_embed\.fc2\.", "ofs_embed.2."),
    (r"^norm\.", "transformer.final_layernorm."),
    (r"^final\.norm\.", "mixins.final_layer.norm_final."),
    (r"^final\.modulation\.linear\.", "mixins.final_layer.adaLN_modulation.1."),
    (r"^final\.linear\.", "mixins.final_layer.linear."),
    (r"^blocks\.(\d+)\.modulation1\.linear\.", r"mixins.adaln_layer.adaLN_modulations.\1.1."),
    (r"^blocks\.(\d+)\.attention\.norm_q\.", r"mixins.adaln_layer.query_layernorm_list.\1."),
    (r"^blocks\.(\d+)\.attention\.norm_k\.", r"mixins.adaln_layer.key_layernorm_list.\1."),
    (r"^blocks\.", "transformer.layers."),
    (r"\.norm1\.", ".input_layernorm."),
    (r"\.norm2\.", ".post_attention_layernorm."),
    (r"\.attention\.to_q\.", ".attention.query_key_value."),
    (r"\.attention\.to_out\.", ".attention.dense."),
    (r"\.feedforward\.fc1\.", ".mlp.dense_h_to_4h."),
    (r"\.feedforward\.fc2\.", ".mlp.dense_4h_to_h."),
)
QKV = ("to_q", "to_k", "to_v")
WITH_OTHERS = re.compile(r"\.(attention\.to_[kv]|modulation2\.linear)\.")
"""Keys of ours whose numbers lie in tensors that other keys name."""


def build_cogvideox(
    theirs: Mapping[str, Tensor],
    path: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
    sizes: Mapping[str, CogVideoXSize] | None = None,
) -> JointDiT:
    """A network of its authors' tensors, in eval mode. Which it is, is seen by their shapes.

    Args:
        theirs: The tensors, by names without the prefix of the network.
        path: The file they come from, for messages.
        how: How weights are read.
        sizes: How large the networks ``2b``, ``5b`` and ``1.5`` are, if they are not the published
            ones.

    Raises:
        ValueError: If a key, a shape or a value is not as it has to be.
    """
    usual = {"2b": COGVIDEOX_2B, "5b": COGVIDEOX_5B, "1.5": COGVIDEOX_15_5B}
    kind, family = _kind_of(theirs, sizes or usual)
    with torch.device("meta"):
        network = cogvideox(kind, (sizes or usual)[family])
    if how.is_plan:
        return network.eval()
    places = cogvideox_entries(network)
    known = {place.theirs for place in places}
    unused = [key for key in theirs if key in COMPUTED and key not in known]
    fill(network, ForeignWeights(theirs, places, unused, str(path)), str(path), how.dtype)
    return network


def cogvideox_entries(network: JointDiT) -> list[Entry]:
    """Where every weight lies in the authors' file, behind the prefix of the network."""
    found = []
    for place in dit_entries(network):
        (key,) = place.ours
        if WITH_OTHERS.search(key):
            continue
        name = key
        for ours, theirs in RENAMES:
            name = re.sub(ours, theirs, name)
        if ".to_q." in key:
            found.append(Entry(name, tuple(key.replace("to_q", part) for part in QKV)))
        elif ".modulation1." in key:  # first of the clip, for both branches, then of the text
            both = (key, key.replace("modulation1", "modulation2"))
            found.append(Entry(name, both, groups=(2, 2, 3 * network.dim)))
        else:
            found.append(replace(place, theirs=name))
    return found


def _kind_of(
    theirs: Mapping[str, Tensor], sizes: Mapping[str, CogVideoXSize]
) -> tuple[CogVideoXKind, str]:
    """Which network tensors are of, and of which size."""
    patches = theirs[PATCHES]
    if patches.ndim == 2:  # of pairs of frames
        return ("1.5-i2v" if OFFSET in theirs else "1.5"), "1.5"
    size = sizes["2b"]
    if f"transformer.layers.{size.depth}.attention.dense.weight" not in theirs:
        return "2b", "2b"
    return ("5b-i2v" if patches.shape[1] > size.in_channels else "5b"), "5b"
