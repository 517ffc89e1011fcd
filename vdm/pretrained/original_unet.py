"""U-Nets under the names of the latent diffusion code base, in which their authors published them.

There the way down, the middle and the way up are three flat lists, and a block is a list of its
parts: the residual block, then the spatial transformer, then the temporal one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vdm.models.unet3d import UNet3D
from vdm.pretrained.diffusers_unet import in_block
from vdm.pretrained.keymap import Entry

IN_RESBLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "modulation": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
}


@dataclass(frozen=True)
class OriginalFamily:
    """How the authors of a network name what couples frames.

    Args:
        at_input: The temporal transformer before the levels.
        numbers: Vectors of numbers, by our name.
        is_blended: Whether residual blocks and transformers hold their temporal halves.
    """

    at_input: str | None = None
    numbers: Mapping[str, str] | None = None
    is_blended: bool = False


SVD_ORIGINAL = OriginalFamily(
    numbers={"fps__motion_bucket__noise_aug": "label_emb.0"}, is_blended=True
)
MODELSCOPE_ORIGINAL = OriginalFamily("input_blocks.0.1")
LAST = {
    "relative_k.table": "relative_position_k.embeddings_table",
    "relative_v.table": "relative_position_v.embeddings_table",
    "to_k_image.weight": "to_k_ip.weight",
    "to_v_image.weight": "to_v_ip.weight",
}
"""The last two names of weights that VideoCrafter's attention has besides."""
VIDEOCRAFTER_ORIGINAL = OriginalFamily("init_attn.0", {"fps": "fps_embedding"})


def original_entries(
    network: UNet3D, family: OriginalFamily, theirs: Mapping[str, Tensor]
) -> list[Entry]:
    """Where every weight of a U-Net lies in its authors' file.

    Linear maps may be convolutions there whose kernels have one place: which are is seen in the
    file.

    Args:
        network: The network.
        family: Whose names.
        theirs: The file's tensors.

    Raises:
        ValueError: If the network has a weight that the family has no name for.
    """
    own, names = network.state_dict(), _Names(network, family)
    found: dict[str, list[str]] = {}
    for key in own:
        stem, _, kind = key.rpartition(".")
        *before, last, end = f"{names.of(stem)}.{kind}".split(".")
        name = ".".join((*before, LAST.get(f"{last}.{end}", f"{last}.{end}")))
        found.setdefault(name, []).append(key)
    return [
        Entry(
            name, tuple(sorted(ours, reverse=True)), _surplus_axes(theirs.get(name), own[ours[0]])
        )
        for name, ours in found.items()
    ]


def _surplus_axes(theirs: Tensor | None, ours: Tensor) -> int:
    """Axes that theirs has and ours has not."""
    return 0 if theirs is None else max(0, theirs.ndim - ours.ndim)


class _Names:
    """Their names of the modules of a network.

    Args:
        network: The network.
        family: Whose names.
    """

    def __init__(self, network: UNet3D, family: OriginalFamily) -> None:
        self.family = family
        arguments: Any = network._init_args
        self.per_level = int(arguments["depth"]) + 1
        self.num_levels = len(arguments["widths"])
        self.attention = tuple(arguments["attention"])
        self.has_temporal = any(
            "after_transformer.0" in name for name, _ in network.named_modules()
        )

    def of(self, stem: str) -> str:
        """Their name of a module."""
        outside = {
            "embed": "input_blocks.0.0",
            "time_embed.fc1": "time_embed.0",
            "time_embed.fc2": "time_embed.2",
            "final.norm": "out.0",
            "final.conv": "out.2",
        }
        if stem in outside:
            return outside[stem]
        if found := re.fullmatch(r"scalar_embeds\.(\w+)\.fc([12])", stem):
            numbers = self.family.numbers or {}
            return f"{numbers[found[1]]}.{2 * (int(found[2]) - 1)}"
        if found := re.fullmatch(r"at_input\.0\.(.+)", stem):
            return f"{self.family.at_input}.{self._transformer(found[1])}"
        if found := re.fullmatch(r"(down|up)\.(\d+)\.(?:layers\.(\d+)|resize)\.?(.*)", stem):
            return self._in_level(found[1], int(found[2]), found[3], found[4])
        if found := re.fullmatch(r"middle\.(\d+)\.(.+)", stem):
            parts = 2 + self.has_temporal
            place = 0 if found[1] == "0" else parts
            return self._part(found[2], lambda number: f"middle_block.{place + number}")
        raise ValueError(f"got a network with {stem}, for which its authors have no name")

    def _in_level(self, way: str, level: int, layer: str | None, rest: str) -> str:
        if way == "down":
            block = f"input_blocks.{1 + level * self.per_level + int(layer or self.per_level - 1)}"
            return f"{block}.0.op" if layer is None else self._part(rest, f"{block}.{{}}".format)
        block = f"output_blocks.{level * self.per_level + int(layer or self.per_level - 1)}"
        if layer is not None:
            return self._part(rest, f"{block}.{{}}".format)
        has_attention = self.attention[self.num_levels - 1 - level] > 0
        behind = 1 + has_attention * (1 + self.has_temporal)
        return f"{block}.{behind}.conv"

    def _part(self, inside: str, place: Callable[[int], str]) -> str:
        """Their name of a module of a layer, whose parts have numbers."""
        kind, _, rest = inside.partition(".")
        rest = rest.removeprefix("0.") if kind.startswith("after_") else rest
        if kind == "resblock":
            return f"{place(0)}.{IN_RESBLOCK[rest]}"
        if kind == "after_resblock" and self.family.is_blended:
            half = "time_mixer" if rest == "blend" else f"time_stack.{IN_RESBLOCK[rest]}"
            return f"{place(0)}.{half}"
        if kind == "after_resblock":
            what, number = rest.split(".")
            inner = 0 if what == "norms" else 2 if number == "0" else 3
            # Their spelling.
            return f"{place(0)}.temopral_conv.conv{int(number) + 1}.{inner}"
        if kind == "transformer":
            return f"{place(1)}.{self._spatial(rest)}"
        return f"{place(2)}.{self._transformer(rest)}"

    def _spatial(self, inside: str) -> str:
        if not self.family.is_blended:
            return self._transformer(inside)
        if found := re.fullmatch(r"blocks\.1\.frame_embed\.embed\.fc([12])", inside):
            return f"time_pos_embed.{2 * (int(found[1]) - 1)}"
        if inside == "blocks.1.blend":
            return "time_mixer"
        if found := re.fullmatch(r"blocks\.1\.block\.(.+)", inside):
            return f"time_stack.0.{in_block(found[1])}"
        return self._transformer(inside)

    def _transformer(self, inside: str) -> str:
        if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", inside):
            return f"transformer_blocks.{found[1]}.{in_block(found[2])}"
        return inside
