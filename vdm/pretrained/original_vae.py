"""Image VAEs under the names of the latent diffusion code base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vdm.autoencoder.image_vae import ImageVAE
from vdm.pretrained.keymap import Entry

OUTSIDE = {"to_moments": "quant_conv", "from_latents": "post_quant_conv"}
ENDS = {"embed": "conv_in", "norm": "norm_out", "conv": "conv_out"}
MIDDLE = {"0": "block_1", "1": "attn_1", "2": "block_2"}
ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
IN_TIME = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
}


def original_vae_sizes(theirs: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Arguments of the image VAE that a file holds.

    Args:
        theirs: The file's tensors, by names as in its own part of it.
        where: The file, for messages.

    Raises:
        ValueError: If it holds none.
    """
    blocks = {
        tuple(map(int, found.groups())): len(theirs[key])
        for key in theirs
        if (found := re.fullmatch(r"encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight", key))
    }
    if not blocks or theirs.get("quant_conv.bias") is None:
        raise ValueError(f"{where}: holds no image VAE")
    return {
        "latent_channels": len(theirs["quant_conv.bias"]) // 2,
        "widths": [width for (_, block), width in sorted(blocks.items()) if block == 0],
        "depth": sum(level == 0 for level, _ in blocks),
    }


def original_vae_entries(vae: ImageVAE, theirs: Mapping[str, Tensor]) -> list[Entry]:
    """Where every weight of an image VAE lies in its authors' file.

    Args:
        vae: The autoencoder.
        theirs: The file's tensors, by names as in its own part of it. Linear maps that are kernels
            there are seen in it.
    """
    own, found = vae.state_dict(), []
    for key, value in own.items():
        stem, _, kind = key.rpartition(".")
        name = f"{_module(stem, len(vae.decoder.levels))}.{kind}".removesuffix(".blend.mix_factor")
        name += ".mix_factor" if key.endswith("mix_factor") else ""
        surplus = theirs[name].ndim - value.ndim if name in theirs else 0
        found.append(Entry(name, (key,), max(0, surplus)))
    return found


def _module(stem: str, num_levels: int) -> str:
    if stem in OUTSIDE:
        return OUTSIDE[stem]
    if stem == "decoder.conv_in_time":
        return "decoder.conv_out.time_mix_conv"
    half, _, rest = stem.partition(".")
    if rest in ENDS:
        return f"{half}.{ENDS[rest]}"
    if found := re.fullmatch(r"middle\.(\d)\.(.+)", rest):
        return f"{half}.mid.{MIDDLE[found[1]]}.{_inside(found[2])}"
    if found := re.fullmatch(r"levels\.(\d+)\.(.+)", rest):
        # Levels are counted from the finest on both ways.
        level = int(found[1]) if half == "encoder" else num_levels - 1 - int(found[1])
        way, resize = ("down", "downsample") if half == "encoder" else ("up", "upsample")
        if found[2] == "resize.conv":
            return f"{half}.{way}.{level}.{resize}.conv"
        number, _, inside = found[2].removeprefix("blocks.").partition(".")
        return f"{half}.{way}.{level}.block.{number}.{_inside(inside)}"
    raise ValueError(f"got a VAE with {stem}, for which its authors have no name")


def _inside(rest: str) -> str:
    """A module of a block, or of the attention in the middle."""
    if rest.startswith("attention."):
        return ATTENTION[rest.removeprefix("attention.")]
    if rest.startswith("temporal."):
        return f"time_stack.{IN_TIME[rest.removeprefix('temporal.')]}"
    return rest.removeprefix("spatial.").replace("shortcut", "nin_shortcut")
