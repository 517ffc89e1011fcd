"""From files to weights: safe readers, checksums, and a strict fill that accounts for every key."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vdm.layers.frames import FrameConv


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_safetensors(
    path: Path, sha256: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Args:
        path: The file.
        sha256: What its bytes must hash to, if known.

    Returns:
        Tensors by key, and the file's metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated, of another format, or has another checksum.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: {what_is_wrong(path)} ({error})") from error
    if sha256 is not None and (found := sha256_of(path)) != sha256:
        raise ValueError(
            f"{path}: got sha256 {found[:16]}..., expected {sha256[:16]}...: the file was changed"
        )
    return tensors, metadata


def write_safetensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> str:
    """Write a safetensors file whole or not at all.

    Returns:
        sha256 of the file.
    """
    packed = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(packed, name, metadata=metadata)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return sha256_of(path)


def read_pickled(path: Path) -> Any:
    """A torch file, admitting tensors and plain containers only: nothing in it is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated, holds other objects, or is no torch file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: refused: it pickles objects other than tensors and plain data"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: {what_is_wrong(path)}") from error


def fill(module: nn.Module, state: Mapping[str, Tensor], where: str) -> nn.Module:
    """Copy weights into a module that has exactly these keys and shapes.

    Args:
        module: Its own state is overwritten, and weights are converted to its dtypes. One on the
            meta device takes the tensors themselves, as they are.
        state: Tensors by key.
        where: The file they came from, for messages.

    Returns:
        The module in eval mode, without gradients.

    Raises:
        ValueError: If a key is missing or surplus, a shape differs, or a value is not finite.
    """
    own = module.state_dict()
    kind = type(module).__name__
    if missing := sorted(own.keys() - state.keys()):
        raise ValueError(f"{where}: {kind} misses {name_some(missing)}")
    if surplus := sorted(state.keys() - own.keys()):
        raise ValueError(f"{where}: {kind} has no {name_some(surplus)}")
    state = {key: state[key] for key in own}  # read once, where reading is late
    for key, value in own.items():
        if state[key].shape != value.shape:
            got, expected = tuple(state[key].shape), tuple(value.shape)
            raise ValueError(f"{where}: {key} has shape {got}, {kind} expects {expected}")
        if not torch.isfinite(state[key]).all():
            raise ValueError(f"{where}: {key} holds NaN or infinite values")
    is_empty = any(value.is_meta for value in own.values())
    module.load_state_dict(state, assign=is_empty)
    for part in module.modules():
        if isinstance(part, FrameConv):
            part.arrange()
    return module.eval().requires_grad_(False)


def name_some(keys: list[str], limit: int = 3) -> str:
    """The first keys of a list, and how many there are in all."""
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


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
