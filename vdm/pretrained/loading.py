"""From files to weights: safe readers, checksums, and a strict fill that accounts for every key."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vdm.layers.conv import CausalConv3d
from vdm.layers.frames import FrameConv
from vdm.pretrained.tensor_files import TensorFiles, name_of, release, what_is_wrong

RELEASED_AFTER = 4 * 2**20
"""Bytes that are converted before the file that they were read from is let go of."""


@dataclass(frozen=True)
class Reading:
    """How the weights of a model are read.

    Args:
        variant: Which files, where there are several, e.g. ``fp16``; the plain ones if None.
        dtype: Convert floating-point weights to this type, one by one as they are read; as they
            are stored if None.
        is_plan: Read no weights: modules stay on the meta device, where tensors have shapes alone.
    """

    variant: str | None = None
    dtype: torch.dtype | None = None
    is_plan: bool = False


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated or of another format.
    """
    files = TensorFiles([path])
    return dict(files), files.metadata


def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file whose bytes do not hash to what is expected.

    Raises:
        ValueError: If they do not.
    """
    if (found := sha256_of(path)) != expected:
        raise ValueError(
            f"{path}: got sha256 {found[:16]}..., expected {expected[:16]}...: the file was changed"
        )


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

    Tensors stay in the file until they are used, unless it is of torch's early days.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated, holds other objects, or is no torch file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        is_mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL:? (\S+)", str(error))
        which = f" ({found[1]})" if found else ""
        raise ValueError(
            f"{path}: refused: it pickles objects other than tensors and plain data{which}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{path}: {what_is_wrong(path)}") from error


def fill(
    module: nn.Module, state: Mapping[str, Tensor], where: str, dtype: torch.dtype | None = None
) -> nn.Module:
    """Copy weights into a module that has exactly these keys and shapes.

    Args:
        module: Its own state is overwritten, and weights are converted to its dtypes. One on the
            meta device takes the tensors themselves, as they are.
        state: Tensors by key.
        where: The file they came from, for messages.
        dtype: Convert floating-point weights to this type, each before the next is read.

    Returns:
        The module in eval mode, without gradients.

    Raises:
        ValueError: If a key is missing or surplus, a shape differs, or a value is not finite or
            does not fit into ``dtype``.
    """
    own = module.state_dict()
    kind = type(module).__name__
    if missing := sorted(own.keys() - state.keys()):
        raise ValueError(f"{where}: {kind} misses {name_some(missing)}")
    if surplus := sorted(state.keys() - own.keys()):
        raise ValueError(f"{where}: {kind} has no {name_some(surplus)}")
    is_empty = any(value.is_meta for value in own.values())
    orders = _memory_orders(module) if is_empty else {}
    checked, num_bytes = {}, 0
    for key, value in own.items():
        found = state[key]  # read once, where reading is late
        name = f"{where}: {name_of(state, key)}"
        if found.shape != value.shape:
            got, expected = tuple(found.shape), tuple(value.shape)
            raise ValueError(f"{name} has shape {got}, {kind} expects {expected}")
        if not is_finite(found):
            raise ValueError(f"{name} holds NaN or infinite values")
        # One that is left in a mapped file would keep all others there, too.
        order = orders.get(key, range(found.ndim)) if orders else None
        weight = checked[key] = cast_weight(found, dtype, name, order)
        if weight is not found:
            num_bytes += found.nbytes
        if num_bytes > RELEASED_AFTER:
            num_bytes = 0
            release(state)
    module.load_state_dict(checked, assign=is_empty)
    return module.eval().requires_grad_(False)


def _memory_orders(module: nn.Module) -> dict[str, Sequence[int]]:
    """How kernels lie in memory, where another way than in files is faster to read."""
    return {
        f"{name}.weight".lstrip("."): part.memory_order
        for name, part in module.named_modules()
        if isinstance(part, (FrameConv, CausalConv3d))
    }


def is_finite(value: Tensor) -> bool:
    """Whether no number is NaN or infinite; needs no memory beside the tensor."""
    if not value.is_floating_point() or value.numel() == 0:
        return True
    if value.itemsize == 1:  # eight bits have no such operations
        value = value.float()
    return bool(torch.isfinite(torch.stack(torch.aminmax(value))).all())


def cast_weight(
    value: Tensor, dtype: torch.dtype | None, key: str, order: Sequence[int] | None = None
) -> Tensor:
    """A weight in another floating-point type; as it is if None.

    Args:
        value: The weight.
        dtype: The type.
        key: Its name, for messages.
        order: Copy it, even if it stays as it is, so that its axes lie in memory in this order.

    Raises:
        ValueError: If it does not fit, or is quantised.
    """
    if hasattr(value, "__tensor_flatten__"):
        raise ValueError(
            f"{key}: got a quantised weight, expected plain numbers: load without quantize"
        )
    kept = dtype is None or dtype == value.dtype or not value.is_floating_point()
    if kept and order is None:
        return value
    order = range(value.ndim) if order is None else order
    shape = [value.shape[axis] for axis in order]
    cast = value.new_empty(shape, dtype=value.dtype if kept else dtype)
    cast = cast.permute([order.index(axis) for axis in range(value.ndim)]).copy_(value)
    if kept:
        return cast
    if not is_finite(cast):
        raise ValueError(
            f"{key} does not fit into {str(dtype).removeprefix('torch.')}: "
            f"largest {value.abs().max():g}"
        )
    return cast


def name_some(keys: list[str], limit: int = 3) -> str:
    """The first keys of a list, and how many there are in all."""
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
