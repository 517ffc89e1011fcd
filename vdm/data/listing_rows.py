"""Clips that somebody lists: one row for each, and what rows are read from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdm.data.check import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Listed:
    """A clip that is listed.

    Args:
        name: Tells it from all others: of its file, in a longer video with its place there.
        path: Its file, or the file that it is a part of.
        part: First byte and number of bytes, if it is a part of a file.
        captions: What is said of it, none or several.
        label: Its class.
        split: Which part of the data it is of, where the listing says so.
        group: Clips of one group are from the same footage, so that a split must not cut it.
        start: Seconds into the file where it begins.
        end: Where it ends; None at the end of the file.
    """

    name: str
    path: Path
    part: tuple[int, int] | None = None
    captions: tuple[str, ...] = ()
    label: str = ""
    split: str = ""
    group: str = ""
    start: float = 0.0
    end: float | None = None


Rows = Iterator[Listed]
Row = Mapping[str, str]


class Media:
    """The video files below a folder, by path and by name.

    Args:
        root: Searched to any depth, once, when it is first asked.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stems: dict[str, list[Path]] | None = None

    def at(self, *places: str) -> Path:
        """The first of some paths below the root that is there, else the first.

        A place that begins at the root of the file system is taken as it is.
        """
        paths = [self.root / place for place in places]
        return next((path for path in paths if path.is_file()), paths[0])

    def named(self, stem: str) -> Path:
        """The file of a name without suffix, wherever it lies; where it should be if nowhere.

        Raises:
            ValueError: If there are several.
        """
        if self._stems is None:
            self._stems = {}
            for path in sorted(self.root.rglob("*")):
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    self._stems.setdefault(path.stem, []).append(path)
        found = self._stems.get(stem, [])
        if len(found) > 1:
            raise ValueError(f"{self.root}: got {found[0]} and {found[1]}, expected one {stem}")
        return found[0] if found else self.root / f"{stem}.mp4"


def plain(name: str) -> str:
    """A column's name without what people write differently: case, spaces, underscores."""
    return name.strip().lower().replace("_", "").replace(" ", "")


def read_table(path: Path) -> list[Row]:
    """Rows of a ``.csv`` or ``.jsonl`` file by :func:`plain` column names, in utf-8.

    Raises:
        ValueError: If it is not what its name says.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not utf-8 (byte {error.start})") from error
    if path.suffix == ".csv":
        lines = csv.reader(text.splitlines())
        head = [plain(name) for name in next(lines, [])]
        if twice := {name for name in head if head.count(name) > 1}:
            raise ValueError(f"{path}: got column {sorted(twice)[0]!r} twice")
        rows = list[Row]()
        for number, cells in enumerate(lines, 2):
            if cells and len(cells) != len(head):
                raise ValueError(f"{path}:{number}: got {len(cells)} cells, expected {len(head)}")
            rows += [dict(zip(head, cells, strict=True))] if cells else []
        return rows
    rows = list[Row]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: got {type(row).__name__}, expected keys and values")
        rows.append({plain(str(key)): _cell(value) for key, value in row.items()})
    return rows


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def one_line(text: str) -> tuple[str, ...]:
    """A caption without line ends; none if nothing is said."""
    words = " ".join(text.split())
    return (words,) if words else ()


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """Without repetitions, in order."""
    return tuple(dict.fromkeys(values))


def read_json(path: Path) -> Any:
    """What a ``.json`` file holds.

    Raises:
        ValueError: If it is none.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
