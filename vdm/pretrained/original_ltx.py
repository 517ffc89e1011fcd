"""LTX-Video in the single file of its authors: network and autoencoder, no text encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm.autoencoder.ltx_vae import LTXVAE
from vdm.models.dit import VideoDiT
from vdm.pretrained.diffusers_causal_vae import causal_vae_entries, causal_vae_from_config
from vdm.pretrained.diffusers_dit import dit_entries
from vdm.pretrained.diffusers_dit_config import FIRST_ALONE, dit_from_config
from vdm.pretrained.diffusers_dit_pipeline import assemble_dit
from vdm.pretrained.diffusers_scheduler import rules_from_config
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, fill
from vdm.pretrained.parts import Parts
from vdm.pretrained.tensor_files import part_of

NETWORK, VAE = "model.diffusion_model.", "vae."
MARK = f"{NETWORK}patchify_proj.weight"
DEEP = f"{NETWORK}transformer_blocks.47.scale_shift_table"
TOLD, FOLDING = "decoder.last_scale_shift_table", "encoder.down_blocks.1.conv.conv.weight"
"""Keys that only some have: of 13 B parameters; decoders told a noise level; folding encoders."""
STATISTICS = "per_channel_statistics."

SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "shift_terminal": 0.1,
}
UNSHIFTED = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
"""Up to version 0.9.1, and from 0.9.5 on."""
TRANSFORMER = {"_class_name": "LTXVideoTransformer3DModel"}
LARGE = {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48}
OLD = {"_class_name": "AutoencoderKLLTXVideo"}
NEW = OLD | {
    "decoder_block_out_channels": (256, 512, 1024),
    "decoder_layers_per_block": (5, 6, 7, 8),
    "decoder_spatio_temporal_scaling": (True,) * 3,
    "decoder_inject_noise": (True, True, True, False),
    "upsample_residual": (True,) * 3,
    "upsample_factor": (2,) * 3,
    "timestep_conditioning": True,
}
NEWER = NEW | {
    "block_out_channels": (128, 256, 512, 1024, 2048),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "layers_per_block": (4, 6, 6, 2, 2),
    "decoder_layers_per_block": (5, 5, 5, 5),
    "decoder_inject_noise": (False,) * 4,
    "spatio_temporal_scaling": (True,) * 4,
}
"""Of versions 0.9.0, 0.9.1, and from 0.9.5 on, as diffusers has them."""

NETWORK_RENAMES = (
    (r"^proj_in\.", "patchify_proj."),
    (r"^time_embed\.", "adaln_single."),
    (r"\.norm_(q|k)\.", r".\1_norm."),
)
VAE_RENAMES = (
    (r"^latents_(mean|std)$", rf"{STATISTICS}\1-of-means"),
    (r"^decoder\.(time_embedder|scale_shift_table)", r"decoder.last_\1"),
    (r"\.resnets\.", ".res_blocks."),
    (r"\.norm3\.", ".norm3.norm."),
    (r"\.conv_shortcut\.conv\.", ".conv_shortcut."),
)
PLACE = re.compile(
    r"^(en|de)coder\.(?:mid_block|(?:down|up)_blocks\.(\d+))"
    r"(?:\.(downsamplers\.0|upsamplers\.0|conv_in|conv_out)(?=\.|$))?"
)


def is_ltx(keys: Mapping[str, Tensor]) -> bool:
    """Whether a file is one of LTX-Video."""
    return MARK in keys


def read_ltx(
    path: Path,
    files: Mapping[str, Tensor],
    how: Reading = Reading(),  # noqa: B008 (frozen)
    sizes: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> Parts:
    """The model of a single file. Prompts are T5's states, of which the file has no encoder.

    Args:
        path: The file.
        files: Its tensors.
        how: How weights are read.
        sizes: Settings of network and autoencoder, as diffusers has them, if they are not those of
            a published version.

    Raises:
        ValueError: If a key, a shape or a value is not as it has to be.
    """
    if surplus := sorted(key for key in files if not key.startswith((NETWORK, VAE))):
        raise ValueError(f"{path}: holds {surplus[0]}, for which there is no place")
    network = read_ltx_network(path, files, how, sizes and sizes[0])
    autoencoder = read_ltx_vae(path, files, how, sizes and sizes[1])
    rules = rules_from_config(UNSHIFTED if _is_late(files) else SCHEDULER)
    return assemble_dit(path.stem, network, None, autoencoder, rules, TRANSFORMER)


def read_ltx_network(
    path: Path,
    files: Mapping[str, Tensor],
    how: Reading = Reading(),  # noqa: B008 (frozen)
    settings: Mapping[str, Any] | None = None,
) -> VideoDiT:
    """The network of a single file, in eval mode; arguments as for :func:`read_ltx`."""
    usual = TRANSFORMER | (LARGE if DEEP in files else {})
    usual |= {FIRST_ALONE: True} if _is_late(files) else {}
    with torch.device("meta"):
        network = dit_from_config(settings or usual, str(path))
    assert isinstance(network, VideoDiT)
    if how.is_plan:
        return network.eval()
    read = ForeignWeights(part_of(files, NETWORK), network_entries(network), where=str(path))
    fill(network, read, str(path), how.dtype)
    return network


def read_ltx_vae(
    path: Path,
    files: Mapping[str, Tensor],
    how: Reading = Reading(),  # noqa: B008 (frozen)
    settings: Mapping[str, Any] | None = None,
) -> LTXVAE:
    """The autoencoder of a single file, in eval mode; arguments as for :func:`read_ltx`."""
    theirs = part_of(files, VAE)
    usual = NEWER if FOLDING in theirs else NEW if TOLD in theirs else OLD
    with torch.device("meta"):
        vae = causal_vae_from_config(settings or usual, str(path))
    assert isinstance(vae, LTXVAE)
    if how.is_plan:
        return vae.eval()
    places = vae_entries(vae)
    known = {place.theirs for place in places}
    unused = [key for key in theirs if key.startswith(STATISTICS) and key not in known]
    fill(vae, ForeignWeights(theirs, places, unused, str(path)), str(path), how.dtype)
    return vae


def _is_late(files: Mapping[str, Tensor]) -> bool:
    """Whether a file is of version 0.9.5 or later."""
    return DEEP in files or f"{VAE}{FOLDING}" in files


def network_entries(network: VideoDiT) -> list[Entry]:
    """Where every weight of a network lies in its authors' file, behind the prefix."""
    return [
        replace(place, theirs=_renamed(place.theirs, NETWORK_RENAMES))
        for place in dit_entries(network)
    ]


