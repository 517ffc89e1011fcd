"""How single frames are got out of a video file exactly: an index of time stamps, seeks to keys.

Nothing here trusts the header's frame count or rate times number: a frame is its presentation time
stamp. PyAV (FFmpeg) does the decoding and is imported when first needed.
"""

from __future__ import annotations

import io
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

RESIZE_RULE = "swscale-area-cover-centre-crop/1"
"""Names how frames are resized, for cache keys and protocol ids."""


@dataclass(frozen=True)
class VideoIndex:
    """When the frames of a file are shown, in presentation order.

    Args:
        pts: Time stamp of every frame, in units of ``time_base``.
        key_pts: Time stamps at which decoding can begin.
        time_base: Seconds per unit.
    """

    pts: tuple[int, ...]
    key_pts: tuple[int, ...]
    time_base: Fraction

    @property
    def times(self) -> list[float]:
        """When each frame is shown, in seconds after the first."""
        return [float((pts - self.pts[0]) * self.time_base) for pts in self.pts]

    @property
    def fps(self) -> float:
        """Mean frames per second; 0 for a single frame."""
        if len(self.pts) < 2:
            return 0.0
        return float((len(self.pts) - 1) / ((self.pts[-1] - self.pts[0]) * self.time_base))

    def frame_at(self, seconds: float) -> int:
        """The frame that is on screen at a time after the first frame."""
        wanted = self.pts[0] + Fraction(seconds).limit_denominator(10**6) / self.time_base
        return max(0, bisect_right(self.pts, wanted) - 1)


class FilePart(io.RawIOBase):
    """Some bytes of a file as a file: a member of an archive, without unpacking it.

    Args:
        path: The file.
        first: Number of the first byte.
        count: How many there are.
    """

    def __init__(self, path: Path, first: int, count: int) -> None:
        self._whole = path.open("rb")
        self._first, self._count, self._at = first, count, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte of the part."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._count}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read on, up to the end of the part."""
        view = memoryview(buffer)[: max(0, self._count - self._at)]
        self._whole.seek(self._first + self._at)
        count = self._whole.readinto(view)
        self._at += count
        return count

    def close(self) -> None:
        """Let go of the file."""
        self._whole.close()
        super().close()


