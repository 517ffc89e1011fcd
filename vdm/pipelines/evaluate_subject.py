"""What is being evaluated: a model, an autoencoder alone, or a folder of finished clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vdm.pipelines.cascade import Cascade
from vdm.pipelines.evaluate_sources import ClipFolder, Generate
from vdm.pipelines.generate import Generator
from vdm.pipelines.load import load
from vdm.pretrained import read
from vdm.pretrained.cascades import is_cascade
from vdm.pretrained.parts import Parts

MODEL_FILES = ("vdm.json", "final.safetensors", "model_index.json", "config.json", "checkpoints")
"""What a folder holds that is a model and no folder of clips."""


@dataclass(frozen=True)
class Subject:
    """A model or finished clips. What it does not have is None.

    Args:
        about: Everything that its clips depend on besides the settings of the call, as plain data.
        shape: Frames, height and width of its clips.
        generate: Makes clips of prompts.
        autoencoder: Encodes and decodes.
        folder: Finished clips.
    """

    about: Mapping[str, Any]
    shape: tuple[int, int, int]
    generate: Generate | None = None
    autoencoder: nn.Module | None = None
    folder: ClipFolder | None = None


def find_subject(model: Any, settings: Mapping[str, Any]) -> Subject:
    """What the caller wants evaluated.

    Args:
        model: A path or name, a generator, any function that generates, or a folder of clips.
        settings: Arguments for the model; frames and size say which clips it is scored on.

    Raises:
        FileNotFoundError: If a path leads nowhere.
        TypeError: If it is none of these.
        ValueError: If the folder holds no clips, or finished clips come with settings.
    """
    if isinstance(model, str | Path):
        path = Path(model)
        if path.is_dir() and not any((path / name).exists() for name in MODEL_FILES):
            return _finished(path, settings)
        model = load(model) if is_cascade(model) else model
    if isinstance(model, str | Path):
        parts = read(model)
        if parts.network is None and parts.autoencoder is not None:
            shape = _shape(settings, asdict(parts.defaults))
            return Subject(_about(parts), shape, autoencoder=parts.autoencoder.float().eval())
        model = load(model)
    if isinstance(model, Cascade):
        shape = _shape(settings, asdict(model.parts.defaults))
        return Subject(model.about(), shape, model, model.autoencoder)
    if isinstance(model, Generator):
        shape = _shape(settings, asdict(model.parts.defaults))
        about = {**_about(model.parts), "dtype": str(model.dtype).removeprefix("torch.")}
        return Subject(about, shape, model, model.autoencoder)
    if not callable(model):
        raise TypeError(f"got {type(model).__name__}, expected a model, a path or a function")
    name = getattr(model, "__name__", type(model).__name__)
    autoencoder = getattr(model, "autoencoder", None)
    return Subject({"model": name}, _shape(settings, {}), model, autoencoder)


def _finished(path: Path, settings: Mapping[str, Any]) -> Subject:
    folder = ClipFolder(path, lossless=True)
    if settings:
        raise ValueError(
            f"got {next(iter(settings))} for a folder of finished clips, expected none"
        )
    frames, height, width, _ = folder.clip(0)[0].shape
    about = {"model": path.name, "clips": folder.describe()["folder"]}
    return Subject(about, (frames, height, width), folder=folder)


def _shape(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[int, int, int]:
    usual = {"num_frames": 16, "height": 64, "width": 64}
    frames, height, width = (
        settings.get(name, defaults.get(name, value)) for name, value in usual.items()
    )
    return frames, height, width


def _about(parts: Parts) -> dict[str, Any]:
    return {
        "model": parts.name,
        "config_sha256": parts.config_hash(),
        "weights_sha256": parts.weight_hashes(),
        "defaults": asdict(parts.defaults),
    }
