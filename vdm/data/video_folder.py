"""Clips of a folder of video files as samples; bad files are named, left out, never replaced."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import Dataset

from vdm.data.check import Verdict, check_folder
from vdm.data.datasets import ClipSample
from vdm.utils.video_io import from_uint8
from vdm.utils.video_reader import VideoReader
from vdm.world.philox import Words


class VideoFolder(Dataset[ClipSample]):
    """One clip per file and pass, from a start drawn by (seed, pass, file).

    A key beyond the length is the same file in a later pass, with another start. Captions are the
    ``.txt`` files of the same name. Frames are scaled to cover the size, and the centre is cropped.

    Args:
        folder: Searched to any depth.
        num_frames: Frames per clip.
        size: Height and width in pixels.
        fps: Frames per second, taken by time stamps; by default as in each file.
        seed: Chooses the starts; none always starts at the first frame.
        part: All files, or those to train on, or those held out.
        val_share: Share of the files that is held out, chosen by their names.
        memory: File that remembers which files were sound, so that each is decoded once.

    Attributes:
        clips: The files that are used.
        dropped: The files that are not, with reasons.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If no clip is left.
    """

    def __init__(
        self,
        folder: str | Path,
        num_frames: int = 16,
        size: tuple[int, int] = (64, 64),
        fps: float | None = None,
        seed: int | None = 0,
        part: Literal["all", "train", "val"] = "all",
        val_share: float = 0.1,
        memory: str | Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.num_frames, self.size, self.fps, self.seed = num_frames, size, fps, seed
        verdicts = [self._fits(verdict) for verdict in check_folder(folder, memory=memory)]
        self.dropped = [verdict for verdict in verdicts if not verdict.kept]
        clips = [verdict for verdict in verdicts if verdict.kept]
        if not clips:
            first = f", the first because {self.dropped[0].reason}" if self.dropped else ""
            raise ValueError(f"no clip in {folder}: {len(self.dropped)} files dropped{first}")
        out = held_out([clip.name for clip in clips], val_share)
        sides = {"all": (True, False), "train": (False,), "val": (True,)}[part]
        self.clips = [clip for clip in clips if (clip.name in out) in sides]
        if not self.clips:
            raise ValueError(f"no clip of {folder} is left to {part}: it has {len(clips)}")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int) -> ClipSample:
        epoch, index = divmod(key, len(self.clips))
        clip = self.clips[index]
        with VideoReader(self.folder / clip.name, self.size, threads=1) as reader:
            numbers = self._frames(reader.index.times, epoch, clip.name)
            frames = torch.from_numpy(reader.read(numbers))
        return {"video": from_uint8(frames), "caption": clip.caption, "index": index}

    def _frames(self, times: list[float], epoch: int, name: str) -> list[int]:
        """Numbers of the frames of a sample."""

        def draw(count: int) -> int:
            return 0 if self.seed is None else Words("start", self.seed, epoch, name).below(count)

        return choose_frames(times, self.num_frames, self.fps, draw)

    def _fits(self, verdict: Verdict) -> Verdict:
        """Drop what is too short for one clip."""
        if not verdict.kept:
            return verdict
        have = verdict.num_frames
        if self.fps:
            have = int((verdict.num_frames - 1) / verdict.fps * self.fps + 1e-6) + 1
        if have >= self.num_frames:
            return verdict
        return Verdict(verdict.name, False, f"too short: {have} frames, expected {self.num_frames}")


def choose_frames(
    times: Sequence[float], num_frames: int, fps: float | None, draw: Callable[[int], int]
) -> list[int]:
    """Numbers of the frames of a sample.

    Args:
        times: When the frames are shown, in seconds.
        num_frames: How many are wanted.
        fps: Frames per second, or every frame.
        draw: ``draw(count)`` chooses one of ``count`` starts.
    """
    if not fps:
        start = draw(len(times) - num_frames + 1)
        return list(range(start, start + num_frames))
    last = times[-1] - (num_frames - 1 - 2e-6) / fps  # no less forgiving than who counts frames
    start = draw(sum(time <= last for time in times))
    wanted = (times[start] + k / fps + 1e-6 for k in range(num_frames))
    return [bisect_right(times, time) - 1 for time in wanted]


def held_out(names: Sequence[str], share: float) -> set[str]:
    """Names to hold out, each by itself, so that it keeps its side while others come and go.

    Of two names or more at least one is held out, unless the share is 0.

    Raises:
        ValueError: If the share is not one.
    """
    if not 0 <= share < 1:
        raise ValueError(f"got val_share={share}, expected 0 or more and less than 1")

    def rank(name: str) -> float:
        hashed = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return int.from_bytes(hashed, "little") / 2**64

    out = {name for name in names if rank(name) < share}
    if not out and share > 0 and len(set(names)) > 1:
        out = {min(names, key=rank)}
    return out
