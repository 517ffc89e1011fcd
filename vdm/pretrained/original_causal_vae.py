"""Causal VAEs out of their authors' single files: which it is, is seen by its keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vdm.autoencoder.causal_vae import CausalVAE, ChunkedVAE
from vdm.autoencoder.wan_vae import WanResidualDesign
from vdm.pretrained.diffusers_causal_vae import causal_vae_entries, causal_vae_from_config
from vdm.pretrained.diffusers_files import open_state
from vdm.pretrained.diffusers_wan_vae import MEAN_22, STD_22
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, fill

TRAINING = "loss."
"""Before the names of what was only there for training."""


@dataclass(frozen=True)
class Known:
    """A published VAE.

    Args:
        config: Its settings, as diffusers has them.
        mark: A key that none of the others has.
        rename: From a key of diffusers to its authors'.
    """

    config: dict[str, Any]
    mark: str
    rename: Callable[[str, Any], str]


def load_original_vae(
    path: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> ChunkedVAE:
    """The VAE of a single file, in eval mode, its weights as stored.

    CogVideoX's file does not say what latents are multiplied by, which differs between its models:
    it is read as that of 2B, 1.15258426.

    Args:
        path: Of the authors: CogVideoX, HunyuanVideo, Wan 2.1, Wan 2.2.
        how: How weights are read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or of no known VAE, or a key, a shape or a value is not as it
            has to be.
    """
    state = open_state(path)
    theirs = {key: state[key] for key in state if not key.startswith(TRAINING)}
    where = str(path)
    known = KNOWN[recognize(theirs, where)]
    with torch.device("meta"):
        vae = causal_vae_from_config(known.config, where)
    places = original_vae_entries(vae, known)
    fill(vae, ForeignWeights(theirs, places, where=where), where, how.dtype)
    return vae


def is_causal_vae(keys: Iterable[str]) -> bool:
    """Whether keys are those of a file that :func:`load_original_vae` reads."""
    names = set(keys)
    return any(known.mark in names for known in KNOWN.values())


def recognize(keys: Iterable[str], where: str) -> str:
    """The name of the VAE that keys belong to.

    Raises:
        ValueError: If it is none of those that are known.
    """
    names = set(keys)
    for name, known in KNOWN.items():
        if known.mark in names:
            return name
    raise ValueError(f"{where}: got a file of no known VAE, expected one of {', '.join(KNOWN)}")


def original_vae_entries(vae: ChunkedVAE, known: Known) -> list[Entry]:
    """Where every weight lies in the authors' file."""
    return [
        replace(entry, theirs=known.rename(entry.theirs, vae)) for entry in causal_vae_entries(vae)
    ]


def _cogvideox(name: str, vae: CausalVAE) -> str:
    last = len(vae.decoder.levels) - 1  # levels are counted from the finest on both ways
    name = re.sub(r"\.down_blocks\.(\d+)\.", r".down.\1.", name)
    name = re.sub(r"\.up_blocks\.(\d+)\.", lambda found: f".up.{last - int(found[1])}.", name)
    name = re.sub(r"\.mid_block\.resnets\.(\d)\.", _middle, name)
    for theirs, authors in (
        (".resnets.", ".block."),
        (".downsamplers.0.", ".downsample."),
        (".upsamplers.0.", ".upsample."),
        (".conv_shortcut.", ".nin_shortcut."),
    ):
        name = name.replace(theirs, authors)
    return name


def _middle(found: re.Match[str]) -> str:
    return f".mid.block_{int(found[1]) + 1}."


WAN_OUTSIDE = {
    "quant_conv": "conv1",
    "post_quant_conv": "conv2",
    "encoder.conv_in": "encoder.conv1",
    "decoder.conv_in": "decoder.conv1",
    "encoder.norm_out": "encoder.head.0",
    "decoder.norm_out": "decoder.head.0",
    "encoder.conv_out": "encoder.head.2",
    "decoder.conv_out": "decoder.head.2",
}
WAN_INSIDE = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}


def _wan(name: str, vae: CausalVAE) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in WAN_OUTSIDE:
        return f"{WAN_OUTSIDE[stem]}.{kind}"
    half, _, rest = stem.partition(".")
    head, _, inside = rest.rpartition(".")
    if inside in WAN_INSIDE:
        rest = f"{head}.{WAN_INSIDE[inside]}"
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)", rest):
        place = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"{half}.middle.{place}{rest[found.end() :]}.{kind}"
    arguments: Any = vae._init_args
    way, depth = ("down", "encoder_depth") if half == "encoder" else ("up", "decoder_depth")
    block = rf"{way}_blocks\.(\d+)\.(?:resnets\.(\d+)|{way}samplers?(?:\.0)?)"
    if not (found := re.match(block, rest)):  # in 2.1's encoder, one list of all modules
        return f"{half}.{rest.replace('down_blocks', 'downsamples')}.{kind}"
    level, place = int(found[1]), int(found[2] or arguments[depth])
    if isinstance(vae.design, WanResidualDesign):
        within = f"{level}.{way}samples.{place}"
    else:
        within = str(level * (arguments[depth] + 1) + place)
    return f"{half}.{way}samples.{within}{rest[found.end() :]}.{kind}"


KNOWN = {
    "cogvideox": Known(
        {"_class_name": "AutoencoderKLCogVideoX"},
        "decoder.mid.block_1.norm1.conv_y.conv.weight",
        _cogvideox,
    ),
    "hunyuan_video": Known(
        {"_class_name": "AutoencoderKLHunyuanVideo"},
        "decoder.mid_block.attentions.0.group_norm.weight",
        lambda name, vae: name,  # diffusers has kept its names
    ),
    "wan2.2": Known(
        {
            "_class_name": "AutoencoderKLWan",
            "base_dim": 160,
            "decoder_base_dim": 256,
            "z_dim": 48,
            "latents_mean": MEAN_22,
            "latents_std": STD_22,
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "scale_factor_spatial": 16,
        },
        "decoder.upsamples.0.upsamples.0.residual.0.gamma",
        _wan,
    ),
    "wan2.1": Known(
        {"_class_name": "AutoencoderKLWan"}, "decoder.upsamples.0.residual.0.gamma", _wan
    ),
}
