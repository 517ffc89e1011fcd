"""Layouts that any data set may have: folders, tables, pairs of lists, tar files."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path, PurePosixPath

from vdm.data.check import VIDEO_SUFFIXES, read_caption
from vdm.data.listing_rows import Listed, Media, Rows, one_line, read_table


def folder(path: Path, media: Media) -> Rows:
    """Video files with captions in ``.txt`` files of the same name; the folder is the class."""
    for file in sorted(media.root.rglob("*")):
        name = file.relative_to(media.root)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or file.suffix.lower() not in VIDEO_SUFFIXES:
            continue
        label = name.parts[0] if len(name.parts) > 1 else ""
        yield Listed(name.as_posix(), file, None, one_line(read_caption(file) or ""), label)


CAPTIONS = ("caption", "text", "prompt", "sentence", "name")
"""Columns that may hold what is said, the best first."""


def table(path: Path, media: Media) -> Rows:
    """A table with a column ``path``, ``file_name`` or ``video``, and captions."""
    for row in read_table(path):
        name = next((row[key] for key in ("path", "filename", "video") if row.get(key)), "")
        if not name:
            raise ValueError(f"{path}: got a row without path, file_name or video")
        said = next((row[key] for key in CAPTIONS if row.get(key)), "")
        file = media.at(name, f"video/{name}", f"videos/{name}")
        yield Listed(name, file, None, one_line(said), row.get("label", ""), row.get("split", ""))


def pairs(path: Path, media: Media) -> Rows:
    """``videos.txt`` and ``prompts.txt``, line by line."""
    names, said = (
        (path / file).read_text(encoding="utf-8-sig").splitlines()
        for file in ("videos.txt", "prompts.txt")
    )
    if len(names) != len(said):
        raise ValueError(f"{path}: got {len(names)} videos and {len(said)} prompts")
    for name, caption in zip(names, said, strict=True):
        yield Listed(name.strip(), media.at(name.strip()), None, one_line(caption))


def webdataset(path: Path, media: Media) -> Rows:
    """Tar files of members ``KEY.mp4``, ``KEY.txt``, ``KEY.json``."""
    shards = [path] if path.is_file() else sorted(path.glob("*.tar"))
    for shard in shards:
        try:
            with tarfile.open(shard) as archive:
                yield from _members(shard, archive)
        except tarfile.TarError as error:
            raise ValueError(f"{shard}: not a whole tar file: {error}") from error


def _members(shard: Path, archive: tarfile.TarFile) -> Rows:
    """Clips of one tar file; a key ends at the first dot of its file's name."""
    found: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in archive:
        if member.isfile():
            place, name = PurePosixPath(member.name).parent, PurePosixPath(member.name).name
            stem, _, kind = name.partition(".")
            parts = found.setdefault(str(place / stem), {})
            if kind in parts:
                raise ValueError(f"{shard}: got {member.name} twice")
            parts[kind] = member

    def read(member: tarfile.TarInfo | None) -> bytes:
        file = None if member is None else archive.extractfile(member)
        return b"" if file is None else file.read()

    for key, parts in found.items():
        video = next((m for kind, m in parts.items() if f".{kind.lower()}" in VIDEO_SUFFIXES), None)
        if video is None:
            continue
        said = read(parts.get("txt")).decode("utf-8-sig", "replace")
        if not said and "json" in parts:
            said = str(json.loads(read(parts["json"])).get("caption") or "")
        part = (video.offset_data, video.size)
        yield Listed(f"{shard.name}/{key}{Path(video.name).suffix}", shard, part, one_line(said))