def vae_entries(vae: LTXVAE) -> list[Entry]:
    """Where every weight of an autoencoder lies in its authors' file, behind the prefix.

    There, blocks of one size and what is between them are counted through.
    """
    places = causal_vae_entries(vae)
    heads = {found[0] for place in places if (found := PLACE.match(place.theirs))}
    counts = {
        head: number
        for half in ("encoder", "decoder")
        for number, head in enumerate(sorted((h for h in heads if half in h), key=_order))
    }

    def name(theirs: str) -> str:
        if found := PLACE.match(theirs):
            way = {"en": "down", "de": "up"}[found[1]]
            theirs = f"{found[1]}coder.{way}_blocks.{counts[found[0]]}{theirs[found.end() :]}"
        return _renamed(theirs, VAE_RENAMES)

    return [replace(place, theirs=name(place.theirs)) for place in places]


def _order(head: str) -> tuple[int, int]:
    """Where a part of an encoder or a decoder comes."""
    found = PLACE.match(head)
    assert found is not None
    half, level, part = found[1], found[2], found[3]
    if level is None:  # the middle
        return (1000, 0) if half == "en" else (-1, 0)
    order = {"en": (None, "downsamplers.0", "conv_out"), "de": ("conv_in", "upsamplers.0", None)}
    return int(level), order[half].index(part)


def _renamed(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for theirs, authors in names:
        key = re.sub(theirs, authors, key)
    return key
