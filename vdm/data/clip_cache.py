"""Which clips have been made already: a uint8 cache that can be missed but never mistaken.

The key is a hash over everything that the pixels depend on, a probe of the pixels included, so
another source, size, seed or renderer is another cache. No torch here: workers that draw clips
start fast.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from vdm.data.block_store import BlockStore, build_store

CACHE_VERSION = 1
"""Raised when the meaning of what is stored changes."""

Clip = UInt8[np.ndarray, "t h w 3"]


@runtime_checkable
class ClipSource(Protocol):
    """A finite, random-access, deterministic source of captioned clips, all of one shape."""

    def __len__(self) -> int: ...

    def describe(self) -> Mapping[str, Any]:
        """Everything the clips depend on, as plain data."""
        ...

    def clip(self, index: int) -> tuple[Clip, str]:
        """Clip number ``index`` and its caption."""
        ...


class ClipCache:
    """Read clips from a finished cache; itself a :class:`ClipSource`.

    Args:
        folder: A folder that :func:`build_clip_cache` finished.

    Raises:
        ValueError: If the folder is not a whole clip cache.
    """

    def __init__(self, folder: str | Path) -> None:
        self.store = BlockStore(folder)
        self.clips: np.ndarray = self.store.rows
        self.captions: list[str] = self.store.notes
        if self.clips.dtype != np.uint8 or self.clips.ndim != 5:
            got = f"{self.clips.dtype} {self.clips.shape}"
            raise ValueError(f"{folder}: got {got}, expected uint8 (n, t, h, w, 3)")

    @property
    def key(self) -> str:
        """Hash of everything the clips depend on."""
        return self.store.key

    def __len__(self) -> int:
        return len(self.captions)

    def describe(self) -> dict[str, Any]:
        """Everything the clips depend on."""
        return self.store.description

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store.folder,)

    def clip(self, index: int) -> tuple[Clip, str]:
        """Clip number ``index``, a read-only view of the mapped file, and its caption."""
        return self.clips[index], self.captions[index]


def describe_source(source: ClipSource) -> dict[str, Any]:
    """What a cache of this source is keyed by: description, length, and a probe of the pixels.

    The probe (digest of the first and last clip with captions) catches a renderer or decoder that
    changed without saying so: the key changes, and the old cache is missed.

    Raises:
        ValueError: If there are no clips.
    """
    if len(source) < 1:
        raise ValueError("got an empty clip source, expected at least 1 clip")
    probe = hashlib.sha256()
    shape: list[int] = []
    for index in sorted({0, len(source) - 1}):
        frames, caption = source.clip(index)
        shape = list(frames.shape)
        probe.update(np.ascontiguousarray(frames).tobytes() + caption.encode() + b"\0")
    return {
        "version": CACHE_VERSION,
        "source": dict(source.describe()),
        "count": len(source),
        "shape": shape,
        "probe": probe.hexdigest(),
    }


@dataclass(frozen=True)
class _DrawClips:
    """Makes the rows of a block; goes to worker processes."""

    source: ClipSource

    def __call__(self, start: int, stop: int) -> tuple[np.ndarray, list[Any]]:
        clips, captions = zip(
            *(self.source.clip(index) for index in range(start, stop)), strict=True
        )
        for index, clip in enumerate(clips, start):
            if clip.shape != clips[0].shape:
                expected = clips[0].shape
                raise ValueError(f"clip {index}: got shape {clip.shape}, expected {expected}")
        return np.stack(clips), list(captions)


def build_clip_cache(
    source: ClipSource,
    root: str | Path = "outputs/cache",
    num_workers: int = 0,
    block_size: int = 64,
    progress: bool = True,
) -> ClipCache:
    """Open the cache of a source, building what is missing of it first.

    Args:
        source: The clips; must pickle if there are workers.
        root: Folder of all caches.
        num_workers: Processes that draw clips; 0 draws them in this one.
        block_size: Clips per block, the unit of work and of resuming.
        progress: Show a progress bar while building.

    Returns:
        The finished cache.

    Raises:
        ValueError: If the source is empty or yields a clip of another shape or type than its first.
        RuntimeError: If a worker process dies.
    """
    description = describe_source(source)
    shape = (description["count"], *description["shape"])
    bar = "drawing clips" if progress else None
    draw = _DrawClips(source)
    store = build_store(
        root, "clips", description, shape, "uint8", draw, num_workers, block_size, bar
    )
    return ClipCache(store.folder)
