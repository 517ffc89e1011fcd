"""Which clips have been encoded already: latents keyed by the data and every encoder weight."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from vdm.data.block_store import BlockStore, build_store, digest, find_store, store_folder
from vdm.data.clip_cache import ClipSource, describe_source
from vdm.data.datasets import VaryCaption
from vdm.data.latent_view import LatentView
from vdm.utils.config import describe
from vdm.utils.video_io import from_uint8

LATENTS_VERSION = 1
"""Raised when the way from a clip to its latents changes, weights aside."""

MirrorCaption = Callable[[str], str | None]
"""The caption of the clip seen in a mirror, or nothing where a mirrored clip must not be used."""


def weight_hash(module: nn.Module) -> str:
    """A hash over every parameter and buffer: name, type, shape and bytes."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        flat = value.detach().cpu().contiguous()
        total.update(f"{name} {flat.dtype} {tuple(flat.shape)}\0".encode())
        total.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


class LatentCache:
    """Read latents from a finished cache.

    Args:
        folder: A folder that :func:`build_latent_cache` finished.

    Raises:
        ValueError: If the folder is not a whole latent cache.
    """

    def __init__(self, folder: str | Path) -> None:
        self.store = BlockStore(folder)
        self.latents: np.ndarray = self.store.rows
        if self.latents.ndim != 5 or self.latents.dtype.kind != "f":
            got = f"{self.latents.dtype} {self.latents.shape}"
            raise ValueError(f"{folder}: got {got}, expected float (n, c, t, h, w)")

    @property
    def key(self) -> str:
        """Hash of everything the latents depend on."""
        return self.store.key

    @property
    def captions(self) -> list[str]:
        """One caption per row."""
        return [caption for caption, _ in self.store.notes]

    def __len__(self) -> int:
        return len(self.latents)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store.folder,)


class LatentSample(TypedDict):
    """One clip's latents. Batches hold a list of captions and stacked tensors for the rest."""

    latents: Float[Tensor, "c t h w"]
    caption: str
    index: int
    fps: NotRequired[Float[Tensor, ""]]
    """Rate of the clip whose latents these are, where it is known."""
    hint: NotRequired[Float[Tensor, "c t h w"]]
    """Latents of a poorer copy."""
    maps: NotRequired[Float[Tensor, "maps t h w"]]
    """What is where in the clip."""


class LatentDataset(Dataset[LatentSample]):
    """Latents as float32. A key beyond the length is the same row in a later pass, as for clips.

    Args:
        cache: Finished latents.
        vary: Rewords the caption for each pass; none keeps it.
        view: Which part of them.
        fps: Rate of the clips, where it is known.
        hints: Latents of poorer copies of the same clips.
        maps: What is where in the same clips.
    """

    def __init__(
        self,
        cache: LatentCache,
        vary: VaryCaption | None = None,
        view: LatentView = LatentView(),  # noqa: B008 (frozen)
        fps: float | None = None,
        hints: LatentCache | None = None,
        maps: BlockStore | None = None,
    ) -> None:
        self.cache = cache
        self.vary = vary
        self.view = view
        self.fps = fps
        self.hints = hints
        self.maps = maps

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, key: int) -> LatentSample:
        epoch, index = divmod(key, len(self.cache))
        caption, _ = self.cache.store.notes[index]
        if self.vary is not None:
            caption = self.vary(caption, index, epoch)
        sample: LatentSample = {
            "latents": self._row(self.cache.latents, index),
            "caption": caption,
            "index": index,
        }
        if self.fps is not None:
            sample["fps"] = torch.tensor(self.fps / self.view.stride)
        if self.hints is not None:
            sample["hint"] = self._row(self.hints.latents, index)
        if self.maps is not None:
            sample["maps"] = self._row(self.maps.rows, index)
        return sample

    def _row(self, rows: np.ndarray, index: int) -> Float[Tensor, "c t h w"]:
        row = rows[index][:, :: self.view.stride]
        return torch.from_numpy(np.array(row, dtype=np.float32))


@dataclass(frozen=True)
class _Row:
    """One row to be: which clip, seen directly or in a mirror, with which caption."""

    index: int
    caption: str
    mirrored: bool


