"""How does a clip become a coded file, piece by piece, while the rest is still being made?"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class Codec:
    """How FFmpeg is to code frames.

    Args:
        name: The codec.
        pix_fmt: How it stores colours.
        options: Quality and speed.
    """

    name: str
    pix_fmt: str
    options: dict[str, str] = field(default_factory=dict)


CODECS = {
    ".mp4": Codec(
        "libx264",
        "yuv420p",
        {
            "crf": "14",
            "preset": "medium",
            "movflags": "+faststart",
            # x264's vector code for where to spend bits reads memory that nobody wrote, at some
            # sizes: the same frames would become different files.
            "x264-params": "cpu-independent=1",
        },
    ),
    ".webm": Codec(
        "libvpx-vp9", "yuv420p", {"crf": "18", "b": "0", "deadline": "good", "cpu-used": "2"}
    ),
    ".mkv": Codec("ffv1", "bgr0", {"level": "3"}),
}
"""Formats that frames can be appended to."""


def rate(fps: float) -> Fraction:
    """A rate as containers want it; 29.97 becomes 30000/1001."""
    return Fraction(fps).limit_denominator(1001)


class Encoder:
    """A coded file that is open.

    Args:
        path: Where to.
        codec: How.
        size: Height and width of the frames.
        fps: Frames per second.
        comment: Noted in the file.
    """

    def __init__(
        self, path: Path, codec: Codec, size: tuple[int, int], fps: float, comment: str
    ) -> None:
        import av
        from av.video.reformatter import ColorRange, Colorspace

        self._pix_fmt, self._count = codec.pix_fmt, 0
        self._subsampled = codec.pix_fmt == "yuv420p"
        self._container: OutputContainer = av.open(str(path), "w")
        self._container.metadata["comment"] = comment
        stream = self._container.add_stream(codec.name, rate=rate(fps), options=codec.options)
        self._stream = cast("VideoStream", stream)
        even = [n + n % 2 if self._subsampled else n for n in size]
        self._stream.height, self._stream.width = even
        self._stream.pix_fmt = codec.pix_fmt
        if self._subsampled:
            self._stream.codec_context.colorspace = Colorspace.SMPTE170M
            self._stream.codec_context.color_range = ColorRange.MPEG

    def write(self, frames: UInt8[np.ndarray, "t h w 3"]) -> None:
        """Append frames."""
        import av

        if self._subsampled:  # chroma has half the size: complete odd sizes by repeating the edge
            pad = [(0, n % 2) for n in frames.shape[1:3]]
            frames = np.pad(frames, ((0, 0), *pad, (0, 0)), mode="edge")
        for rgb in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame = frame.reformat(format=self._pix_fmt)
            frame.pts = self._count
            self._container.mux(self._stream.encode(frame))
            self._count += 1

    def finish(self) -> None:
        """Code what is still held back."""
        self._container.mux(self._stream.encode())

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()


class VideoWriter:
    """A clip that is written while it is made: its frames are coded as they come and not kept.

    A context. Like every clip, the file has a temporary name until it is whole; after an error
    nothing is left of it.

    Args:
        path: Where to: ``.mp4``, ``.webm`` or ``.mkv``; folders are made.
        fps: Frames per second.
        metadata: Plain data noted in the file.

    Raises:
        ValueError: If frames cannot be appended to the format, or the rate is not positive.
    """

    def __init__(
        self, path: str | Path, fps: float = 8.0, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in CODECS:
            raise ValueError(
                f"got suffix {self.path.suffix!r}, expected one of {', '.join(CODECS)}: "
                "the others are written whole"
            )
        if not fps > 0:
            raise ValueError(f"got {fps=}, expected more than 0")
        self._codec, self._fps, self._metadata = CODECS[suffix], float(fps), dict(metadata or {})
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}{suffix}")
        self._encoder: Encoder | None = None
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._encoder is None:
            return
        try:
            if kind is None:
                self._encoder.finish()
            self._encoder.close()
            if kind is None:
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def write(self, frames: UInt8[np.ndarray, "t h w 3"]) -> None:
        """Append frames, all of one size.

        Raises:
            ValueError: If they are of another size than the ones before.
        """
        size = (frames.shape[1], frames.shape[2])
        if self._encoder is None:
            note = {**self._metadata, "fps": self._fps, "height": size[0], "width": size[1]}
            comment = json.dumps(note, ensure_ascii=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._encoder = Encoder(self._temporary, self._codec, size, self._fps, comment)
            self._size = size
        if size != self._size:
            raise ValueError(f"got frames of size {size}, expected {self._size} as before")
        self._encoder.write(frames)