class VideoReader:
    """Random access to the frames of one file.

    Args:
        path: The file.
        size: Height and width of the frames; by default as in the file. The picture is scaled to
            cover the size, by area averaging, and its centre is cropped.
        threads: Decoding threads; 0 leaves it to FFmpeg. Use 1 inside data-loader workers.
        part: First byte and number of bytes, if the video is only a part of the file.
        index: What an earlier look at the same video found; spares this one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no video that can be decoded; the message is one line.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int] | None = None,
        threads: int = 0,
        part: tuple[int, int] | None = None,
        index: VideoIndex | None = None,
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self.path, self.size, self.threads, self.part = Path(path), size, threads, part
        self._reformatter = VideoReformatter()
        if not self.path.is_file():
            raise FileNotFoundError(f"no such file: {self.path}")
        if (part[1] if part else self.path.stat().st_size) == 0:
            raise ValueError(f"{self.path.name}: empty file (0 bytes)")
        self._open()
        try:
            with _one_line(self.path):
                self.index = index or self._index_packets() or self._index_frames()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.index.pts)

    @property
    def fps(self) -> float:
        """Mean frames per second, from the time stamps."""
        return self.index.fps

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return self._stream.codec_context.name

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of a frame as coded, before rotation and resizing."""
        return self._stream.codec_context.height, self._stream.codec_context.width

    def damage(self) -> str | None:
        """Decode everything and say what is wrong with it, if anything; slow.

        The header may be off by a few frames in a sound file, so only a larger lack counts.
        """
        self._reopen()
        decoded: set[int | None] = set()
        error = ""
        try:
            with _one_line(self.path):
                decoded.update(frame.pts for frame in self._frames() if not frame.is_corrupt)
        except ValueError as caught:
            error = f": {str(caught).removeprefix(f'{self.path.name}: ')}"
        lost = len(self) - len(decoded.intersection(self.index.pts))
        if lost or error:
            return f"damaged: {len(self) - lost} of {len(self)} frames decode{error}"
        if self.codec == "gif" and self._last_byte() != b";":  # says no length
            return f"truncated: the file ends after frame {len(self)} without its end mark"
        frames, seconds, slack = self._promised()
        if frames - len(self) > max(3, frames // 20):
            return f"truncated: {len(self)} of {frames} frames are there"
        covered = self.index.times[-1] + 1 / (self.fps or 1)
        least = 0.75 if self._container.format.name == "asf" else 3 / (self.fps or 1)
        if seconds - covered > max(least, slack * seconds):  # asf counts its preroll
            return f"truncated: {covered:.1f} of {seconds:.1f} seconds are there"
        return None

    def _last_byte(self) -> bytes:
        first, count = self.part or (0, self.path.stat().st_size)
        with self.path.open("rb") as file:
            file.seek(first + count - 1)
            return file.read(1)

    def _promised(self) -> tuple[int, float, float]:
        """Frames and seconds that the header speaks of (0: not said), share that may be missing."""
        stream, container = self._stream, self._container
        if stream.duration:
            return stream.frames, float(stream.duration * self._time_base), 0.05
        alone = len(container.streams) == 1  # otherwise it may be the sound that is longer
        return stream.frames, (container.duration or 0) / 1e6, 0.05 if alone else 0.2

    @property
    def metadata(self) -> dict[str, Any]:
        """What :func:`vdm.utils.video_io.write_video` noted in the file; empty for other files."""
        tags = {name.lower(): text for name, text in self._container.metadata.items()}
        return parse_comment(tags.get("comment", ""))

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()
        if self._file is not None:
            self._file.close()

    def read(self, frames: Sequence[int]) -> UInt8[np.ndarray, "t h w 3"]:
        """Decode the frames with these numbers, in this order; repeats are allowed.

        Raises:
            ValueError: If a number does not exist or its frame does not decode.
        """
        if not frames or not all(0 <= frame < len(self) for frame in frames):
            wrong = next((frame for frame in frames if not 0 <= frame < len(self)), "none")
            raise ValueError(f"{self.path.name}: got frame {wrong}, expected 0 to {len(self) - 1}")
        wanted = {self.index.pts[frame] for frame in frames}
        with _one_line(self.path):
            decoded = self._decode(wanted)
        if missing := wanted - decoded.keys():
            number = self.index.pts.index(min(missing))
            raise ValueError(f"{self.path.name}: frame {number} of {len(self)} does not decode")
        return np.stack([decoded[self.index.pts[frame]] for frame in frames])

    def _open(self) -> None:
        import av

        with _one_line(self.path):
            self._file = None if self.part is None else FilePart(self.path, *self.part)
            self._container: InputContainer = av.open(self._file or str(self.path), "r")
        try:
            self._stream = self._pick_stream()
            self._stream.codec_context.thread_count = self.threads
            self._stream.thread_type = "AUTO" if self.threads != 1 else "NONE"
        except BaseException:
            self.close()
            raise

    def _pick_stream(self) -> VideoStream:
        from av.stream import Disposition

        for stream in self._container.streams.video:
            if stream.disposition & Disposition.attached_pic:
                continue
            if stream.codec_context is None:
                raise ValueError(f"{self.path.name}: no decoder for its codec")
            return stream
        kinds = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
        raise ValueError(f"{self.path.name}: no video in it, only {kinds}")

    def _index_packets(self) -> VideoIndex | None:
        """Time stamps without decoding; nothing where packets do not tell them."""
        if self._container.format.name == "mpeg":  # marks all packets with a stamp as key frames
            return None
        pts, keys = [], []
        for packet in self._container.demux(self._stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.pts is None:
                return None
            pts.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
        if len(set(pts)) != len(pts) or not keys:
            return None
        return VideoIndex(tuple(sorted(pts)), tuple(sorted(keys)), self._time_base)

    def _index_frames(self) -> VideoIndex:
        """Time stamps by decoding everything."""
        self._reopen()
        frames = [(frame.pts, frame.key_frame) for frame in self._frames()]
        pts = sorted({pts for pts, _ in frames if pts is not None})
        if not pts:
            raise ValueError(f"{self.path.name}: no frame of its video decodes")
        keys = sorted({pts for pts, is_key in frames if is_key and pts is not None} | {pts[0]})
        return VideoIndex(tuple(pts), tuple(keys), self._time_base)

    def _frames(self, first: int | None = None) -> Iterator[VideoFrame]:
        """Decode on from where the container is.

        Empty packets (Theora's way to repeat a frame) are left out: the decoder takes them for the
        end.

        Args:
            first: Frames before this time stamp are not wanted: those that no other frame leans on
                are passed over.
        """
        for packet in self._container.demux(self._stream):
            if packet.size:
                if first is not None:
                    is_early = packet.pts is not None and packet.pts < first
                    self._stream.codec_context.skip_frame = "NONREF" if is_early else "DEFAULT"
                yield from packet.decode()
        yield from self._stream.codec_context.decode(None)

    @property
    def _time_base(self) -> Fraction:
        return Fraction(self._stream.time_base or 1)

    def _reopen(self) -> None:
        self.close()
        self._open()

    def _decode(self, wanted: set[int]) -> dict[int, np.ndarray]:
        """Decode the groups of pictures that hold the wanted time stamps, each once."""
        keys = self.index.key_pts
        groups: dict[int, set[int]] = {}
        for pts in wanted:
            groups.setdefault(max(0, bisect_right(keys, pts) - 1), set()).add(pts)
        found: dict[int, np.ndarray] = {}
        for group in sorted(groups):
            if self._seek(keys[group]):
                found |= self._decode_until(groups[group], from_start=False)
        if missing := wanted - found.keys():  # seeks in this container are not exact
            self._reopen()
            found |= self._decode_until(missing, from_start=True)
        return found

    def _seek(self, pts: int) -> bool:
        """Go to a key frame; false where the container does not allow it."""
        import av

        try:
            self._container.seek(pts, backward=True, stream=self._stream)
        except av.FFmpegError:
            return False
        return True

    def _decode_until(self, wanted: set[int], from_start: bool) -> dict[int, np.ndarray]:
        """Decode on until every wanted frame was seen or passed.

        After a seek, frames before the first key frame lean on frames that were not decoded.
        """
        found: dict[int, np.ndarray] = {}
        last, is_whole = max(wanted), from_start
        for frame in self._frames(None if from_start else min(wanted)):
            is_whole = is_whole or frame.key_frame
            if is_whole and frame.pts in wanted:
                found[frame.pts] = self._convert(frame)
            if len(found) == len(wanted) or (frame.pts is not None and frame.pts > last):
                break
        return found

    def _convert(self, frame: VideoFrame) -> np.ndarray:
        """To RGB, upright, of the wanted size."""
        from av.video.reformatter import Interpolation

        turns = round(frame.rotation / 90) % 4  # counterclockwise, as numpy counts
        coded = (frame.height, frame.width)
        inner = coded if self.size is None else self.size if turns % 2 == 0 else self.size[::-1]
        scale = max(inner[0] / coded[0], inner[1] / coded[1])
        height, width = (max(n, round(m * scale)) for n, m in zip(inner, coded, strict=True))
        how = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        rgb = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation=how
        ).to_ndarray()
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        return np.rot90(rgb[top : top + inner[0], left : left + inner[1]], turns)


def parse_comment(text: str) -> dict[str, Any]:
    """The JSON object in a comment; empty if it is something else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn what the decoder raises into one line that names the file."""
    import av

    try:
        yield
    except (av.FFmpegError, EOFError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{path.name}: not a readable video ({text})") from error
