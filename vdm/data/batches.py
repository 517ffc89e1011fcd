"""Endless training batches that are addressed by position: where data meets Lightning.

Batches have numbers (see :mod:`vdm.data.sampler`), so a run needs ``max_steps``, and a resumed run
goes on with the batch after the last one it used. Under several processes pass the trainer
``use_distributed_sampler=False``: the sampler here already shares one sequence between ranks.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, Dataset

from vdm.data.buckets import BatchesInOrder, BucketedBatches
from vdm.data.sampler import ShuffledBatches


def groups_of(data: Dataset[Any]) -> list[list[int]] | None:
    """Items that may stand in one batch, where samples of the data are of several shapes."""
    groups: list[list[int]] | None = getattr(data, "groups", None)
    return groups if groups is not None and len(groups) > 1 else None


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
        self._buckets: list[int] | None = None
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
            "buckets": self._buckets,
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

    def _check_stored(self, name: str, value: Any) -> None:
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
        groups = groups_of(data)
        self._buckets = None if groups is None else [len(group) for group in groups]
        self._check_stored("buckets", self._buckets)
        order: Any = ShuffledBatches if groups is None else BucketedBatches
        batches = order(
            self._num_samples if groups is None else groups,
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
        groups = groups_of(data)
        common: dict[str, Any] = {"num_workers": self.num_workers, "pin_memory": self._pin()}
        if groups is None:
            return DataLoader(data, batch_size=self.batch_size, **common)
        return DataLoader(data, batch_sampler=BatchesInOrder(groups, self.batch_size), **common)

    def _pin(self) -> bool:
        """Page-locked memory pays where batches go to a CUDA device."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
