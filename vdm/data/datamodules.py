"""Which data a recipe trains on: the embedded world, real clips, the user's own files."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from vdm.data.batches import BatchesModule
from vdm.data.block_store import BlockStore, build_store, digest, write_text
from vdm.data.buckets import Bucket
from vdm.data.clip_cache import ClipCache, ClipSource, build_clip_cache
from vdm.data.datasets import ClipDataset
from vdm.data.frame_cache import FrameCache
from vdm.data.ingested import IngestedClips, is_ingested
from vdm.data.latent_cache import (
    LatentCache,
    LatentDataset,
    MirrorCaption,
    build_latent_cache,
)
from vdm.data.latent_view import LatentView, Smaller
from vdm.data.real_clips import RealClips
from vdm.data.sources import Paraphrase, ShapesSource, StateMaps, mirror_caption
from vdm.data.video_folder import VideoFolder

Split = Literal["train", "val", "test-iid"]


@dataclass(frozen=True)
class ShapesSpec:
    """Which clips of the embedded world.

    Args:
        num_train: Training clips.
        num_val: Validation clips, and test clips.
        size: Height and width in pixels.
        num_frames: Frames per clip.
        fps: Frames per second.
        seed: Chooses the world's sequence of scenes.
    """

    num_train: int = 10_000
    num_val: int = 256
    size: int = 64
    num_frames: int = 16
    fps: float = 8.0
    seed: int = 0

    def source(self, split: Split) -> ShapesSource:
        """The clips of one split; as many are for testing as for validation."""
        count = self.num_train if split == "train" else self.num_val
        return ShapesSource(split, count, self.seed, self.size, self.num_frames, self.fps)


class ShapesClips(BatchesModule):
    """Clips of the embedded world: batches of ``video``, ``caption`` and ``index``.

    Args:
        shapes: Which clips.
        batch_size: Clips per batch and process.
        num_workers: Processes that read ahead, and that draw clips when the cache is built.
        seed: Chooses the order of training clips and the paraphrases.
        paraphrase: Reword captions differently in every pass; validation keeps the canonical words.
        cache_dir: Folder of all caches.
    """

    def __init__(
        self,
        shapes: ShapesSpec = ShapesSpec(),
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        paraphrase: bool = False,
        cache_dir: str = "outputs/cache",
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.shapes = shapes
        self.paraphrase = paraphrase
        self.cache_dir = cache_dir

    def prepare_data(self) -> None:
        """Draw the clips once, on one process."""
        for split in ("train", "val"):
            self.clips(split)

    def clips(self, split: Split) -> ClipCache:
        """The cached clips of a split, drawn now if they are not there."""
        return build_clip_cache(self.shapes.source(split), self.cache_dir, self.num_workers)

    def train_dataset(self) -> ClipDataset:
        """Training clips."""
        return ClipDataset(self.clips("train"), Paraphrase(self.seed) if self.paraphrase else None)

    def val_dataset(self) -> ClipDataset:
        """Validation clips with canonical captions."""
        return ClipDataset(self.clips("val"))

    def test_dataset(self) -> ClipDataset:
        """Clips of the split ``test-iid``."""
        return ClipDataset(self.clips("test-iid"))


class LatentsModule(BatchesModule):
    """Latents of clips, encoded once: batches of ``latents``, ``caption`` and ``index``.

    The encoder is the argument, or the one set by :meth:`use_autoencoder`, or else the
    ``autoencoder`` of the module that is being trained. It is looked for when the first loader is
    made, after every ``setup`` hook has run.

    Args:
        autoencoder: Encodes clips; none asks the module that is being trained.
        batch_size: Clips per batch and process.
        num_workers: Processes that read ahead.
        seed: Chooses the order of training clips.
        view: Which part of the latents: keyframes alone, or with a hint from a smaller copy.
        dtype: Type that latents are stored in; batches are float32.
        cache_dir: Folder of all caches.
    """

    fps: float | None = None
    """Rate of the clips, where it is known."""

    def __init__(
        self,
        autoencoder: nn.Module | None,
        batch_size: int,
        num_workers: int,
        seed: int,
        view: LatentView,
        dtype: Literal["float16", "float32"],
        cache_dir: str,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.autoencoder = autoencoder
        self.view = view
        self.dtype = dtype
        self.cache_dir = cache_dir

    @abstractmethod
    def source(self, split: Split) -> ClipSource:
        """The clips of a split."""

    def mirror_for(self, split: Split) -> MirrorCaption | None:
        """Captions of mirrored clips, where there are to be any."""
        return None

    def maps_for(self, split: Split, cache: LatentCache) -> BlockStore | None:
        """What is where in the clips of a split, where that is known and asked for."""
        return None

    def use_autoencoder(self, autoencoder: nn.Module) -> None:
        """Encode by this module from now on."""
        self.autoencoder = autoencoder

    def latents(self, split: Split, low_size: int | None = None) -> LatentCache:
        """The cached latents of a split, encoded now if they are not there.

        Args:
            split: Which clips.
            low_size: Of copies that were brought to this size and back; None for the clips.

        Raises:
            ValueError: If nobody provides an autoencoder.
        """
        autoencoder = self._encoder()
        clips = self.source(split)
        clips = clips if low_size is None else Smaller(clips, low_size)
        mirror = self.mirror_for(split)
        return build_latent_cache(clips, autoencoder, self.cache_dir, mirror, self.dtype)

    def _encoder(self) -> nn.Module:
        """The given autoencoder, or that of the module that is being trained on the data."""
        found = self.autoencoder
        if found is None and self.trainer is not None:
            found = getattr(self.trainer.lightning_module, "autoencoder", None)
        if found is None:
            raise ValueError(
                "got no autoencoder: pass one, or train a module that has one as `.autoencoder`"
            )
        return found

    def _samples(self, split: Split, vary: Paraphrase | None = None) -> LatentDataset:
        low = self.view.low_size
        hints = None if low is None else self.latents(split, low)
        cache = self.latents(split)
        maps = self.maps_for(split, cache)
        return LatentDataset(cache, vary, self.view, self.fps, hints, maps)

    def train_dataset(self) -> LatentDataset:
        """Training latents."""
        return self._samples("train")

    def val_dataset(self) -> LatentDataset:
        """Validation latents."""
        return self._samples("val")


class ShapesLatents(LatentsModule):
    """Latents of the world's clips: batches of ``latents``, ``caption``, ``index`` and ``fps``.

    Args:
        shapes: Which clips.
        autoencoder: Encodes clips; none asks the module that is being trained.
        batch_size: Clips per batch and process.
        num_workers: Processes that read ahead, and that draw clips when the cache is built.
        seed: Chooses the order of training clips and the paraphrases.
        paraphrase: Reword captions differently in every pass; validation keeps the canonical words.
        mirror: Train on mirrored clips too, except where the mirrored caption belongs to a held-out
            split.
        view: Which part of the latents: keyframes alone, or with a hint from a smaller copy.
        dtype: Type that latents are stored in; batches are float32.
        cache_dir: Folder of all caches.
        maps: Give ``maps`` of training clips too, what is where in every latent, for an alignment.

    Raises:
        ValueError: If there are to be maps, and mirrored clips, which they do not fit.
    """

    def __init__(
        self,
        shapes: ShapesSpec = ShapesSpec(),
        autoencoder: nn.Module | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        paraphrase: bool = True,
        mirror: bool = False,
        view: LatentView = LatentView(),  # noqa: B008 (frozen)
        dtype: Literal["float16", "float32"] = "float16",
        cache_dir: str = "outputs/cache",
        maps: bool = False,
    ) -> None:
        super().__init__(autoencoder, batch_size, num_workers, seed, view, dtype, cache_dir)
        if maps and mirror:
            raise ValueError("got maps and mirror, expected one of them: maps are not mirrored")
        self.shapes = shapes
        self.paraphrase = paraphrase
        self.mirror = mirror
        self.maps = maps
        self.fps = shapes.fps

    def prepare_data(self) -> None:
        """Draw the clips once, on one process."""
        for split in ("train", "val"):
            self.source(split)

    def source(self, split: Split) -> ClipCache:
        """The cached clips of a split, drawn now if they are not there."""
        return build_clip_cache(self.shapes.source(split), self.cache_dir, self.num_workers)

    def mirror_for(self, split: Split) -> MirrorCaption | None:
        """Captions of mirrored training clips, if asked for."""
        return mirror_caption if self.mirror and split == "train" else None

    def maps_for(self, split: Split, cache: LatentCache) -> BlockStore | None:
        """What is where in training clips, at the size of their latents, if asked for."""
        if not self.maps or split != "train":
            return None
        stride: int = self._encoder().strides[0]  # type: ignore[index, assignment]
        maps = StateMaps(self.shapes.source(split), cache.latents.shape[2:], stride)
        return build_store(
            self.cache_dir,
            "maps",
            maps.describe(),
            maps.rows_shape,
            "float16",
            maps,
            self.num_workers,
            progress="mapping clips",
        )

    def train_dataset(self) -> LatentDataset:
        """Training latents."""
        return self._samples("train", Paraphrase(self.seed) if self.paraphrase else None)

    def test_dataset(self) -> LatentDataset:
        """Latents of the split ``test-iid``."""
        return self._samples("test-iid")


class RealVideos(BatchesModule):
    """Windows of real clips: batches of ``video``, ``caption`` (empty) and ``index``.

    Args:
        folder: Shards, from ``python -m vdm.data.real_clips FOLDER``.
        num_train: Windows to train on.
        num_val: Windows of held-out videos.
        size: Height and width in pixels.
        num_frames: Frames per window.
        batch_size: Windows per batch and process.
        num_workers: Processes that read ahead.
        seed: Chooses the windows and their order.
    """

    def __init__(
        self,
        folder: str,
        num_train: int = 4000,
        num_val: int = 128,
        size: int = 64,
        num_frames: int = 16,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.folder = folder
        self.counts = {"train": num_train, "val": num_val}
        self.size = size
        self.num_frames = num_frames

    def clips(self, split: Literal["train", "val"]) -> RealClips:
        """The windows of a split."""
        return RealClips(
            self.folder, split, self.counts[split], self.seed, self.size, self.num_frames
        )

    def train_dataset(self) -> ClipDataset:
        """Windows to train on."""
        return ClipDataset(self.clips("train"))

    def val_dataset(self) -> ClipDataset:
        """Windows of held-out videos."""
        return ClipDataset(self.clips("val"))


class RealLatents(LatentsModule):
    """Latents of windows of real clips: batches of ``latents``, ``caption`` (empty) and ``index``.

    Args:
        videos: Which windows; it makes no batches itself.
        autoencoder: Encodes clips; none asks the module that is being trained.
        batch_size: Windows per batch and process.
        num_workers: Processes that read ahead.
        seed: Chooses the order of windows.
        view: Which part of the latents: keyframes alone, or with a hint from a smaller copy.
        dtype: Type that latents are stored in; batches are float32.
        cache_dir: Folder of all caches.

    Raises:
        ValueError: If the videos ask for batches of their own.
    """

    def __init__(
        self,
        videos: RealVideos,
        autoencoder: nn.Module | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        view: LatentView = LatentView(),  # noqa: B008 (frozen)
        dtype: Literal["float16", "float32"] = "float16",
        cache_dir: str = "outputs/cache",
    ) -> None:
        super().__init__(autoencoder, batch_size, num_workers, seed, view, dtype, cache_dir)
        for name in ("batch_size", "num_workers"):
            usual = inspect.signature(RealVideos).parameters[name].default
            if (value := getattr(videos, name)) != usual:
                raise ValueError(f"got videos.{name}={value}, nothing reads it; nearest {name}")
        self.videos = videos

    def source(self, split: Split) -> RealClips:
        """The windows of a split; there are none for testing alone."""
        return self.videos.clips("train" if split == "train" else "val")


class VideoFolderClips(BatchesModule):
    """Clips of the user's own video files: batches of ``video``, ``caption`` and ``index``.

    Every file gives one clip in every pass, from another start each time; in validation from the
    first frame. Bad files are left out and listed in ``quarantine.txt`` beside the cache.

    Args:
        folder: Searched to any depth, captions are the ``.txt`` files of the same name; or what
            ``vdm data ingest`` made.
        val_share: Share of the files that is held out; 0 for no validation.
        size: Height and width in pixels.
        num_frames: Frames per clip.
        fps: Frames per second, by time stamps; none takes every frame of each file.
        batch_size: Clips per batch and process.
        num_workers: Processes that decode.
        seed: Chooses the order and the starts.
        cache_dir: Folder that remembers which files are sound.
        train_split: Of an ingested folder: the split of the listing to train on.
        val_split: Likewise the split to hold out, instead of a share.
        buckets: Of an ingested folder: shapes instead of one, as frames, height and width. Every
            clip takes the one in which least of it is lost, and a batch is of one shape.
        cache_frames: Of an ingested folder: keep the frames of whole videos at the wanted size in
            ``cache_dir``, so that each is decoded once.

    Raises:
        ValueError: If a split to hold out is named, but not another to train on.
    """

    def __init__(
        self,
        folder: str,
        val_share: float = 0.1,
        size: int = 64,
        num_frames: int = 16,
        fps: float | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str = "outputs/cache",
        train_split: str | None = None,
        val_split: str | None = None,
        buckets: list[Bucket] | None = None,
        cache_frames: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.folder = folder
        self.buckets = buckets or []
        self.frames = FrameCache(cache_dir) if cache_frames else None
        if val_split is not None and train_split in (None, val_split):
            raise ValueError(
                f"got val_split={val_split!r}, expected another train_split, not {train_split!r}"
            )
        self.train_split, self.val_split = train_split, val_split
        self.val_share = val_share
        self.size = size
        self.num_frames = num_frames
        self.fps = fps
        self.cache = Path(cache_dir) / f"folder-{digest(str(Path(folder).resolve()))[:20]}"

    def train_dataset(self) -> VideoFolder | IngestedClips:
        """Clips to train on."""
        data = self._files("train", self.seed)
        self.cache.mkdir(parents=True, exist_ok=True)
        write_text(self.cache / "quarantine.txt", [str(verdict) for verdict in data.dropped])
        return data

    def val_dataset(self) -> VideoFolder | IngestedClips | None:
        """Held-out files, from their first frames."""
        return self._files("val", None) if self.val_share or self.val_split else None

    def _files(
        self, part: Literal["train", "val"], seed: int | None
    ) -> VideoFolder | IngestedClips:
        size = (self.size, self.size)
        if is_ingested(self.folder):
            listed = self.val_split is not None
            split = self.val_split if listed and part == "val" else self.train_split
            side: Literal["all", "train", "val"] = "all" if listed else part
            return IngestedClips(
                self.folder,
                self.num_frames,
                size,
                self.fps,
                seed,
                split,
                side,
                self.val_share,
                self.buckets,
                self.frames,
            )
        for name, value in (
            ("a split", self.train_split),
            ("buckets", self.buckets),
            ("cache_frames", self.frames),
        ):
            if value:
                raise ValueError(
                    f"got {name}, expected an ingested folder: vdm data ingest {self.folder}"
                )
        memory = self.cache / "files.json"
        return VideoFolder(
            self.folder, self.num_frames, size, self.fps, seed, part, self.val_share, memory
        )
