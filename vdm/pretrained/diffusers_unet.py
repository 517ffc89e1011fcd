"""U-Nets in diffusers' layout: from their ``config.json`` to ours, and where every weight belongs.

The layout is that of diffusers 0.42; its key names are the only thing here that is not ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vdm.models.unet3d import UNet3D
from vdm.pretrained.keymap import Entry

OUTSIDE = {
    "embed": "conv_in",
    "final.norm": "conv_norm_out",
    "final.conv": "conv_out",
    "time_embed.fc1": "time_embedding.linear_1",
    "time_embed.fc2": "time_embedding.linear_2",
    "scalar_embeds.noise_aug.table": "class_embedding",
    "sized_embed.fc1": "add_embedding.linear_1",
    "sized_embed.fc2": "add_embedding.linear_2",
    "scalar_embeds.fps__motion_bucket__noise_aug.fc1": "add_embedding.linear_1",
    "scalar_embeds.fps__motion_bucket__noise_aug.fc2": "add_embedding.linear_2",
}
"""Modules outside of the levels."""

IN_BLOCK: list[tuple[str, Any]] = [
    (r"attentions\.(\d)\.to_out", lambda found: f"attn{int(found[1]) + 1}.to_out.0"),
    (r"attentions\.(\d)", lambda found: f"attn{int(found[1]) + 1}"),
    (r"norms\.(\d)", lambda found: f"norm{int(found[1]) + 1}"),
    (r"norm_out", "norm3"),
    (r"feedforward(_in)?\.fc2", r"ff\1.net.2"),
    (r"feedforward(_in)?\.(value|gate)", r"ff\1.net.0.proj"),
]
"""Modules of a transformer block; a gated map is one matrix, the gate behind the value."""

IN_RESBLOCK = {"modulation": "time_emb_proj", "shortcut": "conv_shortcut"}


@dataclass(frozen=True)
class Family:
    """How a family names what couples frames.

    Args:
        after_resblock: The list of modules behind residual blocks; None where they are inside.
        after_transformer: The list of modules at the end of layers.
        is_blended: Whether residual blocks and transformers hold their temporal halves.
        has_kernels: Whether the linear maps around spatial transformers are 1x1 convolutions.
        guest: How names of an attention over time end that is a guest in a block.
        has_mask_first: Whether the mask of given latents comes before them, not after.
    """

    after_resblock: str | None = None
    after_transformer: str = "temp_attentions"
    is_blended: bool = False
    has_kernels: bool = False
    guest: str = "temp"
    has_mask_first: bool = False


SVD = Family(is_blended=True)
MODELSCOPE = Family("temp_convs")
STABLE_DIFFUSION = Family(has_kernels=True)
STABLE_DIFFUSION_XL = Family()
ANIMATEDIFF_XL = Family(after_transformer="motion_modules")
ANIMATEDIFF = Family(after_transformer="motion_modules", has_kernels=True)
PIA = Family(after_transformer="motion_modules", has_kernels=True, has_mask_first=True)
MASK_LAST = (0, 1, 2, 3, 5, 6, 7, 8, 4)
"""Latents, given latents and their mask, out of an order with the mask in the middle."""
LAVIE = STABLE_DIFFUSION
"""Its authors extended the image model of diffusers; frames meet in guests of its blocks."""
LAVIE_UPSCALE = Family(guest="temporal")

GUEST = {
    "norm": "norm_temp",
    "bias.embed": "attn_temp.time_rel_pos_bias.relative_attention_bias",
    "attention.to_out": "attn_temp.to_out.0",
    "attention.to_q": "attn_temp.to_q",
    "attention.to_k": "attn_temp.to_k",
    "attention.to_v": "attn_temp.to_v",
}
"""Modules of an attention over time that is a guest in a block, or stands behind it."""


def entries(network: UNet3D, family: Family) -> list[Entry]:
    """Where every weight of a U-Net lies in the layout of its family.

    Raises:
        ValueError: If the network has a weight that the family has no name for.
    """
    return entries_of(network.state_dict(), family)


def entries_of(keys: Iterable[str], family: Family) -> list[Entry]:
    """Likewise of some of its weights, by their keys."""
    found: dict[str, list[str]] = {}
    for key in keys:
        stem, _, kind = key.rpartition(".")
        # A blend is a bare parameter of the module that mixes.
        theirs = f"{_module(stem, family)}.{kind}".replace("_temp.", f"_{family.guest}.")
        found.setdefault(theirs, []).append(key)
    return [
        Entry(
            theirs,
            tuple(sorted(ours, reverse=True)),
            _unit_axes(theirs, family),
            columns=MASK_LAST if family.has_mask_first and theirs == "conv_in.weight" else (),
        )
        for theirs, ours in found.items()
    ]


def _unit_axes(theirs: str, family: Family) -> int:
    """Two for matrices that are kernels there: the maps into and out of spatial transformers."""
    is_map = re.search(r"\.attentions\.\d+\.proj_(in|out)\.weight$", theirs)
    return 2 if family.has_kernels and is_map else 0


def _module(stem: str, family: Family) -> str:
    """Their name of one of our modules."""
    if stem in OUTSIDE:
        return OUTSIDE[stem]
    if found := re.fullmatch(r"at_input\.0\.(.+)", stem):
        return f"transformer_in.{_transformer(found[1])}"
    if found := re.fullmatch(r"down\.(\d+)\.resize", stem):
        return f"down_blocks.{found[1]}.downsamplers.0.conv"
    if found := re.fullmatch(r"up\.(\d+)\.resize\.conv", stem):
        return f"up_blocks.{found[1]}.upsamplers.0.conv"
    if found := re.fullmatch(r"(down|up)\.(\d+)\.layers\.(\d+)\.(.+)", stem):
        return f"{found[1]}_blocks.{found[2]}.{_layer(found[3], found[4], family)}"
    if found := re.fullmatch(r"(?:after_(middle)|(down|up)\.(\d+)\.after)\.0\.(.+)", stem):
        place = "mid_temporal_block" if found[1] else f"{found[2]}_temporal_blocks.{found[3]}"
        return f"{place}.{_after_level(found[4])}"
    if found := re.fullmatch(r"middle\.(\d+)\.(.+)", stem):
        return f"mid_block.{_layer(found[1], found[2], family)}"
    raise _nameless(stem)


def _layer(number: str, inside: str, family: Family) -> str:
    """Their name of a module of a layer, which lists its parts by kind."""
    kind, _, rest = inside.partition(".")
    if kind == "resblock":
        half = "spatial_res_block." if family.is_blended else ""
        return f"resnets.{number}.{half}{IN_RESBLOCK.get(rest, rest)}"
    if kind == "after_resblock":
        return _after_resblock(number, rest.removeprefix("0."), family)
    if kind == "before_transformer":
        what, count = rest.removeprefix("0.").split(".")
        return f"attentions.{number}.resblock_temporal.{what[:-1]}{int(count) + 1}"
    if kind == "transformer":
        return f"attentions.{number}.{_spatial(rest, family)}"
    if kind == "after_transformer":
        return f"{family.after_transformer}.{number}.{_transformer(rest.removeprefix('0.'))}"
    raise _nameless(inside)


def _after_resblock(number: str, rest: str, family: Family) -> str:
    if family.is_blended:
        if rest == "blend":
            return f"resnets.{number}.time_mixer"
        return f"resnets.{number}.temporal_res_block.{IN_RESBLOCK.get(rest, rest)}"
    if found := re.fullmatch(r"(norms|convs)\.(\d)", rest):
        # Their first stack has no dropout between nonlinearity and convolution.
        place = 0 if found[1] == "norms" else 2 if found[2] == "0" else 3
        return f"{family.after_resblock}.{number}.conv{int(found[2]) + 1}.{place}"
    raise _nameless(rest)


def _after_level(inside: str) -> str:
    block, _, rest = inside.partition(".")
    if block == "shift":
        return "shift_conv"
    half = {"in_time": "resblocks_3d_t", "in_space": "resblocks_3d_s"}[block]
    return f"{half}.{IN_RESBLOCK.get(rest, rest)}"


def _spatial(inside: str, family: Family) -> str:
    """A module of a spatial transformer, which may have blocks over time in between."""
    if not family.is_blended:
        return _transformer(inside)
    if inside.startswith("blocks.1.frame_embed.embed.fc"):
        return inside.replace("blocks.1.frame_embed.embed.fc", "time_pos_embed.linear_")
    if inside == "blocks.1.blend":
        return "time_mixer"
    if found := re.fullmatch(r"blocks\.1\.block\.(.+)", inside):
        return f"temporal_transformer_blocks.0.{in_block(found[1])}"
    return _transformer(inside)


def _transformer(inside: str) -> str:
    if (found := re.fullmatch(r"blocks\.(\d+)\.guests\.0\.(.+)", inside)) and found[2] in GUEST:
        return f"transformer_blocks.{found[1]}.{GUEST[found[2]]}"
    if (found := re.fullmatch(r"blocks\.(\d+)\.(.+)", inside)) and found[2] in GUEST:
        return f"transformer_blocks.{int(found[1]) // 2}.{GUEST[found[2]]}"
    if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", inside):
        return f"transformer_blocks.{found[1]}.{in_block(found[2])}"
    return inside


def in_block(inside: str) -> str:
    """Their name of a module of a transformer block."""
    for pattern, theirs in IN_BLOCK:
        named, count = re.subn(f"^{pattern}", theirs, inside)
        if count:
            return named
    return inside


def _nameless(stem: str) -> ValueError:
    return ValueError(f"got a network with {stem}, for which diffusers has no name")


def tables(keys: Iterable[str]) -> list[str]:
    """Keys that hold tables of positions, which are computed here."""
    return [key for key in keys if key.endswith(("pos_embed.pe", "rotary_emb.freqs"))]
