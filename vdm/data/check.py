"""Which files of a folder are clips, and why the others are not: one line for every file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from vdm.data.block_store import write_json
from vdm.utils.video_reader import VideoReader

VIDEO_SUFFIXES = frozenset(
    {
        ".3g2",
        ".3gp",
        ".asf",
        ".avi",
        ".f4v",
        ".flv",
        ".gif",
        ".m1v",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogg",
        ".ogv",
        ".rm",
        ".swf",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
        ".y4m",
    }
)
"""What a file must be called to be taken for a clip."""

_VERSION = 1  # of what is looked for


class Verdict(NamedTuple):
    """What became of one file.

    Attributes:
        name: Path below the folder, with forward slashes.
        kept: Whether it is a clip.
        reason: What it is, or why it was dropped; one line.
        num_frames: Frames that decode; 0 if dropped.
        fps: Mean frames per second, by time stamps; 0 if dropped.
        caption: Text of the file of the same name in ``.txt``; empty if there is none.
    """

    name: str
    kept: bool
    reason: str
    num_frames: int = 0
    fps: float = 0.0
    caption: str = ""

    def __str__(self) -> str:
        return f"{'kept   ' if self.kept else 'dropped'}  {self.name}: {self.reason}"


def check_folder(
    path: str | Path, num_threads: int | None = None, memory: str | Path | None = None
) -> list[Verdict]:
    """Look at every clip under a folder, decoding it to the end.

    Files whose names end like video are clips to be; a ``.txt`` without a clip beside it is
    reported too. Hidden files and other suffixes are passed over.

    Args:
        path: A folder, searched to any depth, or a single file.
        num_threads: Files looked at together; by default one per core.
        memory: File to keep the verdicts in: files that did not change since are not decoded again.

    Returns:
        One verdict per file, sorted by name.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"no such folder: {root}")
    names = [root.name] if root.is_file() else sorted(_names(root))
    root = root.parent if root.is_file() else root
    known = _recall(memory)
    stamps = {name: _stamp(root / name) for name in names}

    def look(name: str) -> Verdict:
        before = known.get(name)
        if before is not None and before[0] == stamps[name]:
            return Verdict(*before[1])
        return check_file(root, name)

    with ThreadPoolExecutor(num_threads or os.cpu_count()) as pool:
        verdicts = list(pool.map(look, names))
    if memory is not None:
        Path(memory).parent.mkdir(parents=True, exist_ok=True)
        found = {verdict.name: [stamps[verdict.name], list(verdict)] for verdict in verdicts}
        write_json(Path(memory), {"version": _VERSION, "files": found})
    return verdicts


def _stamp(path: Path) -> list[int]:
    """What changes when a file or its caption does: sizes and times of both."""
    stamp = []
    for file in (path, path.with_suffix(".txt")):
        status = file.stat() if file.exists() else None
        stamp += [status.st_size, status.st_mtime_ns] if status else [-1, -1]
    return stamp


def _recall(memory: str | Path | None) -> dict[str, list[Any]]:
    """Verdicts of an earlier look; none if there was none or it cannot be read."""
    if memory is None:
        return {}
    try:
        content = json.loads(Path(memory).read_text(encoding="utf-8"))
        return content["files"] if content["version"] == _VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _names(root: Path) -> Iterable[str]:
    stems = set()
    texts = []
    for path in root.rglob("*"):
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts) or path.is_dir():
            continue
        if path.suffix.lower() in VIDEO_SUFFIXES:
            stems.add(relative.with_suffix(""))
            yield relative.as_posix()
        elif path.suffix.lower() == ".txt":
            texts.append(relative)
    yield from (text.as_posix() for text in texts if text.with_suffix("") not in stems)


def check_file(root: Path, name: str) -> Verdict:
    """Look at one file, decoding it to the end."""
    path = root / name
    try:
        if path.suffix.lower() == ".txt":
            raise ValueError("a caption without a clip")
        caption, about = read_caption(path), ""
        with VideoReader(path, threads=1) as reader:
            if len(reader) < 2:
                raise ValueError("a single frame, expected at least 2")
            if damage := reader.damage():
                raise ValueError(damage)
            height, width = reader.picture_size
            about = f"{reader.codec} {width}x{height}, {len(reader)} frames at {reader.fps:.4g} fps"
            words = "no caption" if caption is None else "caption"
            return Verdict(name, True, f"{about}, {words}", len(reader), reader.fps, caption or "")
    except (ValueError, OSError) as error:
        reason = str(error).removeprefix(f"{path.name}: ").replace("\n", " ")
        return Verdict(name, False, reason)


def read_caption(path: Path) -> str | None:
    """The caption of a clip: the ``.txt`` of the same name, in utf-8, on one line.

    Returns:
        The caption without byte-order mark and line ends; nothing if there is no such file.

    Raises:
        ValueError: If the file is not utf-8.
    """
    text = path.with_suffix(".txt")
    if not text.is_file():
        return None
    try:
        return " ".join(text.read_bytes().decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise ValueError(f"its caption is not utf-8 (byte {error.start})") from error
