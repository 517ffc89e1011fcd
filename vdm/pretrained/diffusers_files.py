"""The files of a component in diffusers' layout: settings, and weights read where they lie.

Weights are safetensors, whole or in shards with an index, plain or of a variant such as ``fp16``,
or torch's own format, of which nothing is run.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vdm.pretrained.loading import read_pickled
from vdm.pretrained.tensor_files import TensorFiles

CONFIG = "config.json"
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""How weight files are called: those of diffusers, of transformers, and older ones."""


INDEX = "model_index.json"


def read_index(folder: Path, parts: Sequence[str]) -> dict[str, Any]:
    """What a model folder says of its parts, of which none is missing or surplus.

    Args:
        folder: Holds ``model_index.json``.
        parts: Names of those that there have to be.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a part is missing or surplus.
    """
    index, where = read_config(folder, INDEX), folder / INDEX
    found = {name for name, value in index.items() if isinstance(value, list) and any(value)}
    if surplus := sorted(found - set(parts)):
        raise ValueError(f"{where}: got a part {surplus[0]}, expected {', '.join(parts)}")
    if missing := sorted(set(parts) - found):
        raise ValueError(f"{where}: has no {missing[0]}")
    return index


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """The settings of a component.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If the file is not a JSON object.
    """
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"no {name} in {folder}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: got {type(data).__name__}, expected a JSON object")
    return data


def open_weights(folder: Path, variant: str | None = None) -> Mapping[str, Tensor]:
    """The weights of a component.

    Args:
        folder: Holds them under one of the usual names.
        variant: E.g. ``fp16``; the plain files are taken if None, and where there are none those of
            the only variant.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If a file is damaged, or there are several variants to choose from.
    """
    variants = [variant] if variant else [None, *_variants(folder)]
    for name in variants:
        found = _open(folder, name)
        if found is not None:
            if name != variant and len(variants) > 2:
                raise ValueError(f"{folder}: got variants {variants[1:]}, expected one to be named")
            return found
    kind = f"of variant {variant!r} " if variant else ""
    raise FileNotFoundError(f"no weights {kind}in {folder}, expected e.g. {STEMS[0]}.safetensors")


def _variants(folder: Path) -> list[str]:
    """Variants that the folder has weights of, e.g. fp16 of ``model.fp16.safetensors``."""
    found = set()
    for stem in STEMS:
        for path in folder.glob(f"{stem}.*.safetensors"):
            middle = path.name.removeprefix(f"{stem}.").removesuffix(".safetensors")
            found.add(middle.split("-")[0])
        for path in folder.glob(f"{stem}.safetensors.index.*.json"):
            found.add(path.name.split(".")[-2])
    return sorted(found)


def _open(folder: Path, variant: str | None) -> Mapping[str, Tensor] | None:
    """Weights of one variant under whichever name they have; None if there are none."""
    dot = "" if variant is None else f".{variant}"
    for stem in STEMS:
        if (path := folder / f"{stem}{dot}.safetensors").is_file():
            return TensorFiles([path])
        if (path := folder / f"{stem}.safetensors.index{dot}.json").is_file():
            return _open_shards(path)
    for stem in STEMS:
        if (path := folder / f"{stem}{dot}.bin").is_file():
            return read_state(path)
        if (path := folder / f"{stem}.bin.index{dot}.json").is_file():
            return _open_shards(path)
    return None


def _open_shards(index: Path) -> Mapping[str, Tensor]:
    places = read_config(index.parent, index.name).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index}: has no weight_map")
    if odd := [name for name in places.values() if not isinstance(name, str)]:
        raise ValueError(f"{index}: got {odd[0]!r} in weight_map, expected names of files")
    paths = sorted({index.parent / Path(name).name for name in places.values()})
    found: Mapping[str, Tensor]
    if paths[0].suffix == ".bin":
        found = ChainMap(*(read_state(path) for path in paths))
    else:
        found = TensorFiles(paths)
    if odd := sorted(set(found) ^ set(places)):
        raise ValueError(f"{index}: {odd[0]} is in the index or in a shard, but not in both")
    return found


def open_state(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a single file, in either format.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds other objects, or no tensors.
    """
    return TensorFiles([path]) if path.suffix == ".safetensors" else read_state(path)


def read_state(path: Path) -> dict[str, Tensor]:
    """A dictionary of tensors in torch's format; wrappers such as ``state_dict`` are opened.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds other objects, or no tensors.
    """
    data = read_pickled(path)
    found = tensors_in(data)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: got {type(data).__name__}, expected a dictionary of tensors")
    if not found:
        raise ValueError(f"{path}: holds no tensors")
    return found


def tensors_in(data: Any) -> dict[str, Tensor]:
    """The tensors that a file of torch holds by name, in whatever it is wrapped."""
    for wrapper in ("state_dict", "ema", "model", "module", "controlnet"):
        if isinstance(data, dict) and isinstance(data.get(wrapper), dict):
            data = data[wrapper]
    items = data.items() if isinstance(data, dict) else ()
    found = {str(key): value for key, value in items if isinstance(value, Tensor)}
    return {key.removeprefix("module."): value for key, value in found.items()}
