"""Low-rank changes of published models: read, checked, and added to the weights of the model.

What is merged is ``W + scale * alpha / rank * up @ down``; the model is as fast as without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vdm.pretrained.diffusers_files import read_state
from vdm.pretrained.hub import fetch, is_hub_id
from vdm.pretrained.loading import name_some, read_safetensors
from vdm.pretrained.lora_names import old_names
from vdm.pretrained.original_motion import modern_name
from vdm.pretrained.tensor_files import LateTensors, name_of, release

Lora = str | Path | Sequence[str | Path] | Mapping[str | Path, float]
"""A file, several, or files with the scale of each."""

PARTS = {
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "base_model.model.": "unet",
}
FLAT = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
"""Prefixes of names in which underscores stand for dots."""
MATRIX = re.compile(r"(.+)\.(?:lora_linear_layer\.|lora\.|lora_)(down|up|A|B)\.weight")
PROCESSOR = re.compile(r"(.+?)(?:\.processor)?\.to_(q|k|v|out)_lora\.(down|up)\.weight")
SIDES = {"A": "down", "B": "up", "down": "down", "up": "up"}
OF_UNET = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
OF_TEXT = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj"}
ALPHAS = "lora_adapter_metadata"
"""Where newer files keep what stands beside the matrices."""
UNMERGED = ("use_dora", "use_rslora", "alpha_pattern", "rank_pattern", "lora_bias")
"""What may stand there and would change what is added."""


@dataclass
class LowRank:
    """The change of one weight.

    Args:
        down: From the input to few channels, ``(r, in, ...)``.
        up: From these to the output, ``(out, r, ...)``.
        alpha: Divided by their number it is a scale of its own; None for none.
    """

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None

    def change(self, weight: Tensor, scale: float, where: str) -> Tensor:
        """The weight with the change added, at least in float32.

        Raises:
            ValueError: If it is half there, or of another shape.

        Source:
            Hu et al. 2021, "LoRA", arXiv:2106.09685, eq. 3.
        """
        if self.down is None or self.up is None:
            raise ValueError(f"{where}: has one of up and down, expected both")
        precision = torch.promote_types(weight.dtype, torch.float32)
        down, up = (x.to(precision).flatten(1) for x in (self.down, self.up))
        size = len(weight), weight[0].numel()
        if (len(up), down.shape[1]) != size or up.shape[1] != len(down):
            raise ValueError(
                f"{where}: got up {tuple(self.up.shape)} and down {tuple(self.down.shape)} for a "
                f"weight of shape {tuple(weight.shape)}"
            )
        own = 1.0 if self.alpha is None else self.alpha / len(down)
        return weight.to(precision) + scale * own * (up @ down).view_as(weight)


@dataclass
class LoraFile:
    """The changes in a file, by part of the model and name of the module.

    Args:
        where: The file.
        scale: How much of them is added.
        parts: Changes; in names that are ``flat`` underscores stand for dots.
        flat: Likewise.
    """

    where: str
    scale: float = 1.0
    parts: dict[str, dict[str, LowRank]] = field(default_factory=dict)
    flat: dict[str, dict[str, LowRank]] = field(default_factory=dict)

    def check(self, parts: Collection[str]) -> None:
        """Refuse changes of parts that a model does not have.

        Raises:
            ValueError: If there are any.
        """
        if lost := sorted({*self.parts, *self.flat} - {*parts}):
            raise ValueError(f"{self.where}: changes {lost[0]}, which the model does not have")

    def of(self, part: str, names: Mapping[str, str]) -> dict[str, LowRank]:
        """Changes by the key of the weight that each is for.

        Args:
            part: ``unet`` or ``text_encoder``.
            names: Keys of all weights, by the names of their modules.

        Raises:
            ValueError: If there is no weight for one.
        """
        flat = {name.replace(".", "_"): key for name, key in names.items()}
        flat |= {name.replace(".", "_"): names[key] for name, key in old_names(names).items()}
        pairs = [(names, self.parts.get(part, {})), (flat, self.flat.get(part, {}))]
        if lost := sorted(name for table, found in pairs for name in found if name not in table):
            hint = ", expected motion modules to add it to" if "motion_modules" in lost[0] else ""
            raise ValueError(
                f"{self.where}: changes {name_some(lost)}, for which the {part} has no weight{hint}"
            )
        return {table[name]: change for table, found in pairs for name, change in found.items()}


class Merged(LateTensors):
    """Weights with changes added to them as they are read.

    Args:
        weights: Tensors by their keys; may itself read them late.
        loras: What is added, one after the other.
        part: ``unet`` or ``text_encoder``.

    Raises:
        ValueError: If a change has no weight.
    """

    def __init__(self, weights: Mapping[str, Tensor], loras: Sequence[LoraFile], part: str) -> None:
        self.weights = weights
        ending = ".weight"
        names = {key.removesuffix(ending): key for key in weights if key.endswith(ending)}
        self.changes = [(lora, lora.of(part, names)) for lora in loras]

    def __getitem__(self, key: str) -> Tensor:
        value = self.weights[key]
        for lora, changes in self.changes:
            if key in changes:
                value = changes[key].change(value, lora.scale, f"{lora.where}: {key}")
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    def release(self) -> None:
        """Let go of their files."""
        release(self.weights)

    def name_of(self, key: str) -> str:
        """What the file calls a tensor."""
        return name_of(self.weights, key)


def read_loras(lora: Lora | None) -> list[LoraFile]:
    """Low-rank changes from their files.

    Args:
        lora: A file, a folder that holds one, or a name on the hub; several of them; or each with
            its scale. Files are those of diffusers, of PEFT, of kohya's scripts (for Stable
            Diffusion XL too), or of AnimateDiff's authors.

    Raises:
        FileNotFoundError: If one is missing.
        ValueError: If one holds what is no low-rank change.
    """
    if lora is None:
        return []
    if isinstance(lora, str | Path):
        lora = [lora]
    scales = lora if isinstance(lora, Mapping) else dict.fromkeys(lora, 1.0)
    return [_read(_file(source), float(scale)) for source, scale in scales.items()]


def _file(source: str | Path) -> Path:
    """Where the changes lie."""
    path = fetch(str(source)) if is_hub_id(source) and not Path(source).exists() else Path(source)
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.safetensors"))
    files = [file for file in files if "lora" in file.name.lower()] or files
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "no .safetensors file"
        raise ValueError(f"{path}: holds {names}, expected one file of low-rank changes")
    return files[0]


def _read(path: Path, scale: float) -> LoraFile:
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        state, metadata = read_safetensors(path)
    else:
        state = read_state(path)
    made = LoraFile(str(path), scale)
    for key, value in state.items():
        part, table, rest = _place(key, made)
        name, side = _module(rest, part)
        if side is None:
            raise ValueError(f"{path}: holds {key}, which is no low-rank change that can be merged")
        if not torch.isfinite(value).all():
            raise ValueError(f"{path}: {key} holds NaN or infinite values")
        change = table.setdefault(part, {}).setdefault(name, LowRank())
        setattr(change, side, float(value) if side == "alpha" else value)
    _read_alphas(made, metadata)
    return made


def _place(key: str, made: LoraFile) -> tuple[str, dict[str, dict[str, LowRank]], str]:
    """Part of the model, the table that its names go to, and the rest of the key."""
    for prefix, part in FLAT.items():
        if key.startswith(prefix):
            return part, made.flat, key.removeprefix(prefix)
    for prefix, part in PARTS.items():
        if key.startswith(prefix):
            return part, made.parts, modern_name(key.removeprefix(prefix))
    return "unet", made.parts, modern_name(key)


def _module(rest: str, part: str) -> tuple[str, str | None]:
    """Name of the module, and which side of its change; None if the key is of another kind."""
    kinds = OF_UNET if part == "unet" else OF_TEXT
    if found := PROCESSOR.fullmatch(rest):
        name, side = f"{found[1]}.{kinds[found[2]]}", SIDES[found[3]]
    elif found := MATRIX.fullmatch(rest):
        name, side = found[1].replace(".processor", ""), SIDES[found[2]]
    elif rest.endswith(".alpha"):
        name, side = rest.removesuffix(".alpha"), "alpha"
    else:
        return rest, None
    stem = "text_model."  # which newer files leave out
    is_short = part != "unet" and not name.startswith(("text_model", "text_projection"))
    return (stem + name if is_short else name), side


def _read_alphas(made: LoraFile, metadata: Mapping[str, str]) -> None:
    """Scales that a file has in its head instead of beside its matrices.

    Raises:
        ValueError: If the head asks for what is not merged here.
    """
    said = json.loads(metadata.get(ALPHAS, "{}"))
    for key, value in said.items():
        part, _, name = key.rpartition(".")
        if name in UNMERGED and value:
            raise ValueError(f"{made.where}: got {key}={value!r}, which cannot be merged")
        if name == "lora_alpha":
            for change in made.parts.get(part or "unet", {}).values():
                change.alpha = float(value) if change.alpha is None else change.alpha
