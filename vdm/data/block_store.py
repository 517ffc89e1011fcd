"""How a large array is kept on disk so that half of it can never be taken for the whole.

A store is a folder ``KIND-KEY`` with ``rows.npy`` (an array with one row per item) and
``meta.json`` (the description that the key is a hash of, a note per row, a digest per block). It is
built in ``KIND-KEY.partial`` block by block, goes on where a killed build stopped, and gets its
final name in one rename when it is whole. No torch here: workers start fast.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Draw = Callable[[int, int], tuple[np.ndarray, list[Any]]]
"""``draw(start, stop)``: the rows of a block and one note (plain data) per row."""


def digest(value: Any) -> str:
    """A hash of plain data (JSON types), the same in every process and on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write plain data so that the file is either absent or whole."""
    write_text(path, [json.dumps(value)])


def write_text(path: Path, lines: Iterable[str]) -> None:
    """Write lines so that the file is either absent or whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class BlockStore:
    """Read the rows of a finished store. Pickles as a path, so workers map the same file.

    Args:
        folder: A folder that :func:`build_store` finished.

    Raises:
        ValueError: If the folder is not a whole store.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            self.rows: np.ndarray = np.load(self.folder / "rows.npy", mmap_mode="r")
            self.description: dict[str, Any] = meta["description"]
            self.key: str = meta["key"]
            self.notes: list[Any] = meta["notes"]
            self.block_size: int = meta["block_size"]
            self.block_digests: list[str] = meta["blocks"]
            expected = (tuple(meta["shape"]), np.dtype(meta["dtype"]))
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{self.folder} is not a whole store: {error}") from error
        if (self.rows.shape, self.rows.dtype) != expected or len(self.notes) != len(self.rows):
            raise ValueError(
                f"{self.folder}: got rows {self.rows.shape} {self.rows.dtype}, expected {expected}"
            )
        if self.key != digest(self.description):
            raise ValueError(
                f"{self.folder}: the key does not belong to the description; delete the folder"
            )

    def __len__(self) -> int:
        return len(self.notes)

    def describe(self) -> dict[str, Any]:
        """Everything the rows depend on."""
        return self.description

    def verify(self) -> None:
        """Read everything and compare it with the digests taken when it was written.

        Raises:
            ValueError: If a block changed since.
        """
        for block, expected in enumerate(self.block_digests):
            start = block * self.block_size
            if _digest_array(self.rows[start : start + self.block_size]) != expected:
                raise ValueError(
                    f"{self.folder}: rows from number {start} on were changed; delete the folder"
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)


def store_folder(root: str | Path, kind: str, description: Mapping[str, Any]) -> Path:
    """Where the store with this description is, or would be."""
    return Path(root) / f"{kind}-{digest(description)[:20]}"


def find_store(root: str | Path, kind: str, description: Mapping[str, Any]) -> BlockStore | None:
    """The finished store with exactly this description, or nothing: any mismatch is a miss."""
    folder = store_folder(root, kind, description)
    try:
        store = BlockStore(folder)
    except ValueError:
        return None
    return store if store.description == description else None


def build_store(
    root: str | Path,
    kind: str,
    description: Mapping[str, Any],
    shape: Sequence[int],
    dtype: str,
    draw: Draw,
    num_workers: int = 0,
    block_size: int = 64,
    progress: str | None = None,
) -> BlockStore:
    """Find a store, building what is missing of it first.

    Args:
        root: Folder of all stores.
        kind: What the rows are; begins the folder's name.
        description: Everything the rows depend on, as plain data.
        shape: Shape of the whole array, rows first.
        dtype: NumPy name of the type.
        draw: Makes the rows of a block; must pickle if there are workers.
        num_workers: Processes that draw; 0 draws in this one.
        block_size: Rows per block, the unit of work and of resuming.
        progress: Words beside the progress bar, if one is to be shown.

    Returns:
        The finished store.

    Raises:
        ValueError: If a block has another shape or type than promised.
        RuntimeError: If a worker process dies.
    """
    if block_size < 1:
        raise ValueError(f"got block_size={block_size}, expected at least 1")
    if (store := find_store(root, kind, description)) is not None:
        return store
    folder = store_folder(root, kind, description)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, lock = folder.with_suffix(".partial"), folder.with_suffix(".lock")
    with _exclusive(lock):
        if (
            store := find_store(root, kind, description)
        ) is not None:  # another process built it meanwhile
            return store
        plan = {
            "description": dict(description),
            "shape": list(shape),
            "dtype": dtype,
            "block_size": block_size,
        }
        _prepare(partial, plan)
        starts = range(0, shape[0], block_size)
        blocks = [
            _Block(partial, draw, start, min(start + block_size, shape[0])) for start in starts
        ]
        _fill(blocks, num_workers, progress)
        _finish(partial, folder, plan)
    lock.unlink(missing_ok=True)
    return BlockStore(folder)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file; a process that dies lets go of it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prepare(partial: Path, plan: dict[str, Any]) -> None:
    """Lay out an unfinished store, keeping one that was begun with the same plan."""
    shape, dtype = tuple(plan["shape"]), np.dtype(plan["dtype"])
    try:
        rows = np.load(partial / "rows.npy", mmap_mode="r")
        begun = json.loads((partial / "plan.json").read_text(encoding="utf-8")) == plan
        begun = begun and rows.shape == shape and rows.dtype == dtype
    except (OSError, ValueError):
        begun = False
    if begun:
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    np.lib.format.open_memmap(partial / "rows.npy", mode="w+", dtype=dtype, shape=shape).flush()
    write_json(partial / "plan.json", plan)  # last: a plan means that the array is there


@dataclass(frozen=True)
class _Block:
    """One unit of work, as it is sent to a worker."""

    partial: Path
    draw: Draw
    start: int
    stop: int

    @property
    def record(self) -> Path:
        """File that is there once the block is written."""
        return self.partial / f"block-{self.start:09d}.json"

    def is_done(self) -> bool:
        """Whether the block was written whole: recorded, and its rows are those recorded."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        rows = np.load(self.partial / "rows.npy", mmap_mode="r")[self.start : self.stop]
        return record["digest"] == _digest_array(rows)

    def write(self) -> int:
        """Draw the rows into the array, then record them. Returns the number of rows."""
        rows = np.load(self.partial / "rows.npy", mmap_mode="r+")[self.start : self.stop]
        drawn, notes = self.draw(self.start, self.stop)
        if drawn.shape != rows.shape or drawn.dtype != rows.dtype:
            raise ValueError(
                f"rows {self.start} to {self.stop}: got {drawn.shape} {drawn.dtype}, "
                f"expected {rows.shape} {rows.dtype}"
            )
        rows[:] = drawn
        rows.flush()
        write_json(self.record, {"notes": notes, "digest": _digest_array(rows)})
        return self.stop - self.start


