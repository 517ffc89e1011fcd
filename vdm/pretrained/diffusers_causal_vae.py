"""Causal VAEs in diffusers' layout: from ``config.json`` to ours, and where weights belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vdm.autoencoder.causal_vae import ChunkedVAE
from vdm.autoencoder.cogvideox_vae import CogVideoXDesign
from vdm.autoencoder.hunyuan_vae import HunyuanVideoDesign
from vdm.autoencoder.ltx_vae import LTXVAE
from vdm.autoencoder.wan_vae import WanDesign
from vdm.pretrained import diffusers_cogvideox_vae as cogvideox
from vdm.pretrained import diffusers_hunyuan_vae as hunyuan
from vdm.pretrained import diffusers_ltx_vae as ltx
from vdm.pretrained import diffusers_wan_vae as wan
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.keymap import Entry


@dataclass(frozen=True)
class Family:
    """A class of diffusers.

    Args:
        kind: What its models are: a class of theirs, or of their design.
        read: Builds a VAE from its settings.
        write: The inverse.
        entries: Where every weight lies.
    """

    kind: type
    read: Callable[[ForeignConfig], ChunkedVAE]
    write: Callable[[Any], dict[str, Any]]
    entries: Callable[[Any], list[Entry]]


FAMILIES = {
    "AutoencoderKLCogVideoX": Family(
        CogVideoXDesign, cogvideox.read, cogvideox.write, cogvideox.entries
    ),
    "AutoencoderKLHunyuanVideo": Family(
        HunyuanVideoDesign, hunyuan.read, hunyuan.write, hunyuan.entries
    ),
    "AutoencoderKLWan": Family(WanDesign, wan.read, wan.write, wan.entries),
    "AutoencoderKLLTXVideo": Family(LTXVAE, ltx.read, ltx.write, ltx.entries),
}


def causal_vae_from_config(data: Mapping[str, Any], where: str = "config.json") -> ChunkedVAE:
    """A causal VAE with random weights.

    Args:
        data: What ``config.json`` holds.
        where: The file, for messages.

    Raises:
        ValueError: If the class is unknown, or a setting asks for what ours cannot do.
    """
    kind = data.get("_class_name")
    if kind not in FAMILIES:
        raise ValueError(f"{where}: got class {kind}, expected one of {', '.join(FAMILIES)}")
    config = ForeignConfig(data, where)
    vae = FAMILIES[kind].read(config)
    config.close()
    return vae


def config_from_causal_vae(vae: ChunkedVAE) -> dict[str, Any]:
    """The settings with which diffusers builds the same VAE.

    Raises:
        ValueError: If diffusers has no class for it.
    """
    kind = _kind(vae)
    return {"_class_name": kind, **FAMILIES[kind].write(vae)}


def causal_vae_entries(vae: ChunkedVAE) -> list[Entry]:
    """Where every weight of a causal VAE lies in diffusers' layout.

    Raises:
        ValueError: If diffusers has no class for it.
    """
    return FAMILIES[_kind(vae)].entries(vae)


def _kind(vae: ChunkedVAE) -> str:
    for kind, family in FAMILIES.items():
        if isinstance(getattr(vae, "design", vae), family.kind):
            return kind
    made = type(getattr(vae, "design", vae)).__name__
    raise ValueError(f"diffusers has no class for a VAE of {made}")
