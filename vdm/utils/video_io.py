"""How clips get in and out of files: whole clips, common containers, and their origin inside.

Frames are uint8 RGB, ``t h w 3``. A file is written under a temporary name and renamed when whole.
What a clip is (prompt, seed, configuration, hashes) goes into the file as JSON and can be read
again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from vdm.utils.video_reader import VideoIndex, VideoReader, parse_comment
from vdm.utils.video_writer import CODECS, Codec, Encoder
from vdm.utils.video_writer import rate as exact_rate

Frames = UInt8[Tensor, "t h w 3"]


def from_uint8(frames: UInt8[Tensor, "*b t h w 3"]) -> Float[Tensor, "*b 3 t h w"]:
    """Frames with values 0 to 255, channels last, as video in [-1, 1], channels first."""
    return torch.movedim(frames, -1, -4).to(torch.float32) / 127.5 - 1


def to_uint8(video: Float[Tensor, "*b 3 t h w"]) -> UInt8[Tensor, "*b t h w 3"]:
    """Video in [-1, 1] as frames with values 0 to 255: clamped, then rounded once, half to even.

    The inverse of :func:`from_uint8`.
    """
    levels = (video.to(torch.float32).clamp(-1, 1) + 1) * 127.5
    return torch.movedim(levels.round().to(torch.uint8), -4, -1)


def read_video(
    path: str | Path,
    *,
    start: int = 0,
    num_frames: int | None = None,
    stride: int = 1,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    threads: int = 0,
) -> tuple[Frames, float]:
    """Read a clip.

    Args:
        path: Any file that FFmpeg decodes, or an .npz of :func:`write_video`.
        start: Number of the first frame.
        num_frames: Number of frames; by default up to the end.
        stride: Take every ``stride``-th frame.
        fps: Take the frames that are on screen at this rate, by their time stamps; replaces
            ``stride``.
        size: Height and width of the result, covered and centre-cropped; by default as in the file.
        threads: Decoding threads; 0 leaves it to FFmpeg.

    Returns:
        Frames, and their rate in frames per second.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no video or too short; the message is one line.
    """
    if start < 0 or stride < 1 or (num_frames is not None and num_frames < 1):
        raise ValueError(f"got {start=}, {stride=}, {num_frames=}, expected at least 0, 1 and 1")
    path = Path(path)
    if path.suffix.lower() == ".npz":
        if size is not None:
            raise ValueError(
                f"{path.name}: got {size=}, expected none: stored frames are not resized"
            )
        frames, rate, _ = _read_npz(path)
        index = VideoIndex(tuple(range(len(frames))), (0,), 1 / exact_rate(rate))
        chosen = _choose(index, start, num_frames, stride, fps, path.name)
        return torch.from_numpy(frames[chosen]), fps or rate / stride
    with VideoReader(path, size, threads) as reader:
        chosen = _choose(reader.index, start, num_frames, stride, fps, path.name)
        frames, rate, about = reader.read(chosen), reader.fps, reader.metadata
    if size is None and {"height", "width"} <= about.keys():  # odd sizes are padded when written
        frames = frames[:, : about["height"], : about["width"]]
    return torch.from_numpy(np.ascontiguousarray(frames)), fps or rate / stride


def write_video(
    frames: Frames | UInt8[np.ndarray, "t h w 3"],
    path: str | Path,
    fps: float = 8.0,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a clip in the format that the suffix names.

    ``.mp4`` (H.264), ``.webm`` (VP9), ``.gif``, ``.png`` (contact sheet: frames in reading order),
    and without any loss ``.mkv`` (FFV1) and ``.npz``.

    Args:
        frames: The clip.
        path: Where to; folders are made.
        fps: Frames per second.
        metadata: Plain data noted in the file, for :func:`read_metadata`.

    Returns:
        The path.

    Raises:
        ValueError: If the suffix is unknown, the clip is empty or the rate is not positive.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"got suffix {path.suffix!r}, expected one of {', '.join(_WRITERS)}")
    array = frames.cpu().numpy() if isinstance(frames, Tensor) else np.asarray(frames)
    if array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape or array.dtype != np.uint8:
        raise ValueError(
            f"got frames {array.shape} {array.dtype}, expected (t, h, w, 3) uint8, at least 1 frame"
        )
    if not fps > 0:
        raise ValueError(f"got {fps=}, expected more than 0")
    note = {
        **(metadata or {}),
        "fps": float(fps),
        "height": array.shape[1],
        "width": array.shape[2],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix.lower()}")
    try:
        writer(
            np.ascontiguousarray(array), temporary, float(fps), json.dumps(note, ensure_ascii=True)
        )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What :func:`write_video` noted in a file, with ``fps``, ``height`` and ``width``.

    Returns:
        The metadata; empty for a video of other origin.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read; the message is one line.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if path.suffix.lower() == ".npz":
        return _read_npz(path)[2]
    if path.suffix.lower() not in (".gif", ".png"):
        with VideoReader(path, threads=1) as reader:
            return reader.metadata
    try:
        with Image.open(path) as image:
            comment = image.info.get("comment", "")
    except UnidentifiedImageError as error:
        raise ValueError(f"{path.name}: not a readable image") from error
    return parse_comment(comment.decode() if isinstance(comment, bytes) else comment)


def contact_sheet(frames: UInt8[np.ndarray, "t h w 3"], gap: int = 2) -> UInt8[np.ndarray, "H W 3"]:
    """All frames in one picture, in reading order, as near a square as whole rows allow."""
    num_frames, height, width, _ = frames.shape
    columns = max(1, min(num_frames, round(math.sqrt(num_frames * height / width))))
    rows = -(-num_frames // columns)
    cells = np.full((rows * columns, height + gap, width + gap, 3), 255, np.uint8)
    cells[:num_frames, :height, :width] = frames
    sheet = rearrange(cells, "(rows columns) h w c -> (rows h) (columns w) c", rows=rows)
    return np.ascontiguousarray(sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap])


def _choose(
    index: VideoIndex, start: int, num_frames: int | None, stride: int, fps: float | None, name: str
) -> list[int]:
    """Numbers of the frames to read."""
    if fps is None:
        frames = list(range(start, len(index.pts), stride))
    elif start < len(index.pts):
        times = index.times
        count = math.floor((times[-1] - times[start]) * fps + 1e-6) + 1
        frames = [index.frame_at(times[start] + k / fps + 1e-6) for k in range(count)]
    else:
        frames = []
    if len(frames) < (num_frames or 1):
        expected = num_frames or 1
        raise ValueError(
            f"{name}: got {len(frames)} frames from number {start} on, expected {expected}"
        )
    return frames[:num_frames]


def _encode(codec: Codec) -> Callable[..., None]:
    """A writer by FFmpeg."""

    def write(frames: np.ndarray, path: Path, fps: float, comment: str) -> None:
        encoder = Encoder(path, codec, (frames.shape[1], frames.shape[2]), fps, comment)
        try:
            encoder.write(frames)
            encoder.finish()
        finally:
            encoder.close()

    return write


def _write_gif(frames: np.ndarray, path: Path, fps: float, comment: str) -> None:
    from PIL import Image

    ends = [round(100 * (k + 1) / fps) for k in range(len(frames))]  # the format counts 1/100 s
    shown = [10 * max(1, end - begin) for begin, end in pairwise([0, *ends])]
    clear = 255  # colours 0 to 254 are for the picture
    pictures = [Image.fromarray(frame).quantize(clear) for frame in frames]
    looks = [picture.convert("RGB").tobytes() for picture in pictures]
    is_marked = False
    for picture, (before, look) in zip(pictures[1:], pairwise(looks), strict=True):
        # Pillow drops a picture that equals the one before. So of a still run every other one gets
        # a pixel through which the one before is seen: not equal, but looking the same.
        is_marked = look == before and not is_marked
        if is_marked:
            picture.putpixel((0, 0), clear)
            picture.info["transparency"] = clear
    first, *rest = pictures
    first.save(
        path, save_all=True, append_images=rest, duration=shown, loop=0, comment=comment.encode()
    )


def _write_png(frames: np.ndarray, path: Path, fps: float, comment: str) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    del fps  # noted in the comment
    info = PngInfo()
    info.add_text("comment", comment)
    Image.fromarray(contact_sheet(frames)).save(path, pnginfo=info)


def _write_npz(frames: np.ndarray, path: Path, fps: float, comment: str) -> None:
    np.savez_compressed(path, frames=frames, fps=np.float64(fps), comment=np.array(comment))


def _read_npz(path: Path) -> tuple[np.ndarray, float, dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as content:
            frames, fps = content["frames"], float(content["fps"])
            about = parse_comment(str(content["comment"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path.name}: not a clip written by vdm ({error})") from error
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            f"{path.name}: got frames {frames.shape} {frames.dtype}, expected (t, h, w, 3) uint8"
        )
    return frames, fps, about


_WRITERS: dict[str, Callable[[np.ndarray, Path, float, str], None]] = {
    ".mp4": _encode(CODECS[".mp4"]),
    ".webm": _encode(CODECS[".webm"]),
    ".gif": _write_gif,
    ".png": _write_png,
    ".mkv": _encode(CODECS[".mkv"]),
    ".npz": _write_npz,
}

SUFFIXES = tuple(_WRITERS)
"""File formats that :func:`write_video` knows."""
