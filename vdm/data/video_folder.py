"""Clips of a folder of video files as samples; bad files are named, left out, never replaced."""

from __future__ import annotations

import hashlib
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
        self.clips = clips if part == "all" else _part(clips, part, val_share)
        if not self.clips:
            raise ValueError(f"no clip of {folder} is left to {part}: it has {len(clips)}")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int) -> ClipSample:
        epoch, index = divmod(key, len(self.clips))
        clip = self.clips[index]
        with VideoReader(self.folder / clip.name, self.size, threads=1) as reader:
            frames = torch.from_numpy(reader.read(self._frames(reader, epoch, clip.name)))
        return {"video": from_uint8(frames), "caption": clip.caption, "index": index}

    def _frames(self, reader: VideoReader, epoch: int, name: str) -> list[int]:
        """Numbers of the frames of a sample."""
        times = reader.index.times
        step = 1 / self.fps if self.fps else 0.0
        last = times[-1] - (self.num_frames - 1 - 2e-6) * step  # no less forgiving than _fits
        starts = len(reader) - self.num_frames + 1 if not step else sum(t <= last for t in times)
        start = 0 if self.seed is None else Words("start", self.seed, epoch, name).below(starts)
        if not step:
            return list(range(start, start + self.num_frames))
        wanted = (times[start] + k * step + 1e-6 for k in range(self.num_frames))
        return [reader.index.frame_at(time) for time in wanted]

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


def _part(clips: list[Verdict], part: str, val_share: float) -> list[Verdict]:
    """Split by name, so that a file keeps its side while others come and go beside it.

    Of two files or more at least one is held out, unless the share is 0.
    """
    if not 0 <= val_share < 1:
        raise ValueError(f"got {val_share=}, expected 0 or more and less than 1")

    def rank(clip: Verdict) -> float:
        name = hashlib.blake2b(clip.name.encode(), digest_size=8).digest()
        return int.from_bytes(name, "little") / 2**64

    held_out = [clip for clip in clips if rank(clip) < val_share]
    if not held_out and val_share > 0 and len(clips) > 1:
        held_out = [min(clips, key=rank)]
    return held_out if part == "val" else [clip for clip in clips if clip not in held_out]
