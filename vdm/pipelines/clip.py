"""What generation gives back: frames, their rate, and where they came from."""

from __future__ import annotations

import base64
import html
import io
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from vdm import __version__
from vdm.types import Video
from vdm.utils.video_io import to_uint8, write_video

SUFFIXES = (".mp4", ".webm", ".gif", ".png", ".mkv", ".npz")
"""Formats of :meth:`Clip.save`; the last two are lossless."""
SHEET_FRAMES = 8
"""Most frames per sample on a contact sheet."""
PER_SAMPLE = ("prompt", "negative_prompt", "seed")
"""Metadata with one value per sample, or one for all."""


@dataclass(eq=False)
class Clip:
    """One or more clips of the same size.

    ``clip[k]`` is sample ``k`` alone, ``for one in clip`` goes through them, and a notebook plays
    them side by side.

    Args:
        frames: Pixels in [0, 1].
        fps: Frames per second.
        metadata: Where the clips came from; plain data.

    Raises:
        ValueError: If there is no frame or the rate is not positive.
    """

    frames: Float[Tensor, "b 3 t h w"]
    fps: float
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frames.ndim != 5 or 0 in self.frames.shape:
            raise ValueError(
                f"got frames {tuple(self.frames.shape)}, expected (b, 3, t, h, w), none of them 0"
            )
        if not self.fps > 0:
            raise ValueError(f"got fps={self.fps}, expected more than 0")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Clip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"got sample {index}, expected less than {len(self)}")
        k = index % len(self)
        chosen = {
            name: value[k] if name in PER_SAMPLE and isinstance(value, list) else value
            for name, value in self.metadata.items()
        }
        return Clip(self.frames[k : k + 1], self.fps, chosen)

    def __iter__(self) -> Iterator[Clip]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        b, _, t, h, w = self.frames.shape
        return f"Clip({b} x {t} frames of {h}x{w} at {self.fps:g} fps)"

    @property
    def seconds(self) -> float:
        """Length: every frame is shown for ``1 / fps`` seconds."""
        return self.frames.shape[2] / self.fps

    def uint8(self) -> UInt8[np.ndarray, "b t h w 3"]:
        """The frames as metrics take them: rounded once, half to even."""
        return to_uint8(2 * self.frames - 1).numpy()

    def save(self, path: str | Path) -> Path:
        """Write one file in the format that the suffix names.

        Several samples go side by side into the one file; ``clip[k].save(...)`` writes one alone.
        Prompt, seed, settings and hashes are noted in the file, for
        :func:`vdm.utils.video_io.read_metadata`.

        Args:
            path: ``.mp4``, ``.webm``, ``.gif``, ``.png`` (contact sheet), or without any loss
                ``.mkv`` and ``.npz``.

        Returns:
            The path.

        Raises:
            ValueError: If the suffix is unknown.
        """
        path, frames = Path(path), self.uint8()
        note = {"vdm": __version__, **self.metadata}
        if path.suffix.lower() == ".png":
            frames = np.stack([_spread(sample) for sample in frames])
            if len(frames) > 1:
                strips = np.stack([contact_strip(sample) for sample in frames])
                return write_video(strips, path, self.fps, note)
            return write_video(frames[0], path, self.fps, note)
        return write_video(tile(frames), path, self.fps, note)

    def data_url(self, suffix: str = ".gif", zoom: int = 1) -> str:
        """The clip as a ``data:`` address, to embed in a page.

        Args:
            suffix: ``.gif``, which plays everywhere, ``.webp``, which loses nothing, ``.mp4`` or
                ``.webm``.
            zoom: Every pixel becomes a square of this side.

        Raises:
            ValueError: If pages do not play the format.
        """
        kinds = {".gif": "image/gif", ".webp": "image/webp", ".mp4": "video/mp4"}
        kinds[".webm"] = "video/webm"
        if suffix not in kinds:
            raise ValueError(f"got suffix {suffix!r}, expected one of {', '.join(kinds)}")
        frames = tile(self.uint8()).repeat(zoom, axis=1).repeat(zoom, axis=2)
        if suffix == ".webp":
            data = _webp(frames, self.fps)
        else:
            with tempfile.TemporaryDirectory() as folder:
                file = write_video(frames, Path(folder) / f"clip{suffix}", self.fps)
                data = file.read_bytes()
        return f"data:{kinds[suffix]};base64,{base64.b64encode(data).decode()}"

    def _repr_html_(self) -> str:
        """A notebook plays the clip, embedded, at a visible size."""
        zoom = max(1, 192 // self.frames.shape[3])
        prompt = self.metadata.get("prompt") or ""
        words = prompt if isinstance(prompt, str) else " | ".join(prompt)
        words = html.escape(words, quote=True)
        address = self.data_url(".gif", zoom)
        return (
            f'<figure><img src="{address}" alt="{words}"><figcaption>{words}</figcaption></figure>'
        )


def tile(frames: UInt8[np.ndarray, "b t h w 3"], gap: int = 2) -> UInt8[np.ndarray, "t H W 3"]:
    """Samples side by side, as near a square as whole rows allow, with white between them.

    Args:
        frames: The samples.
        gap: Pixels between them.
    """
    b, t, h, w, _ = frames.shape
    columns = math.ceil(math.sqrt(b))
    rows = math.ceil(b / columns)
    cells = np.full((rows * columns, t, h + gap, w + gap, 3), 255, np.uint8)
    cells[:b, :, :h, :w] = frames
    grid = rearrange(cells, "(rows columns) t h w c -> t (rows h) (columns w) c", rows=rows)
    return np.ascontiguousarray(grid[:, : grid.shape[1] - gap, : grid.shape[2] - gap])


def contact_strip(frames: UInt8[np.ndarray, "t h w 3"], gap: int = 2) -> UInt8[np.ndarray, "H W 3"]:
    """Frames from left to right in one row."""
    return np.concatenate(
        [np.pad(frame, ((0, 0), (0, gap), (0, 0)), constant_values=255) for frame in frames], axis=1
    )[:, :-gap]


def _spread(frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "s h w 3"]:
    """At most a few frames, evenly spread, the first and the last among them."""
    count = min(len(frames), SHEET_FRAMES)
    return frames[torch.linspace(0, len(frames) - 1, count).round().long().numpy()]


def _webp(frames: UInt8[np.ndarray, "t h w 3"], fps: float) -> bytes:
    """A lossless animation that never stops."""
    from PIL import Image

    first, *rest = (Image.fromarray(frame) for frame in frames)
    stream = io.BytesIO()
    first.save(
        stream,
        "WEBP",
        save_all=True,
        append_images=rest,
        duration=round(1000 / fps),
        loop=0,
        lossless=True,
        method=4,
    )
    return stream.getvalue()


def clip_from(frames: Video, fps: float, note: dict[str, Any]) -> Clip:
    """A clip of decoded frames, nominally in [-1, 1], and what is known about it."""
    clamped = frames.clamp(-1, 1)
    share = float((frames != clamped).float().mean())
    return Clip((clamped.float() + 1).div(2).cpu(), fps, {**note, "clamped_share": share})