class _EncodeRows:
    """Makes the rows of a block."""

    def __init__(
        self, source: ClipSource, rows: list[_Row], encode: Any, batch_size: int, dtype: str
    ) -> None:
        self.source, self.rows, self.encode = source, rows, encode
        self.batch_size, self.dtype = batch_size, dtype

    def __call__(self, start: int, stop: int) -> tuple[np.ndarray, list[Any]]:
        rows = self.rows[start:stop]
        parts = [
            self.encode(self._videos(rows[i : i + self.batch_size])).astype(self.dtype)
            for i in range(0, len(rows), self.batch_size)
        ]
        return np.concatenate(parts), [(row.caption, row.index) for row in rows]

    def _videos(self, rows: list[_Row]) -> Tensor:
        frames = np.stack([self.source.clip(row.index)[0] for row in rows])
        video = from_uint8(torch.from_numpy(frames))
        flip = torch.tensor([row.mirrored for row in rows])
        return torch.where(flip.reshape(-1, 1, 1, 1, 1), video.flip(-1), video)


def _rows(source: ClipSource, mirror: MirrorCaption | None) -> list[_Row]:
    rows = [_Row(index, source.clip(index)[1], mirrored=False) for index in range(len(source))]
    if mirror is None:
        return rows
    words = [(row.index, mirror(row.caption)) for row in rows]
    return rows + [
        _Row(index, caption, mirrored=True) for index, caption in words if caption is not None
    ]


def _encoder(autoencoder: nn.Module) -> Callable[[Tensor], np.ndarray]:
    """The encoder as a function to float32 arrays, in eval mode, on the device where it is."""
    encode_video: Callable[[Tensor], Tensor] = autoencoder.encode  # type: ignore[assignment]

    @torch.no_grad()
    def encode(video: Tensor) -> np.ndarray:
        training = autoencoder.training
        autoencoder.eval()
        try:
            like = next(autoencoder.parameters(), video)
            return encode_video(video.to(like)).float().cpu().numpy()
        finally:
            autoencoder.train(training)

    return encode


def build_latent_cache(
    source: ClipSource,
    autoencoder: nn.Module,
    root: str | Path = "outputs/cache",
    mirror: MirrorCaption | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    batch_size: int = 8,
    progress: bool = True,
) -> LatentCache:
    """Open the latents of a source of clips, encoding what is missing first.

    The key covers the clips, the mirroring, the type, every weight and the class and arguments of
    the autoencoder. If the encoder's *code* changed, the first clip no longer encodes to the first
    row, and that is a miss too.

    Args:
        source: The clips.
        autoencoder: Module with ``encode(video) -> latents``; used in eval mode where it is.
        root: Folder of all caches.
        mirror: Adds each clip seen in a mirror, with the caption that this returns; none adds
            nothing.
        dtype: Type that the latents are stored in.
        batch_size: Clips that are encoded together.
        progress: Show a progress bar while encoding.

    Returns:
        The finished cache; mirrored clips, if any, come after all others.
    """
    encode = _encoder(autoencoder)
    rows = _rows(source, mirror)
    draw = _EncodeRows(source, rows, encode, batch_size, dtype)
    probe = draw(0, 1)[0]
    description = {
        "version": LATENTS_VERSION,
        "clips": describe_source(source),
        "rows": digest([(row.index, row.caption, row.mirrored) for row in rows]),
        "encoder": describe_encoder(autoencoder),
        "weights": weight_hash(autoencoder),
        "dtype": dtype,
    }
    shape = (len(rows), *probe.shape[1:])
    found = find_store(root, "latents", description)
    if found is not None and not close(found.rows[:1], probe):
        _discard(store_folder(root, "latents", description))
    bar = "encoding clips" if progress else None
    store = build_store(
        root, "latents", description, shape, dtype, draw, block_size=64, progress=bar
    )
    return LatentCache(store.folder)


def describe_encoder(autoencoder: nn.Module) -> Any:
    """Class and, where they are known, arguments: equal weights can mean different latents."""
    if hasattr(autoencoder, "_init_args"):
        return describe(autoencoder)
    return f"{type(autoencoder).__module__}.{type(autoencoder).__qualname__}"


def close(stored: np.ndarray, fresh: np.ndarray) -> bool:
    """Equal up to what another machine, batch size or number of threads may change."""
    if stored.shape != fresh.shape:
        return False
    scale = float(np.abs(fresh).max()) or 1.0
    return bool(np.allclose(stored, fresh, rtol=0, atol=0.01 * scale))


def _discard(folder: Path) -> None:
    """Take a stale store out of the way in one step, then delete it."""
    stale = folder.with_suffix(".stale")
    shutil.rmtree(stale, ignore_errors=True)
    folder.rename(stale)
    shutil.rmtree(stale)
