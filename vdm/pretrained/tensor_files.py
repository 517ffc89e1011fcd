"""Tensors that stay in their files until they are asked for, under whichever names are wanted."""

from __future__ import annotations

from abc import abstractmethod
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor


class LateTensors(Mapping[str, Tensor]):
    """Tensors that are read when they are asked for."""

    @abstractmethod
    def release(self) -> None:
        """Let go of the files: pages of one stay in memory while a tensor or a reader uses it."""

    def name_of(self, key: str) -> str:
        """What the file calls a tensor."""
        return key


class TensorFiles(LateTensors):
    """The tensors of some safetensors files, mapped into memory.

    Args:
        paths: The files; no key may be in two of them.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is truncated or of another format, or a key comes twice.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.metadata: dict[str, str] = {}
        self._place: dict[str, Path] = {}
        self._opened: dict[Path, Any] = {}
        for path in paths:
            opened = self._opened[path] = _open_safetensors(path)
            keys = list(opened.keys())
            if twice := sorted(self._place.keys() & set(keys)):
                raise ValueError(f"{path}: holds {twice[0]}, as another file does")
            self._place |= dict.fromkeys(keys, path)
            self.metadata |= opened.metadata() or {}

    def __getitem__(self, key: str) -> Tensor:
        path = self._place[key]
        if path not in self._opened:
            self._opened[path] = _open_safetensors(path)
        return self._opened[path].get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def release(self) -> None:
        """Close the files; they are opened again when a tensor is asked for."""
        self._opened.clear()


def name_of(tensors: Mapping[str, Any], key: str) -> str:
    """What a file calls a tensor, as far as it is known."""
    return tensors.name_of(key) if isinstance(tensors, LateTensors) else key


def _open_safetensors(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path}: {what_is_wrong(path)} ({error})") from error


class Renamed(LateTensors):
    """Some tensors under other names.

    Args:
        tensors: The tensors.
        names: Their keys by new name.
    """

    def __init__(self, tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        self._tensors, self._names = tensors, names

    def __getitem__(self, key: str) -> Tensor:
        return self._tensors[self._names[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def release(self) -> None:
        """Let go of their files."""
        release(self._tensors)

    def name_of(self, key: str) -> str:
        """What the file calls a tensor."""
        return name_of(self._tensors, self._names[key])


def release(tensors: Mapping[str, Tensor]) -> None:
    """Let go of the files of tensors, where they are read late."""
    if isinstance(tensors, ChainMap):
        for some in tensors.maps:
            release(some)
    elif isinstance(tensors, LateTensors):
        tensors.release()


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> Renamed:
    """The tensors whose keys begin with a prefix, by keys without it."""
    return Renamed(
        tensors, {key.removeprefix(prefix): key for key in tensors if key.startswith(prefix)}
    )


def what_is_wrong(path: Path) -> str:
    """What a file that its reader refused seems to be."""
    with path.open("rb") as stream:
        head = stream.read(4)
    if not head:
        return "the file is empty"
    if head[:1] == b"\x80" and path.suffix == ".safetensors":
        return "a pickle, not a safetensors file; refused"
    if head == b"PK\x03\x04" and path.suffix == ".safetensors":
        return "a torch or zip file, not a safetensors file; refused"
    return "the file is truncated or damaged"