def _fill(blocks: list[_Block], num_workers: int, progress: str | None) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    todo = [block for block in blocks if not block.is_done()]
    columns = (TextColumn(progress or ""), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=progress is None) as bar:
        total = blocks[-1].stop
        task = bar.add_task("", total=total, completed=total - sum(b.stop - b.start for b in todo))
        for written in _map(_Block.write, todo, num_workers):
            bar.advance(task, written)


def _map(function: Callable[[_Block], int], items: list[_Block], num_workers: int) -> Iterator[int]:
    """Apply a function to every item, here or in worker processes, and yield the results."""
    if num_workers == 0 or len(items) < 2:
        yield from map(function, items)
        return
    context = multiprocessing.get_context(
        "spawn"
    )  # forking after torch has started threads can hang
    with ProcessPoolExecutor(min(num_workers, len(items)), mp_context=context) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died: guard the script with `if __name__ == '__main__':`, "
                "check the memory, or pass num_workers=0"
            ) from error


def _finish(partial: Path, folder: Path, plan: dict[str, Any]) -> None:
    """Gather the records into ``meta.json`` and give the folder its final name."""
    paths = sorted(partial.glob("block-*.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    meta = {
        **plan,
        "key": digest(plan["description"]),
        "blocks": [record["digest"] for record in records],
        "notes": [note for record in records for note in record["notes"]],
    }
    write_json(partial / "meta.json", meta)
    if folder.exists():  # a folder that did not open as this store
        shutil.rmtree(folder)
    partial.rename(folder)
    for path in [*folder.glob("block-*.json"), folder / "plan.json"]:
        path.unlink()


def _digest_array(array: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
