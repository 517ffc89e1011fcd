"""What has been measured already: a line per clip, from which a stopped evaluation goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

FORMAT = "vdm-evaluation/1"


def pack(features: Float32[np.ndarray, " d"]) -> str:
    """Features of a clip as a short word from which they come back bit by bit."""
    return base64.b64encode(features.astype("<f4").tobytes()).decode()


def unpack(word: str | list[float]) -> Float32[np.ndarray, " d"]:
    """Features of a clip; files that are older than :func:`pack` hold them number by number."""
    if isinstance(word, list):
        return np.array(word, np.float32)
    return np.frombuffer(base64.b64decode(word), "<f4").astype(np.float32)


def _first_difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The first setting that differs, by name and value, inside of groups of settings too."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return name, old, new
    key = next(key for key in sorted({*old, *new}) if old.get(key) != new.get(key))
    return _first_difference(f"{name}.{key}", old.get(key), new.get(key))


class Records:
    """Measurements by (data, source, clip number), appended to a file as they are made.

    Args:
        path: A ``.jsonl`` file, or None to keep them in memory only.
        settings: Everything that the measurements depend on, as plain data.

    Raises:
        ValueError: If the file holds measurements under other settings, or is no such file.
    """

    def __init__(self, path: str | Path | None, settings: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.settings = json.loads(json.dumps({"format": FORMAT, **settings}))
        self._values: dict[tuple[str, str, int], dict[str, Any]] = {}
        if self.path is None:
            return
        if self.path.exists() and self.path.stat().st_size:
            self._read(self.path)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write([self.settings])

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n")
        if torn := lines.pop():  # a killed run may leave half a line: forget it
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size - len(torn.encode()))
        try:
            header, *rows = [json.loads(line) for line in lines]
        except ValueError as error:
            raise ValueError(f"{path}: not a file of measurements: {error}") from error
        names = sorted({*header, *self.settings})
        different = [name for name in names if header.get(name) != self.settings.get(name)]
        if different:
            name, old, new = _first_difference(
                different[0], header.get(different[0]), self.settings.get(different[0])
            )
            raise ValueError(
                f"{path} was measured with {name}={old!r}, got {name}={new!r}: expected another "
                "folder or the same settings (of an experiment: --retrain ARM)"
            )
        for row in rows:
            self._keep(row["data"], row["source"], row["index"], row["measured"])

    def take_over(self, path: str | Path, sources: Iterable[str], same: Iterable[str]) -> int:
        """Measurements of clips that do not depend on the model, out of another evaluation.

        Args:
            path: Its file.
            sources: Of which clips.
            same: Settings that both must have alike; otherwise nothing is taken over.

        Returns:
            How many clips.
        """
        path, wanted = Path(path), set(sources)
        if not path.is_file() or path == self.path:
            return 0
        header, *rows = map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])
        if any(header.get(name) != self.settings.get(name) for name in ("format", *same)):
            return 0
        taken = [
            row
            for row in rows
            if row["source"] in wanted
            and self.missing(row["data"], row["source"], [row["index"]], set(row["measured"]))
        ]
        self._write(taken)
        for row in taken:
            self._keep(**row)
        return len(taken)

    def _keep(self, data: str, source: str, index: int, measured: Mapping[str, Any]) -> None:
        self._values.setdefault((data, source, index), {}).update(measured)

    def _write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)

    def missing(self, data: str, source: str, indices: Iterable[int], names: set[str]) -> list[int]:
        """Numbers of the clips of which something is not measured yet."""
        return [
            index
            for index in indices
            if not names <= self._values.get((data, source, index), {}).keys()
        ]

    def has(self, data: str, source: str, indices: Iterable[int], name: str) -> bool:
        """Whether all of some clips have been measured so."""
        return not self.missing(data, source, indices, {name})

    def add(
        self, data: str, source: str, indices: Iterable[int], measured: Iterable[Mapping[str, Any]]
    ) -> None:
        """Keep the measurements of some clips, in the file too."""
        rows = [
            {"data": data, "source": source, "index": index, "measured": dict(values)}
            for index, values in zip(indices, measured, strict=True)
        ]
        self._write(rows)
        for row in json.loads(json.dumps(rows)):
            self._keep(**row)

    def column(self, data: str, source: str, name: str, indices: Iterable[int]) -> list[Any]:
        """One measurement of some clips, in their order.

        Raises:
            KeyError: If a clip has not been measured.
        """
        return [self._values[data, source, index][name] for index in indices]
