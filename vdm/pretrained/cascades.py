"""Cascades on disk: a ``vdm.json`` that lists the stages, and a model folder for each."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vdm.pretrained.checkpoints import Weights
from vdm.pretrained.components import convert
from vdm.pretrained.layout import CARD
from vdm.pretrained.original_lavie import is_release, stages_of
from vdm.pretrained.sources import locate

CASCADE = "vdm-cascade/1"
KINDS = ("keyframes", "interpolate", "upscale")
KEYS = {"format", "name", "stages"}


@dataclass(frozen=True)
class StageCard:
    """One stage of a cascade, as it is written down.

    Args:
        kind: ``keyframes`` makes the first latents, ``interpolate`` those between them,
            ``upscale`` larger ones.
        model: Where its model lies: a folder beside ``vdm.json``, or any source of a model while a
            cascade is put together.
        factor: By how much there are more latents afterwards: frames, or rows and columns. If None,
            1 for keyframes and 2 for the others.

    Raises:
        ValueError: If there is no such kind, or the factor does not go with it.
    """

    kind: str
    model: str
    factor: int | None = None

    def __post_init__(self) -> None:
        """Check kind and factor."""
        if self.kind not in KINDS:
            raise ValueError(f"got stage {self.kind!r}, expected one of {', '.join(KINDS)}")
        is_first = self.kind == KINDS[0]
        if self.factor is None:
            object.__setattr__(self, "factor", 1 if is_first else 2)
        elif self.factor != 1 if is_first else self.factor < 2:
            expected = "1" if is_first else "at least 2"
            raise ValueError(f"got factor={self.factor} for {self.kind}, expected {expected}")

    @classmethod
    def parse(cls, word: str) -> StageCard:
        """A stage from ``KIND[:FACTOR]=MODEL``.

        Raises:
            ValueError: If the word has another form.
        """
        said, equals, model = word.partition("=")
        kind, colon, factor = said.partition(":")
        if not equals or not model or (colon and not factor.isdigit()):
            raise ValueError(
                f"got stage {word!r}, expected KIND[:FACTOR]=MODEL, e.g. interpolate:2=outputs/run"
            )
        return cls(kind, model, int(factor) if colon else None)


def is_cascade(source: str | Path) -> bool:
    """Whether a source is a folder of a cascade: ours, or one that LaVie is released as."""
    path = locate(source) / CARD
    if not path.is_file():
        return is_release(path.parent)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False  # whoever reads it as a model says what is wrong
    return isinstance(data, dict) and str(data.get("format", "")).startswith("vdm-cascade/")


def read_cascade(source: str | Path) -> tuple[str, list[StageCard]]:
    """Name and stages of a cascade folder.

    Raises:
        ValueError: If it is of another format version, or a key, kind or factor is wrong.
    """
    path = locate(source) / CARD
    if not path.is_file():
        found = stages_of(path.parent)
        return path.parent.resolve().name, [StageCard(*stage) for stage in found]
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if data["format"] != CASCADE:
        raise ValueError(f"{path}: got format {data['format']!r}, expected {CASCADE!r}")
    if surplus := sorted(set(data) - KEYS):
        raise ValueError(
            f"{path}: unknown key {', '.join(surplus)}; expected {', '.join(sorted(KEYS))}"
        )
    try:
        stages = [StageCard(**entry) for entry in data.get("stages", [])]
        check_order([stage.kind for stage in stages])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if outside := [stage.model for stage in stages if Path(stage.model).name != stage.model]:
        raise ValueError(f"{path}: got model {outside[0]!r}, expected a folder beside {CARD}")
    return str(data.get("name", "cascade")), stages


def write_cascade(folder: Path, name: str, stages: Sequence[StageCard]) -> Path:
    """Write the list of stages, whole or not at all; their models are there already.

    Returns:
        The folder.
    """
    data = {"format": CASCADE, "name": name, "stages": [asdict(stage) for stage in stages]}
    temporary = folder / f".{CARD}.{os.getpid()}"
    temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / CARD)
    return folder


def place_of(index: int, kind: str) -> str:
    """Name of the folder of a stage's model."""
    return f"{index}-{kind}"


def save_cascade(folder: str | Path, **models: str | Path) -> Path:
    """Put trained models together, each stage with its usual factor; see :func:`assemble`.

    ``save_cascade("outputs/cascade", keyframes="outputs/a", interpolate="outputs/b")``

    Args:
        folder: What to write; must not hold a model yet.
        models: Sources of the models by kind of stage, in the order of the stages.

    Returns:
        The folder.

    Raises:
        ValueError: As for :func:`assemble`.
    """
    return assemble(folder, [StageCard(kind, str(model)) for kind, model in models.items()])


def assemble(
    folder: str | Path,
    cards: Sequence[StageCard],
    *,
    name: str | None = None,
    dtype: str | torch.dtype | None = None,
    weights: Weights = "ema",
    autoencoder: str | Path | None = None,
) -> Path:
    """Put trained models together into one cascade folder, which :func:`vdm.load` reads.

    Args:
        folder: What to write; must not hold a model yet.
        cards: Stages from the first to the last, with the sources of their models; one that is
            named twice is stored once.
        name: What the cascade is called; the folder's name if None.
        dtype: Store floating-point weights in this type; as they are if None.
        weights: Which weights of training runs.
        autoencoder: Model whose autoencoder replaces those of the stages, see :func:`convert`.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds a model, the first stage is not the one that makes
            keyframes, or a model cannot be read.
    """
    check_order([card.kind for card in cards])
    folder = Path(folder)
    if (folder / CARD).exists():
        raise ValueError(f"{folder} already holds a model; expected a new folder")
    places: dict[str, str] = {}
    for index, card in enumerate(cards):
        if card.model not in places:
            places[card.model] = place = place_of(index, card.kind)
            convert(card.model, folder / place, "vdm", dtype, weights, autoencoder)
    placed = [StageCard(card.kind, places[card.model], card.factor) for card in cards]
    return write_cascade(folder, name or folder.name, placed)


def check_order(kinds: Sequence[str]) -> None:
    """Refuse stages of which not the first one, and it alone, starts from nothing.

    Raises:
        ValueError: If so.
    """
    if not kinds or kinds[0] != KINDS[0] or KINDS[0] in kinds[1:]:
        got = ", ".join(kinds) or "none"
        raise ValueError(f"got stages {got}, expected {KINDS[0]} first and then others")
