"""From what somebody has to what training reads: every clip looked at, hashed, put into shards.

The result is a folder:

* ``shards/NNNNN.tar``: the files as they were, in WebDataset's layout;
* ``index.jsonl``: a line for each clip: what is said of it, where its bytes are, and when each of
  its frames is shown, so that a reader decodes only those that it needs;
* ``quarantine.jsonl``: every clip that was dropped, and why; none is replaced by another;
* ``dataset.json``: what it was made from.

``index.jsonl`` comes last: a folder that has it is whole. Until then ``journal.jsonl`` says what is
done, and an ingest that was stopped goes on behind its last line.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from vdm.data.block_store import digest, write_json, write_text
from vdm.data.check import Verdict
from vdm.data.listing import Listing
from vdm.data.listing_rows import Listed
from vdm.utils.video_reader import FilePart, VideoIndex, VideoReader

FORMAT = "vdm-clips/1"
INDEX, QUARANTINE, ABOUT, JOURNAL = (
    "index.jsonl",
    "quarantine.jsonl",
    "dataset.json",
    "journal.jsonl",
)
SHARD_BYTES = 1_000_000_000
BLOCK = tarfile.BLOCKSIZE
Report = Callable[[int, int, int], None]
"""Told of clips that are done, clips in all, and clips that were dropped."""


@runtime_checkable
class SceneCuts(Protocol):
    """Finds the shots of a video.

    Attributes:
        id: Everything that the cuts depend on.
    """

    id: str

    def __call__(self, reader: VideoReader) -> list[tuple[int, int]]:
        """First frame of each shot, and the one behind its last."""
        ...


@dataclass(frozen=True)
class Ingested:
    """Counts of an ingest.

    Args:
        kept: Clips that are in the index.
        dropped: Those that are not.
    """

    kept: int
    dropped: int


def probe(clip: Listed, scene_cuts: SceneCuts | None = None) -> dict[str, Any]:
    """What a clip is, after decoding it to the end.

    Args:
        clip: The clip.
        scene_cuts: Adds ``shots``, the frames of each in the clip's video.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged, too short, or its place is not in its video.
    """
    with VideoReader(clip.path, threads=1, part=clip.part) as reader:
        if damage := reader.damage():
            raise ValueError(damage)
        index, (height, width) = reader.index, reader.picture_size
        times = index.times
        end = times[-1] + 1 / reader.fps if len(reader) > 1 else 0.0
        last = end if clip.end is None else clip.end
        if not 0 <= clip.start < last <= end + 0.5:  # a listing rounds to seconds
            raise ValueError(f"its place {clip.start:g} to {last:g} s is not in {end:.1f} s")
        count = sum(clip.start <= time < last for time in times)
        if count < 2:
            raise ValueError(f"{count} frame, expected at least 2")
        return {
            "codec": reader.codec,
            "height": height,
            "width": width,
            "fps": reader.fps,
            "frames": count,
            "time_base": str(index.time_base),
            "pts": list(index.pts),
            "keys": list(index.key_pts),
            **({} if scene_cuts is None else {"shots": scene_cuts(reader)}),
        }


def check_listing(listing: Listing, num_threads: int | None = None) -> Iterator[Verdict]:
    """Look at every listed clip, decoding it to the end: one verdict each."""
    for clip, found in _probed(listing.clips, num_threads):
        if isinstance(found, str):
            yield Verdict(clip.name, False, found)
            continue
        about = f"{found['codec']} {found['width']}x{found['height']}, {found['frames']} frames"
        said = f"{len(clip.captions)} captions" if len(clip.captions) > 1 else "caption"
        words = f"{about} at {found['fps']:.4g} fps, {said if clip.captions else 'no caption'}"
        caption = clip.captions[0] if clip.captions else ""
        yield Verdict(clip.name, True, words, found["frames"], found["fps"], caption)
    for name in listing.missing:
        yield Verdict(name, False, "its file is not there")


def _probed(
    clips: list[Listed], num_threads: int | None, scene_cuts: SceneCuts | None = None
) -> Iterator[tuple[Listed, dict[str, Any] | str]]:
    """Clips in order, each with what it is or with why it is dropped."""
    count = num_threads or os.cpu_count() or 1

    def look(clip: Listed) -> dict[str, Any] | str:
        try:
            return probe(clip, scene_cuts)
        except (ValueError, OSError) as error:
            return " ".join(str(error).removeprefix(f"{clip.path.name}: ").split())

    with ThreadPoolExecutor(count) as pool:
        for start in range(0, len(clips), 4 * count):
            some = clips[start : start + 4 * count]
            yield from zip(some, pool.map(look, some), strict=True)


def ingest(
    listing: Listing,
    out: str | Path,
    *,
    in_place: bool = False,
    shard_bytes: int = SHARD_BYTES,
    num_threads: int | None = None,
    report: Report | None = None,
    scene_cuts: SceneCuts | None = None,
) -> Ingested:
    """Look at every listed clip and write those that are sound.

    Args:
        listing: The clips.
        out: The folder to make; one that was stopped is gone on with.
        in_place: Write no shards: the index points at the files where they are.
        shard_bytes: A shard is ended by the clip that makes it larger.
        num_threads: Clips that are decoded together; by default one per core.
        report: Told how far it is.
        scene_cuts: Makes a clip of each shot: its bytes are written once for all of them, and they
            stay on one side of a split.

    Raises:
        ValueError: If the folder holds clips of another listing.
    """
    out = Path(out)
    about = {
        "format": FORMAT,
        "layout": listing.layout,
        "in_place": in_place,
        "listing": digest([_plain(clip) for clip in listing.clips] + [listing.missing]),
    }
    if scene_cuts is not None:
        about["scene_cuts"] = scene_cuts.id
    _check_same(out, about)
    (out / "shards").mkdir(parents=True, exist_ok=True)
    write_json(out / ABOUT, about)
    if not (out / INDEX).is_file():
        journaled = _recover(out)
        done = [row for rows in journaled for row in rows]
        shards = None if in_place else Shards(out / "shards", shard_bytes, done)
        places = {row["source"]: row["place"] for row in done if "place" in row}
        dropped = sum("reason" in row for row in done)
        with (out / JOURNAL).open("a", encoding="utf-8") as journal:
            left = listing.clips[len(journaled) :]
            for number, (clip, found) in enumerate(_probed(left, num_threads, scene_cuts), 1):
                if isinstance(found, str):
                    rows: list[dict[str, Any]] = [{"name": clip.name, "reason": found}]
                else:
                    rows = _rows(clip, found, shards, places)
                dropped += sum("reason" in row for row in rows)
                journal.write(json.dumps(rows) + "\n")
                journal.flush()
                done += rows
                if report is not None:
                    report(len(journaled) + number, len(listing.clips), dropped)
        if shards is not None:
            shards.close()
        _finish(out, done, listing.missing)
    with (out / QUARANTINE).open(encoding="utf-8") as file:
        lost = sum(1 for _ in file)
    with (out / INDEX).open(encoding="utf-8") as file:
        return Ingested(sum(1 for _ in file), lost)


def _plain(clip: Listed) -> dict[str, Any]:
    return {**asdict(clip), "path": str(clip.path)}


def _check_same(out: Path, about: dict[str, Any]) -> None:
    """Refuse a folder that is of something else."""
    if not (out / ABOUT).is_file():
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"got {out}, expected a new or empty folder, or one to go on with")
        return
    before = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    if before != about:
        every = [*about, *before]
        changed = next(key for key in every if before.get(key) != about.get(key))
        raise ValueError(f"{out}: holds clips of another {changed}, expected a new folder")


def _recover(out: Path) -> list[list[dict[str, Any]]]:
    """Rows of each clip that is done; a line that was not written to its end is taken back."""
    path = out / JOURNAL
    if not path.is_file():
        return []
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    with path.open("r+b") as file:
        file.truncate(len(whole))
    done = [json.loads(line) for line in whole.splitlines()]
    return [rows if isinstance(rows, list) else [rows] for rows in done]  # older ones have one row


def _rows(
    clip: Listed, found: dict[str, Any], shards: Shards | None, places: dict[str, Any]
) -> list[dict[str, Any]]:
    """Lines of the index: one, or one for each shot. What it is cut into is written once."""
    shots = found.pop("shots", [])
    source, place = _place(clip, shards, places)
    places[source] = place

    def row(one: Listed, found: Mapping[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in _plain(one).items() if k not in ("path", "part")}
        return {**kept, "source": source, "place": place, **found}

    inside = _inside(clip, shots, found)
    if len(inside) < 2:
        return [row(clip, found)]
    rows: list[dict[str, Any]] = []
    for number, (start, end, count) in enumerate(inside):
        name = f"{clip.name}/{number}"
        if count < 2:
            rows.append({"name": name, "reason": f"a shot of {count} frame, expected at least 2"})
            continue
        shot = replace(clip, name=name, start=start, end=end, group=clip.group or clip.name)
        rows.append(row(shot, {**found, "frames": count}))
    return rows


def _inside(
    clip: Listed, shots: list[tuple[int, int]], found: Mapping[str, Any]
) -> list[tuple[float, float | None, int]]:
    """Beginning, end and number of frames of the shots in a clip's place."""
    times = VideoIndex(tuple(found["pts"]), (), Fraction(found["time_base"])).times
    last = float("inf") if clip.end is None else clip.end
    parts = []
    for first, stop in shots:
        numbers = [k for k in range(first, stop) if clip.start <= times[k] < last]
        if numbers:
            is_last = numbers[-1] + 1 == len(times)
            end = clip.end if is_last else min(times[numbers[-1] + 1], last)
            parts.append((times[numbers[0]], end, len(numbers)))
    return parts


