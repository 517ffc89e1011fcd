"""The names that image models have in the latent diffusion code base, from those in diffusers.

Low-rank changes of Stable Diffusion XL are stored under the former by most scripts that make them.
"""

from __future__ import annotations

import re
from collections.abc import Collection

OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_out": "out.2",
}
MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
IN_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
RESIZE = re.compile(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv")
MID_BLOCK = re.compile(r"mid_block\.((?:resnets|attentions)\.\d+)\.(.+)")


def old_names(names: Collection[str]) -> dict[str, str]:
    """Modules of a U-Net by the names that they have in the latent diffusion code base.

    There the way down and the way up are flat lists: what a level has and what leads to the next
    one follow each other.

    Args:
        names: Modules as diffusers calls them; what has no other name is left out.
    """
    per_level = 1 + sum(
        re.fullmatch(r"down_blocks\.0\.resnets\.\d+\.conv1", n) is not None for n in names
    )
    made = {}
    for name in names:
        if name in OUTSIDE:
            made[OUTSIDE[name]] = name
        elif found := MID_BLOCK.fullmatch(name):
            made[f"middle_block.{MIDDLE[found[1]]}.{IN_RESNET.get(found[2], found[2])}"] = name
        elif found := BLOCK.fullmatch(name):
            way, level, kind, number, rest = found.groups()
            place = per_level * int(level) + int(number)
            part = "0" if kind == "resnets" else "1"
            made[f"{_list(way, place)}.{part}.{IN_RESNET.get(rest, rest)}"] = name
        elif found := RESIZE.fullmatch(name):
            way, level = found.groups()
            place = per_level * (int(level) + 1) - 1
            has_attention = any(n.startswith(f"up_blocks.{level}.attentions.") for n in names)
            part = "0.op" if way == "down" else "2.conv" if has_attention else "1.conv"
            made[f"{_list(way, place)}.{part}"] = name
    return made


def _list(way: str, place: int) -> str:
    """An entry of the list; that of the way down starts with the first convolution."""
    return f"input_blocks.{1 + place}" if way == "down" else f"output_blocks.{place}"
