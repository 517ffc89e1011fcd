"""From what a user names to the model: a bundled name, a folder, or a file of a training run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vdm.pretrained.checkpoints import Weights, read_final, read_lightning
from vdm.pretrained.diffusers_control import Control
from vdm.pretrained.diffusers_files import CONFIG, read_config, tensors_in
from vdm.pretrained.diffusers_pipeline import INDEX, is_pipeline, read_pipeline
from vdm.pretrained.hub import fetch, is_hub_id
from vdm.pretrained.layout import BUNDLED, CARD, read_folder
from vdm.pretrained.loading import Reading, read_pickled
from vdm.pretrained.lora import Lora
from vdm.pretrained.original_lavie import read_lavie
from vdm.pretrained.original_ltx import is_ltx, read_ltx
from vdm.pretrained.original_modelscope import FILES, is_modelscope, read_modelscope
from vdm.pretrained.original_open_sora_2 import is_open_sora_2, read_open_sora_2
from vdm.pretrained.original_opensora import HUB, read_opensora_1, read_opensora_2
from vdm.pretrained.original_stdit import is_stdit3
from vdm.pretrained.original_svd import is_svd, read_svd
from vdm.pretrained.original_videocrafter import is_videocrafter, read_videocrafter
from vdm.pretrained.original_wan_folder import is_wan_folder, read_wan_folder
from vdm.pretrained.parts import Parts
from vdm.pretrained.tensor_files import TensorFiles

PART_FILES = ("config.json", "scheduler_config.json")


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(card.parent.name for card in BUNDLED.glob(f"*/{CARD}"))


def locate(source: str | Path) -> Path:
    """Where a source lies: a path as it is, a bundled name as its folder."""
    is_name = str(source) in bundled() and not Path(source).exists()
    return BUNDLED / source if is_name else Path(source)


def read(
    source: str | Path,
    weights: Weights = "ema",
    motion: str | Path | None = None,
    profile: str = "diffusers",
    lora: Lora | None = None,
    control: Control | None = None,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """A model, whatever it is stored as.

    Args:
        source: A bundled name, a model folder of ours or in diffusers' layout, the name of a
            published one on the hub, its authors' folder or single file (of LaVie's, any), a run's
            folder or ``final.safetensors``, or a Lightning ``.ckpt`` of ours.
        weights: Which weights of a training run: the averaged ones, or those of the last step.
        motion: A motion adapter, for an image model in diffusers' layout: a folder or a name on the
            hub.
        profile: Whose numerics, for models whose references disagree.
        lora: Low-rank changes of a model in diffusers' layout, see :func:`vdm.load`.
        control: SparseCtrl for a model with motion modules, see :func:`vdm.load`.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a path leads nowhere.
        ValueError: If the name is unknown, the file cannot be read as a model, or an argument does
            not apply to it.
    """
    path = locate(source)
    state = _foreign(path)
    if isinstance(state, TensorFiles) and is_svd(state):
        _refuse_options(source, None, "diffusers", variant=how.variant)
        return read_svd(path, state, profile, how=how)
    if isinstance(state, TensorFiles) and is_ltx(state):
        _refuse_options(source, motion, profile, lora=lora, control=control, variant=how.variant)
        return read_ltx(path, state, how)
    if is_videocrafter(state):
        _refuse_options(source, motion, profile, lora=lora, control=control, variant=how.variant)
        return read_videocrafter(path, state, how=how)
    is_fetched = is_hub_id(source) and not path.exists()
    if is_fetched:
        path = fetch(str(source), how)
        if is_modelscope(path) and not how.is_plan:
            path = fetch(str(source), how, FILES.values())
    if is_pipeline(path):
        parts = read_pipeline(path, motion, profile, lora, control, how)
        if is_fetched:  # into a folder that is called by a hash
            parts.name = Path(source).name
        return parts
    if is_fetched and is_open_sora_2(path):
        path = fetch(str(source), how, ("*.bin",))  # of the text encoder
    if is_fetched and is_wan_folder(path) and not how.is_plan:
        path = fetch(str(source), how, ("*.pth",))
    if is_fetched and _is_opensora(path):
        more = () if how.is_plan else ("*.bin",)
        parts = read_opensora_2(path, how, lambda name: fetch(HUB[name], how, more))
        parts.name = Path(source).name
        return parts
    _refuse_options(source, motion, profile, lora=lora, control=control, variant=how.variant)
    if path.is_dir():
        return _read_directory(path, weights, how)
    if not path.exists():
        raise _unknown(str(source))
    if path.suffix == ".safetensors":
        return read_final(path, weights, how)
    if path.suffix == ".ckpt":
        return read_lightning(path, weights, how)
    if path.suffix == ".pt":
        return read_lavie(path, how)
    if path.suffix == ".pth":
        return read_opensora_1(path, how)
    raise ValueError(
        f"{path}: got {path.suffix or 'no suffix'}, expected .safetensors, .ckpt, .pt, .pth or a "
        "folder"
    )


def _refuse_options(
    source: str | Path, motion: str | Path | None, profile: str, **others: object
) -> None:
    """Refuse what only some kinds of models are read with."""
    if motion is not None:
        raise ValueError(
            f"got motion={str(motion)!r}, expected None: motion is for an image model, and "
            f"{source} is none"
        )
    for name, value in others.items():
        if value is not None:
            raise ValueError(
                f"got {name}={str(value)!r}, expected None: {name} is for a model in diffusers' "
                f"layout, and {source} is none"
            )
    if profile != "diffusers":
        raise ValueError(
            f"got profile={profile!r}: {source} has no reference to differ from, "
            "expected the default 'diffusers'"
        )


def _foreign(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a single file that no run of ours has written; none for anything else."""
    if path.suffix == ".safetensors" and path.is_file():
        return TensorFiles([path])
    if path.suffix != ".ckpt" or not path.is_file():
        return {}
    data = read_pickled(path)
    return {} if isinstance(data, dict) and "vdm" in data else tensors_in(data)


def _read_directory(path: Path, weights: Weights, how: Reading) -> Parts:
    if (path / CARD).is_file():
        return read_folder(path, how=how)
    if is_modelscope(path):
        return read_modelscope(path, how)
    if _is_opensora(path):
        return read_opensora_2(path, how)
    if is_open_sora_2(path):
        return read_open_sora_2(path, how)
    if is_wan_folder(path):
        return read_wan_folder(path, how)
    if (path / "final.safetensors").is_file():
        return read_final(path / "final.safetensors", weights, how)
    if found := [name for name in PART_FILES if (path / name).is_file()]:
        raise ValueError(f"{path}: a part of a model ({found[0]}); expected {CARD} or {INDEX}")
    raise ValueError(f"{path}: holds neither {CARD} nor final.safetensors")


def _is_opensora(path: Path) -> bool:
    """Whether a folder is that of a network of Open-Sora 1.2."""
    return (path / CONFIG).is_file() and is_stdit3(read_config(path))


def _unknown(source: str) -> Exception:
    """The error for a source that is neither a name nor a path, with the nearest name."""
    names = bundled()
    nearest = difflib.get_close_matches(source, names, n=1, cutoff=0.0)
    if source.startswith((".", "/", "~")) or Path(source).suffix in {
        ".safetensors",
        ".ckpt",
        ".pt",
        ".pth",
        ".json",
    }:
        return FileNotFoundError(f"no file or folder {source}")
    hint = f"; nearest: {nearest[0]}" if nearest else ""
    return ValueError(
        f"got model {source!r}, expected a file, a folder or a bundled name: "
        f"{', '.join(names) or 'none'}{hint}"
    )
