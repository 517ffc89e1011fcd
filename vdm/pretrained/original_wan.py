"""Networks of Wan 2.1 and 2.2 in the files of their authors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vdm.layers.embeddings import NUM_FRAME_MASKS
from vdm.models.dit import VideoDiT
from vdm.models.dit_presets import WanKind, WanSize, wan
from vdm.pretrained.diffusers_dit import dit_entries
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, fill

CLASS = "WanModel"
"""In the settings beside the files."""
HEAD_DIM = 128
"""Width of an attention head, which no weight tells."""
MARKS = {"head.modulation", "time_projection.1.weight", "patch_embedding.weight"}
PICTURE, PLACES = "img_emb.proj.0.weight", "img_emb.emb_pos"

NAMES = [
    (r"condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"condition_embedder\.time_proj", "time_projection.1"),
    (r"condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"condition_embedder\.image_embedder\.pos_embed", PLACES),
    (r"condition_embedder\.image_embedder\.norm1", "img_emb.proj.0"),
    (r"condition_embedder\.image_embedder\.ff\.net\.0\.proj", "img_emb.proj.1"),
    (r"condition_embedder\.image_embedder\.ff\.net\.2", "img_emb.proj.3"),
    (r"condition_embedder\.image_embedder\.norm2", "img_emb.proj.4"),
    (r"^scale_shift_table", "head.modulation"),
    (r"^proj_out", "head.head"),
    (r"\.scale_shift_table", ".modulation"),
    (r"\.norm2\.", ".norm3."),  # counted in the order of use there
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.add_([kv])_proj\.", r".\1_img."),
    (r"\.norm_added_k\.", ".norm_k_img."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
]
"""diffusers' names, and those of the authors."""


def is_original_wan(keys: Iterable[str]) -> bool:
    """Whether keys are those of such a file."""
    return set(keys) >= MARKS


def load_original_wan(
    theirs: Mapping[str, Tensor],
    where: str | Path,
    make: Callable[[], VideoDiT] | None = None,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> VideoDiT:
    """The network of its authors' tensors, in eval mode.

    Args:
        theirs: The tensors.
        where: The file they come from, for messages.
        make: Builds the network, if its attention heads have another width than the published ones.
        how: How weights are read.

    Raises:
        ValueError: If a key, a shape or a value is not as it has to be.
    """
    with torch.device("meta"):
        network = (make or (lambda: network_of(theirs, where)))()
    if how.is_plan:
        return network.eval()
    read = ForeignWeights(theirs, original_wan_entries(network), where=str(where))
    fill(network, read, str(where), how.dtype)
    return network


def network_of(
    theirs: Mapping[str, Tensor], where: str | Path, head_dim: int = HEAD_DIM
) -> VideoDiT:
    """The network that some weights are of, by their shapes.

    Args:
        theirs: The tensors.
        where: The file they come from, for messages.
        head_dim: Width of an attention head.

    Raises:
        ValueError: If they are of no kind that is known.
    """
    kernel = theirs["patch_embedding.weight"].shape
    if len(kernel) != 5:
        raise ValueError(
            f"{where}: patch_embedding.weight has shape {tuple(kernel)}, expected five axes"
        )
    dim, inputs, pt, ph, pw = kernel
    channels = len(theirs["head.head.weight"]) // (pt * ph * pw)
    kind: WanKind = "t2v"
    if inputs == 2 * channels + NUM_FRAME_MASKS:
        kind = "flf2v" if PLACES in theirs else "i2v" if PICTURE in theirs else "2.2-i2v"
    elif inputs != channels:
        expected = f"{channels} or {2 * channels + NUM_FRAME_MASKS}"
        raise ValueError(f"{where}: got a network of {inputs} channels, expected {expected}")
    blocks = {found[1] for key in theirs if (found := re.match(r"blocks\.(\d+)\.", key))}
    size = WanSize(
        dim // head_dim,
        head_dim,
        len(blocks),
        len(theirs["blocks.0.ffn.0.weight"]),
        channels,
        theirs["text_embedding.0.weight"].shape[1],
        (pt, ph, pw),
    )
    if kind in ("i2v", "flf2v"):
        size = replace(size, image_dim=len(theirs[PICTURE]))
    if kind == "flf2v":
        size = replace(size, num_image=theirs[PLACES].shape[1])
    return wan(size, kind)


def original_wan_entries(network: VideoDiT) -> list[Entry]:
    """Where every weight lies in the authors' file."""
    return [replace(entry, theirs=_original(entry.theirs)) for entry in dit_entries(network)]


def _original(name: str) -> str:
    for theirs, authors in NAMES:
        name = re.sub(theirs, authors, name)
    return name
