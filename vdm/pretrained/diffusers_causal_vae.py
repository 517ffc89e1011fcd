"""Causal VAEs in diffusers' layout: from ``config.json`` to ours, and where weights belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vdm.autoencoder.causal_blocks import CausalDesign
from vdm.autoencoder.causal_vae import CausalVAE
from vdm.autoencoder.cogvideox_vae import CogVideoXDesign
from vdm.autoencoder.wan_vae import WanDesign
from vdm.pretrained import diffusers_cogvideox_vae as cogvideox
from vdm.pretrained import diffusers_wan_vae as wan
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.keymap import Entry


@dataclass(frozen=True)
class Family:
    """A class of diffusers.

    Args:
        design: What the parts of its models are.
        read: Builds a VAE from its settings.
        write: The inverse.
        entries: Where every weight lies.
    """

    design: type[CausalDesign]
    read: Callable[[ForeignConfig], CausalVAE]
    write: Callable[[CausalVAE], dict[str, Any]]
    entries: Callable[[CausalVAE], list[Entry]]


FAMILIES = {
    "AutoencoderKLCogVideoX": Family(
        CogVideoXDesign, cogvideox.read, cogvideox.write, cogvideox.entries
    ),
    "AutoencoderKLWan": Family(WanDesign, wan.read, wan.write, wan.entries),
}


def causal_vae_from_config(data: Mapping[str, Any], where: str = "config.json") -> CausalVAE:
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


def config_from_causal_vae(vae: CausalVAE) -> dict[str, Any]:
    """The settings with which diffusers builds the same VAE.

    Raises:
        ValueError: If diffusers has no class for it.
    """
    kind = _kind(vae)
    return {"_class_name": kind, **FAMILIES[kind].write(vae)}


def causal_vae_entries(vae: CausalVAE) -> list[Entry]:
    """Where every weight of a causal VAE lies in diffusers' layout.

    Raises:
        ValueError: If diffusers has no class for it.
    """
    return FAMILIES[_kind(vae)].entries(vae)


def _kind(vae: CausalVAE) -> str:
    for kind, family in FAMILIES.items():
        if isinstance(vae.design, family.design):
            return kind
    raise ValueError(f"diffusers has no class for a VAE of {type(vae.design).__name__}")
