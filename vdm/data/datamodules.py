"""Where batches come from during training: the only place where data meets Lightning.

Training batches are endless and addressed by position (see :mod:`vdm.data.sampler`), so a run needs
``max_steps``, and a resumed run goes on with the batch after the last one it used. Under several
processes pass the trainer ``use_distributed_sampler=False``: the sampler here already shares one
sequence between ranks.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vdm.data.block_store import digest, write_text
from vdm.data.clip_cache import ClipCache, build_clip_cache
from vdm.data.datasets import ClipDataset
from vdm.data.latent_cache import LatentCache, LatentDataset, build_latent_cache
from vdm.data.latent_view import LatentView, Smaller
from vdm.data.real_clips import RealClips
from vdm.data.sampler import ShuffledBatches
from vdm.data.sources import Paraphrase, ShapesSource, mirror_caption
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


class BatchesModule(L.LightningDataModule):
    """Endless training batches that resume exactly, and validation batches in fixed order.

    Args:
        batch_size: Samples per batch and process.
        num_workers: Processes that read ahead; changes no sample and no order.
        seed: Chooses the order of training samples.
    """

    def __init__(self, batch_size: int, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise ValueError(
                f"got batch_size={batch_size}, num_workers={num_workers}, expected at least 1 and 0"
            )
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._resumed_at = 0
        self._num_samples: int | None = None
        self._stored: dict[str, Any] = {}

    @abstractmethod
    def train_dataset(self) -> Dataset[Any]:
        """Samples to train on; keys beyond the length are later passes."""

    @abstractmethod
    def val_dataset(self) -> Dataset[Any] | None:
        """Samples to validate on, if there are any."""

    def test_dataset(self) -> Dataset[Any] | None:
        """Samples to test on; those of validation where there are no others."""
        return self.val_dataset()

    @property
    def position(self) -> int:
        """Training batches used so far, over all the runs that this one continues.

        The trainer's own count is restored only after a loader may have been made (touching
        ``estimated_stepping_batches`` makes one early), this module's state before: the larger one
        is right.
        """
        if self.trainer is None:
            return self._resumed_at
        used = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return max(self._resumed_at, used.processed)  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it is a position in."""
        return {
            "position": self.position,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "num_ranks": self._place()[1],
            "num_samples": self._num_samples,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was written. How many samples it had is checked with the loader.

        Raises:
            ValueError: If the checkpoint counts other batches than these.
        """
        self._stored = state_dict
        self._check_stored("data.batch_size", self.batch_size)
        self._check_stored("data.seed", self.seed)
        self._check_stored("num_ranks", self._place()[1])
        self._resumed_at = state_dict["position"]

    def _check_stored(self, name: str, value: int) -> None:
        """Compare with the checkpoint; what an older one does not say is not checked."""
        expected = self._stored.get(name.removeprefix("data."))
        if expected is not None and expected != value:
            raise ValueError(
                f"got {name}={value}, expected {expected} as in the checkpoint: a resumed run goes "
                "through the same batches"
            )

    def _place(self) -> tuple[int, int]:
        """Number of this process, and how many train together."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless shuffled batches from the current position on.

        Raises:
            ValueError: If the checkpoint that the run goes on from had another number of samples.
        """
        data = self.train_dataset()
        rank, num_ranks = self._place()
        self._num_samples = len(data)  # type: ignore[arg-type]
        self._check_stored("num_samples", self._num_samples)
        batches = ShuffledBatches(
            self._num_samples,
            self.batch_size,
            self.seed,
            start=lambda: self.position,
            rank=rank,
            num_ranks=num_ranks,
        )
        return DataLoader(
            data, batch_sampler=batches, num_workers=self.num_workers, pin_memory=self._pin()
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Validation samples in order, the last batch possibly smaller; none without samples."""
        return self._in_order(self.val_dataset())

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Test samples in order."""
        return self._in_order(self.test_dataset())

    def predict_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The samples of validation."""
        return self.val_dataloader()

    def _in_order(self, data: Dataset[Any] | None) -> DataLoader[Any] | list[Any]:
        if data is None:
            return []
        pin = self._pin()
        return DataLoader(
            data, batch_size=self.batch_size, num_workers=self.num_workers, pin_memory=pin
        )

    def _pin(self) -> bool:
        """Page-locked memory pays where batches go to a CUDA device."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


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


class ShapesLatents(BatchesModule):
    """Latents of the world's clips: batches of ``latents``, ``caption``, ``index`` and ``fps``.

    The encoder is the argument, or the one set by :meth:`use_autoencoder`, or else the
    ``autoencoder`` of the module that is being trained. It is looked for when the first loader is
    made, after every ``setup`` hook has run.

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
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.shapes = shapes
        self.autoencoder = autoencoder
        self.paraphrase = paraphrase
        self.mirror = mirror
        self.view = view
        self.dtype = dtype
        self.cache_dir = cache_dir

    def prepare_data(self) -> None:
        """Draw the clips once, on one process."""
        for split in ("train", "val"):
            build_clip_cache(self.shapes.source(split), self.cache_dir, self.num_workers)

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
        autoencoder = _encoder_of(self, self.autoencoder)
        clips: Any = build_clip_cache(self.shapes.source(split), self.cache_dir, self.num_workers)
        clips = clips if low_size is None else Smaller(clips, low_size)
        mirror = mirror_caption if self.mirror and split == "train" else None
        return build_latent_cache(clips, autoencoder, self.cache_dir, mirror, self.dtype)

    def train_dataset(self) -> LatentDataset:
        """Training latents."""
        return self._samples("train", Paraphrase(self.seed) if self.paraphrase else None)

    def val_dataset(self) -> LatentDataset:
        """Validation latents with canonical captions."""
        return self._samples("val")

    def test_dataset(self) -> LatentDataset:
        """Latents of the split ``test-iid``."""
        return self._samples("test-iid")

    def _samples(self, split: Split, vary: Paraphrase | None = None) -> LatentDataset:
        low = self.view.low_size
        hints = None if low is None else self.latents(split, low)
        return LatentDataset(self.latents(split), vary, self.view, self.shapes.fps, hints)


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


class RealLatents(BatchesModule):
    """Latents of windows of real clips: batches of ``latents``, ``caption`` (empty) and ``index``.

    The encoder is found as for :class:`ShapesLatents`.

    Args:
        videos: Which windows; it makes no batches itself.
        autoencoder: Encodes clips; none asks the module that is being trained.
        batch_size: Windows per batch and process.
        num_workers: Processes that read ahead.
        seed: Chooses the order of windows.
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
        dtype: Literal["float16", "float32"] = "float16",
        cache_dir: str = "outputs/cache",
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        for name in ("batch_size", "num_workers"):
            usual = inspect.signature(RealVideos).parameters[name].default
            if (value := getattr(videos, name)) != usual:
                raise ValueError(f"got videos.{name}={value}, nothing reads it; nearest {name}")
        self.videos = videos
        self.autoencoder = autoencoder
        self.dtype = dtype
        self.cache_dir = cache_dir

    def use_autoencoder(self, autoencoder: nn.Module) -> None:
        """Encode by this module from now on."""
        self.autoencoder = autoencoder

    def latents(self, split: Literal["train", "val"]) -> LatentCache:
        """The cached latents of a split, encoded now if they are not there."""
        autoencoder = _encoder_of(self, self.autoencoder)
        clips = self.videos.clips(split)
        return build_latent_cache(clips, autoencoder, self.cache_dir, dtype=self.dtype)

    def train_dataset(self) -> LatentDataset:
        """Training latents."""
        return LatentDataset(self.latents("train"))

    def val_dataset(self) -> LatentDataset:
        """Validation latents, of held-out videos."""
        return LatentDataset(self.latents("val"))


class VideoFolderClips(BatchesModule):
    """Clips of the user's own video files: batches of ``video``, ``caption`` and ``index``.

    Every file gives one clip in every pass, from another start each time; in validation from the
    first frame. Bad files are left out and listed in ``quarantine.txt`` beside the cache.

    Args:
        folder: Searched to any depth; captions are the ``.txt`` files of the same name.
        val_share: Share of the files that is held out; 0 for no validation.
        size: Height and width in pixels.
        num_frames: Frames per clip.
        fps: Frames per second, by time stamps; none takes every frame of each file.
        batch_size: Clips per batch and process.
        num_workers: Processes that decode.
        seed: Chooses the order and the starts.
        cache_dir: Folder that remembers which files are sound.
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
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.folder = folder
        self.val_share = val_share
        self.size = size
        self.num_frames = num_frames
        self.fps = fps
        self.cache = Path(cache_dir) / f"folder-{digest(str(Path(folder).resolve()))[:20]}"

    def train_dataset(self) -> VideoFolder:
        """Clips to train on."""
        data = self._files("train", self.seed)
        write_text(self.cache / "quarantine.txt", [str(verdict) for verdict in data.dropped])
        return data

    def val_dataset(self) -> VideoFolder | None:
        """Held-out files, from their first frames."""
        return self._files("val", None) if self.val_share else None

    def _files(self, part: Literal["train", "val"], seed: int | None) -> VideoFolder:
        return VideoFolder(
            self.folder,
            self.num_frames,
            (self.size, self.size),
            self.fps,
            seed,
            part,
            self.val_share,
            self.cache / "files.json",
        )


def _encoder_of(data: L.LightningDataModule, autoencoder: nn.Module | None) -> nn.Module:
    """The given autoencoder, or that of the module that is being trained on the data."""
    if autoencoder is None and data.trainer is not None:
        autoencoder = getattr(data.trainer.lightning_module, "autoencoder", None)
    if autoencoder is None:
        raise ValueError(
            "got no autoencoder: pass one, or train a module that has one as `.autoencoder`"
        )
    return autoencoder
