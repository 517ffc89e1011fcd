"""The ``vdm`` folder layout: ``vdm.json`` describes the parts, safetensors hold their weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from vdm.pretrained.loading import Reading, cast_weight, check_sha256, fill, write_safetensors
from vdm.pretrained.parts import MODULES, Parts, parts_from
from vdm.pretrained.tensor_files import TensorFiles

FORMAT = "vdm/1"
CARD = "vdm.json"
BUNDLED = Path(__file__).parent / "bundled"
"""Where the models lie that come with the package."""
KEYS = {"format", "name", "parts", "weights", "defaults", "envelope"}


def read_card(folder: Path) -> dict[str, Any]:
    """The description in a model folder.

    Raises:
        FileNotFoundError: If the folder has no ``vdm.json``.
        ValueError: If that is not JSON, of another format version, or has unknown keys.
    """
    path = folder / CARD
    if not path.is_file():
        raise FileNotFoundError(f"no {CARD} in {folder}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    return check_card(data, str(path))


def check_card(data: Any, where: str) -> dict[str, Any]:
    """Refuse a description of another format, or with keys that nothing reads.

    Raises:
        ValueError: If it is either.
    """
    found = data.get("format") if isinstance(data, dict) else None
    if str(found).startswith("vdm-cascade/"):
        raise ValueError(
            f"{where}: got a cascade of several models, expected a single one; vdm.load takes both"
        )
    if found != FORMAT:
        raise ValueError(f"{where}: got format {found!r}, expected {FORMAT!r}")
    if surplus := sorted(set(data) - KEYS):
        raise ValueError(
            f"{where}: unknown key {', '.join(surplus)}; expected {', '.join(sorted(KEYS))}"
        )
    return data


def read_folder(
    folder: Path,
    only: tuple[str, ...] | None = None,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """A model from a ``vdm`` folder.

    Args:
        folder: Holds ``vdm.json`` and one safetensors file per part.
        only: Read just these parts; all if None.
        how: How weights are read; in full precision where nothing is said.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, changed since it was written, or does not fit its part.
    """
    card, where = read_card(folder), str(folder / CARD)
    if only is not None:
        card["parts"] = {name: part for name, part in card.get("parts", {}).items() if name in only}
    parts = parts_from(card, where, on_meta=True)
    weights = card.get("weights", {})
    if how.is_plan:
        return parts
    for name, module in parts.modules.items():
        if name not in weights:
            raise ValueError(f"{where}: no weights for {name}")
        entry = weights[name]
        path = weights_file(folder, entry)
        files = TensorFiles([path])
        if "sha256" in entry:
            check_sha256(path, entry["sha256"])
        fill(module, files, str(path), how.dtype or torch.float32)
        parts.hashes[name] = entry.get("sha256", "")
    return parts


def weights_file(folder: Path, entry: dict[str, str]) -> Path:
    """Where the weights of a part lie: in the folder, or in a bundled model that has the same.

    Args:
        folder: Of the model.
        entry: What its card says of the part.
    """
    home = BUNDLED / Path(entry["bundled"]).name if "bundled" in entry else folder
    return home / Path(entry["file"]).name


def refer(folder: Path, bundled: str) -> list[str]:
    """Keep no weights that a bundled model has too: the card names that model instead.

    Args:
        folder: A model folder, or one of a cascade.
        bundled: Name of the bundled model.

    Returns:
        The parts that lie there now.

    Raises:
        FileNotFoundError: If there is no such model.
    """
    theirs = read_card(BUNDLED / bundled)["weights"].values()
    found = []
    for path in sorted(folder.glob(f"**/{CARD}")):
        card = json.loads(path.read_text(encoding="utf-8"))
        for name, entry in card.get("weights", {}).items():
            file = weights_file(path.parent, entry)
            same = next((one for one in theirs if _is_same(file, BUNDLED / bundled, one)), None)
            if same is None:
                continue
            card["weights"][name] = {"bundled": bundled, **same}
            _write_card(card, path.parent)
            found.append(name)
            if file.parent == path.parent:
                file.unlink()
    return found


def _is_same(file: Path, folder: Path, entry: dict[str, str]) -> bool:
    """Whether two files hold the same numbers; averaging leaves zeros another sign."""
    other = folder / entry["file"]
    if file.stat().st_size != other.stat().st_size:
        return False
    ours, theirs = TensorFiles([file]), TensorFiles([other])
    return ours.keys() == theirs.keys() and all(
        ours[key].dtype == theirs[key].dtype and torch.equal(ours[key], theirs[key]) for key in ours
    )


def write_folder(parts: Parts, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """Write a model as a ``vdm`` folder; ``vdm.json`` comes last, so one that has it is whole.

    Args:
        parts: The model.
        folder: Made if need be; files in it are replaced one by one, each whole.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        The folder.

    Raises:
        ValueError: If a weight does not fit into ``dtype``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    card: dict[str, Any] = {"format": FORMAT, **parts.describe(), "weights": {}}
    for name in MODULES:
        if (module := parts.modules.get(name)) is None:
            continue
        state = {
            key: cast_weight(value, dtype, f"{name}.{key}")
            for key, value in module.state_dict().items()
        }
        file = f"{name}.safetensors"
        card["weights"][name] = {"file": file, "sha256": write_safetensors(state, folder / file)}
    return _write_card(card, folder)


def _write_card(card: dict[str, Any], folder: Path) -> Path:
    """Replace the card, whole or not at all."""
    temporary = folder / f".{CARD}.{os.getpid()}"
    temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / CARD)
    return folder
