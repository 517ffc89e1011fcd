"""Clips of an ingested folder as samples: only the frames that a sample needs are decoded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import Dataset

from vdm.data.buckets import Bucket, choose_bucket
from vdm.data.check import Verdict
from vdm.data.datasets import ClipSample
from vdm.data.frame_cache import FrameCache
from vdm.data.ingest import ABOUT, FORMAT, INDEX
from vdm.data.video_folder import choose_frames, held_out
from vdm.utils.video_io import from_uint8
from vdm.utils.video_reader import VideoIndex, VideoReader
from vdm.world.philox import Words


class IngestedClips(Dataset[ClipSample]):
    """One sample per clip and pass, from a start drawn by (seed, pass, clip).

    A key beyond the length is the same clip in a later pass, with another start and, where a clip
    has several captions, another of them. Frames are scaled to cover the size, and the centre is
    cropped.

    Args:
        folder: What ``vdm data ingest`` made.
        num_frames: Frames per sample.
        size: Height and width in pixels.
        fps: Frames per second, taken by time stamps; by default as in each clip.
        seed: Chooses starts and captions; none takes the first of each.
        split: Only clips of this split of the listing, e.g. ``train`` or ``test01``.
        part: All clips, or those to train on, or those held out; footage stays together.
        val_share: Share that is held out, chosen by names.
        buckets: Shapes, instead of one: every clip takes the one in which least of it is lost.
        cache: Keeps the frames of whole videos at the wanted size; none decodes for every sample.

    Attributes:
        clips: Lines of the index that are used.
        groups: For every bucket the numbers of its clips.
        dropped: Those that are not, with reasons.

    Raises:
        ValueError: If the folder is not a whole ingest, or no clip is left.
    """

    def __init__(
        self,
        folder: str | Path,
        num_frames: int = 16,
        size: tuple[int, int] = (64, 64),
        fps: float | None = None,
        seed: int | None = 0,
        split: str | None = None,
        part: Literal["all", "train", "val"] = "all",
        val_share: float = 0.1,
        buckets: Sequence[Bucket] = (),
        cache: FrameCache | None = None,
    ) -> None:
        self.cache = cache
        self.folder = Path(folder)
        self.buckets = list(buckets) or [Bucket(num_frames, *size)]
        self.fps, self.seed = fps, seed
        rows = read_index(self.folder)
        names = sorted({name for row in rows for name in row["split"].split(",") if name})
        if split is not None:
            rows = [row for row in rows if split in row["split"].split(",")]
            if not rows:
                raise ValueError(f"got split {split!r}, expected one of {', '.join(names) or None}")
        shapes = {row["name"]: self._bucket(row) for row in rows}
        least = min(bucket.num_frames for bucket in self.buckets)
        self.dropped = [
            Verdict(row["name"], False, f"too short: {self._length(row)} frames, expected {least}")
            for row in rows
            if shapes[row["name"]] is None
        ]
        self.clips = [row for row in rows if shapes[row["name"]] is not None]
        groups = {row["name"]: row["group"] or row["name"] for row in self.clips}
        out = held_out(list(groups.values()), val_share)
        sides = {"all": (True, False), "train": (False,), "val": (True,)}[part]
        self.clips = [row for row in self.clips if (groups[row["name"]] in out) in sides]
        if not self.clips:
            raise ValueError(f"no clip of {folder} is left: {len(self.dropped)} are too short")
        self.shapes = [shapes[row["name"]] for row in self.clips]
        self.groups = [
            [index for index, shape in enumerate(self.shapes) if shape == number]
            for number in range(len(self.buckets))
        ]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int) -> ClipSample:
        epoch, index = divmod(key, len(self.clips))
        row = self.clips[index]
        place, at = row["place"], _index_of(row)
        where = (place["first"], place["bytes"])
        path = self.folder / place["file"]
        words = Words("sample", self.seed or 0, epoch, row["name"])
        begin, times = _times(row, at)

        def draw(count: int) -> int:
            return 0 if self.seed is None else words.below(count)

        shape = self.buckets[self.shapes[index]]  # type: ignore[index]
        numbers = choose_frames(times, shape.num_frames, self.fps, draw)
        size = (shape.height, shape.width)
        numbers = [begin + number for number in numbers]
        if self.cache is not None:
            video = self.cache.video(path, where, place["sha256"], at, size)
            frames = torch.from_numpy(video[numbers])
        else:
            with VideoReader(path, size, threads=1, part=where, index=at) as reader:
                frames = torch.from_numpy(reader.read(numbers))
        said = row["captions"]
        caption = said[draw(len(said))] if said else ""
        return {"video": from_uint8(frames), "caption": caption, "index": index}

    def _bucket(self, row: dict[str, Any]) -> int | None:
        """The shape that a clip takes, if it is long enough for any."""
        have = self._length(row)
        return choose_bucket(self.buckets, have, row["height"], row["width"])

    def _length(self, row: dict[str, Any]) -> int:
        """Frames that a clip gives at the wanted rate."""
        _, times = _times(row, _index_of(row))
        if not self.fps:
            return len(times)
        return int((times[-1] - times[0]) * self.fps + 1e-6) + 1


def is_ingested(folder: str | Path) -> bool:
    """Whether a folder is what ``vdm data ingest`` makes."""
    return (Path(folder) / ABOUT).is_file()


def read_index(folder: Path) -> list[dict[str, Any]]:
    """Lines of the index.

    Raises:
        ValueError: If the folder is not a whole ingest.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"got format {about['format']}, expected {FORMAT}")
        lines = (folder / INDEX).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder}: not a whole ingest, {Path(error.filename).name} is not there; vdm data "
            "ingest goes on with it"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: not an ingest: {error}") from error


def _index_of(row: dict[str, Any]) -> VideoIndex:
    return VideoIndex(tuple(row["pts"]), tuple(row["keys"]), Fraction(row["time_base"]))


def _times(row: dict[str, Any], index: VideoIndex) -> tuple[int, list[float]]:
    """Number of the first frame of a clip's place in its video, and when its frames are shown."""
    times = index.times
    end = float("inf") if row["end"] is None else row["end"]
    inside = [number for number, time in enumerate(times) if row["start"] <= time < end]
    return inside[0], [times[number] for number in inside]
