"""Which videos have been decoded already: their frames at one size, addressed by their content.

The key covers the bytes of the video, the size and how frames reach it, and the decoder: anything
else than that is another file, so a cache can be missed but never mistaken.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vdm.data.block_store import digest
from vdm.utils.video_reader import RESIZE_RULE, VideoIndex, VideoReader

FRAMES_VERSION = 1
"""Raised when the way from a video to its frames changes, the rule of resizing aside."""
CHUNK = 64
"""Frames that are decoded together: memory does not grow with the video."""


class FrameCache:
    """Frames of whole videos, decoded when they are first asked for.

    Args:
        root: Folder of all caches.
    """

    def __init__(self, root: str | Path) -> None:
        self.folder = Path(root) / "frames"

    def path(self, sha256: str, index: VideoIndex, size: tuple[int, int]) -> Path:
        """Where the frames of a video are, or would be."""
        import av

        key = {
            "version": FRAMES_VERSION,
            "bytes": sha256,
            "pts": digest([list(index.pts), str(index.time_base)]),
            "size": list(size),
            "resize": RESIZE_RULE,
            "decoder": {name: list(version) for name, version in av.library_versions.items()},
        }
        return self.folder / f"{digest(key)[:32]}.npy"

    def video(
        self,
        path: Path,
        part: tuple[int, int] | None,
        sha256: str,
        index: VideoIndex,
        size: tuple[int, int],
    ) -> UInt8[np.ndarray, "t h w 3"]:
        """All frames of a video, mapped into memory.

        Args:
            path: Its file.
            part: First byte and number of bytes, if the video is only a part of the file.
            sha256: Of its bytes.
            index: When its frames are shown.
            size: Height and width of the frames.
        """
        place, shape = self.path(sha256, index, size), (len(index.pts), *size, 3)
        if (found := _open(place, shape)) is not None:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        try:
            frames = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            with VideoReader(path, size, threads=1, part=part, index=index) as reader:
                for start in range(0, len(frames), CHUNK):
                    stop = min(start + CHUNK, len(frames))
                    frames[start:stop] = reader.read(range(start, stop))
            frames.flush()
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
        return np.load(place, mmap_mode="r")


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The frames in a file; nothing if it is not there or not whole."""
    try:
        frames = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return frames if frames.shape == shape and frames.dtype == np.uint8 else None