def _place(
    clip: Listed, shards: Shards | None, places: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """What a clip's bytes are called, and where they are now; they are written once."""
    source = f"{clip.path}:{clip.part[0]}" if clip.part else str(clip.path)
    if source in places:
        place = places[source]
    elif shards is None:
        first, count = clip.part or (0, clip.path.stat().st_size)
        place = {"file": str(clip.path.resolve()), "first": first, "bytes": count}
        place["sha256"] = _copy(clip, None)
    else:
        place = shards.add(clip)
    return source, place


def _copy(clip: Listed, to: BinaryIO | None) -> str:
    """Copy a clip's bytes; returns their hash."""
    first, count = clip.part or (0, clip.path.stat().st_size)
    hashed = hashlib.sha256()
    with FilePart(clip.path, first, count) as file:
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
            if to is not None:
                to.write(chunk)
    return hashed.hexdigest()


class Shards:
    """Tar files that grow clip by clip.

    Args:
        folder: Where they lie.
        most: A shard is ended by the clip that makes it larger than this many bytes.
        done: Lines of the journal; what is behind the last of them in its shard is cut off.
    """

    def __init__(self, folder: Path, most: int, done: list[dict[str, Any]]) -> None:
        self.folder, self.most = folder, most
        places = [row["place"] for row in done if "place" in row]
        last = max(places, key=lambda place: (place["file"], place["first"]), default=None)
        self.number = int(Path(last["file"]).stem) if last else 0
        self._open()
        self._file.truncate(_padded(last["first"] + last["bytes"]) if last else 0)
        self._file.seek(0, os.SEEK_END)

    def _open(self) -> None:
        path = self.folder / f"{self.number:05d}.tar"
        self._file = path.open("r+b" if path.is_file() else "w+b")

    def add(self, clip: Listed) -> dict[str, Any]:
        """Append a clip's files; returns where its bytes are."""
        if self._file.tell() > self.most:
            self.close()
            self.number += 1
            self._open()
        suffix = Path(clip.name).suffix or clip.path.suffix
        key = digest(clip.name)[:20]  # a name may have dots and slashes, which end a key
        texts = {"txt": "\n".join(clip.captions), "json": json.dumps({"name": clip.name})}
        for kind, text in texts.items():
            self._member(f"{key}.{kind}", len(text.encode()))
            self._file.write(text.encode())
            self._pad()
        count = clip.part[1] if clip.part else clip.path.stat().st_size
        self._member(f"{key}{suffix}", count)
        first = self._file.tell()
        sha256 = _copy(clip, self._file)
        if self._file.tell() - first != count:
            raise OSError(f"{clip.path}: changed while it was read")
        self._pad()
        self._file.flush()
        name = f"{self.folder.name}/{self.number:05d}.tar"
        return {"file": name, "first": first, "bytes": count, "sha256": sha256}

    def _member(self, name: str, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        self._file.write(info.tobuf(tarfile.PAX_FORMAT))

    def _pad(self) -> None:
        end = self._file.tell()
        self._file.write(bytes(_padded(end) - end))

    def close(self) -> None:
        """End the shard as a tar file ends."""
        self._file.write(bytes(2 * BLOCK))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _finish(out: Path, done: list[dict[str, Any]], missing: list[str]) -> None:
    """Write what a whole folder has, the index last."""
    lost = [row for row in done if "reason" in row]
    lost += [{"name": name, "reason": "its file is not there"} for name in missing]
    write_text(out / QUARANTINE, [json.dumps(row) for row in lost])
    kept = [{k: v for k, v in row.items() if k != "source"} for row in done if "place" in row]
    write_text(out / INDEX, [json.dumps(row) for row in kept])
    (out / JOURNAL).unlink(missing_ok=True)
