"""Which clips somebody has: folders, tables, shards and public data sets, as one kind of row.

:func:`read_listing` looks at what it is given and tells the layout by what is in it. It opens no
video; which clips are sound is for :mod:`vdm.data.check` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vdm.data.listing_layouts import folder, pairs, table, webdataset
from vdm.data.listing_rows import Listed, Media, Rows, plain, read_json
from vdm.data.listing_sets import (
    UCF_LISTS,
    kinetics,
    msr_vtt,
    msr_vtt_1k,
    panda,
    something,
    ucf101,
    webvid,
)

Layout = Callable[[Path, Media], Rows]

LAYOUTS: dict[str, Layout] = {
    "folder": folder,
    "table": table,
    "pairs": pairs,
    "webdataset": webdataset,
    "ucf101": ucf101,
    "kinetics": kinetics,
    "msr-vtt": msr_vtt,
    "msr-vtt-1k": msr_vtt_1k,
    "something-something": something,
    "webvid": webvid,
    "panda": panda,
}
"""How clips may be listed. Open-Sora's, OpenVid's and the hub's tables are ``table``."""

COLUMNS = {
    "kinetics": {"youtubeid", "timestart", "timeend"},
    "webvid": {"videoid", "pagedir", "name"},
    "panda": {"videoid", "timestamp", "caption"},
    "msr-vtt-1k": {"videoid", "sentence"},
}
"""What a table of each kind has; whatever else names files is a plain ``table``."""
FILES = {"path", "filename", "video"}


@dataclass
class Listing:
    """What is listed, and what of it is not there.

    Args:
        layout: How it is laid out, see :data:`LAYOUTS`.
        clips: In the order of the listing.
        missing: Names whose files are not there.
    """

    layout: str
    clips: list[Listed] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def layout_of(path: Path) -> str:
    """How a listing is laid out, by what is in it.

    Raises:
        ValueError: If that cannot be told.
    """
    if path.is_dir():
        if any(place.is_dir() for place in (path / UCF_LISTS, *path.glob(f"*/{UCF_LISTS}"))):
            return "ucf101"
        if (path / "videos.txt").is_file() and (path / "prompts.txt").is_file():
            return "pairs"
        return "webdataset" if any(path.glob("*.tar")) else "folder"
    if path.suffix == ".tar":
        return "webdataset"
    if path.suffix == ".jsonl":
        return "table"
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig") as file:
            have = {plain(name.strip('"')) for name in file.readline().split(",")}
        for name, columns in COLUMNS.items():
            if columns <= have:
                return name
        if have & FILES:
            return "table"
        raise ValueError(f"{path}: got columns {', '.join(sorted(have))}, expected e.g. path, text")
    if path.suffix == ".json":
        content = read_json(path)
        if isinstance(content, dict) and {"videos", "sentences"} <= content.keys():
            return "msr-vtt"
        if isinstance(content, list) and content and "id" in content[0]:
            return "something-something"
        raise ValueError(f"{path}: got JSON of no known data set, expected MSR-VTT's or SSv2's")
    raise ValueError(
        f"got {path}, expected a folder or a .csv, .json, .jsonl or .tar; or name the layout"
    )


def read_listing(
    path: str | Path, media: str | Path | None = None, layout: str | None = None
) -> Listing:
    """What is listed in a file or folder.

    Args:
        path: A folder of videos or of tar files; a ``.csv``, ``.json``, ``.jsonl`` or ``.tar``; or
            the folder of a public data set.
        media: Where the videos lie; beside the listing if None.
        layout: One of :data:`LAYOUTS`; told by what is there if None.

    Raises:
        FileNotFoundError: If there is no such path.
        ValueError: If the layout is unknown or cannot be told, the listing is damaged, or a clip is
            listed twice.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"got {path}, expected a folder or a listing")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"got layout {layout!r}, expected one of {', '.join(LAYOUTS)}")
    root = Path(media) if media is not None else path if path.is_dir() else path.parent
    if not root.is_dir():
        raise FileNotFoundError(f"got {root}, expected the folder of the videos")
    made = Listing(layout or layout_of(path))
    seen: set[str] = set()
    try:
        for clip in LAYOUTS[made.layout](path, Media(root)):
            if clip.name in seen:
                raise ValueError(f"got {clip.name} twice")
            seen.add(clip.name)
            if clip.path.is_file():
                made.clips.append(clip)
            else:
                made.missing.append(clip.name)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not laid out as {made.layout}: {error!r}") from error
    return made
