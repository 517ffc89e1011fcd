"""What calls cost: bytes alive, bytes read and written, floating-point operations."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class FusedAttention(TorchFunctionMode):
    """Plans attention as real devices compute it: fused, the scores never in memory.

    On the meta device alone attention falls apart into products and a softmax.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        q, k, v, *rest = args
        mask = rest[0] if rest else kwargs.get("attn_mask")
        if v.shape[-1] != q.shape[-1]:
            return func(*args, **kwargs)
        mask = None if mask is None else mask.to(q.dtype)
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return fused(q, k, v, attn_mask=mask)[0]


class Form(NamedTuple):
    """All that there is of a tensor on the meta device."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


class Known(NamedTuple):
    """What an operation on the meta device gives, whenever it is given the same.

    Args:
        made: A new tensor of this form; None for its first argument, written over.
        flops: Floating-point operations.
        traffic: Bytes read and written.
    """

    made: Form | None
    flops: int
    traffic: int


class MemoryMeter(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and what operations do.

    The layers of a network are much alike, and shapes are slow to find on the meta device: what an
    operation gives there is found once.

    Args:
        known: Tensors that do not count, such as weights.
    """

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = self.traffic = self.flops = 0
        self._known: dict[tuple[Any, ...], Known] = {}
        self._storages: dict[int, Any] = {}
        for tensor in known:
            storage = tensor.untyped_storage()
            self._storages[id(storage)] = storage

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.is_view:  # of what is alive, and may have been before: nothing is read or written
            out = func(*args, **kwargs)
            self._count_all(out)
            return out
        told: list[Any] = [func]
        is_meta = _forms((args, tuple(kwargs.items())), told)
        key = tuple(told) if is_meta else None
        known = self._known.get(key) if key is not None else None
        if known is None:
            out = func(*args, **kwargs)
            known = self._find(func, args, kwargs, out)
            if key is not None and _is_determined(args, kwargs, out):
                self._known[key] = known
        elif known.made is None:
            out = args[0]
        else:
            shape, stride, dtype = known.made
            out = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        self.flops += known.flops
        self.traffic += known.traffic
        self._count_all(out)
        return out

    def _count_all(self, out: Any) -> None:
        for tensor in (out,) if isinstance(out, Tensor) else _tensors(out):
            self._count(tensor.untyped_storage())

    def _find(self, func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> Known:
        """What an operation has given."""
        form = None
        if isinstance(out, Tensor) and not (args and out is args[0]):
            form = Form(out.shape, out.stride(), out.dtype)
        formula = flop_registry.get(func._overloadpacket)
        flops = 0 if formula is None else int(formula(*args, **kwargs, out_val=out))
        both = _tensors(out) + _tensors((args, kwargs))
        return Known(form, flops, sum(tensor.nbytes for tensor in both))

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, num_bytes = id(storage), storage.nbytes()
        if key in self._storages:
            return
        self._storages[key] = weakref.ref(storage, partial(self._free, key, num_bytes))
        self.live += num_bytes
        self.peak = max(self.peak, self.live)

    def _free(self, key: int, num_bytes: int, _: Any) -> None:
        del self._storages[key]
        self.live -= num_bytes


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _forms(value: Any, found: list[Any]) -> bool:
    """Note down arguments, of tensors their forms; whether all of these are on the meta device."""
    if isinstance(value, Tensor):
        found += (value.shape, value.stride(), value.dtype)
        return value.is_meta
    if isinstance(value, (tuple, list)):
        found.append(len(value))
        return all(_forms(part, found) for part in value)
    found += (type(value), value)  # for 1 equals True
    return True


def _is_determined(args: Any, kwargs: dict[str, Any], out: Any) -> bool:
    """Whether it is a new tensor on the meta device, or the first argument as it was."""
    if not isinstance(out, Tensor) or not out.is_meta:
        return False
    if args and out is args[0]:
        return True
    given = {id(tensor.untyped_storage()) for tensor in _tensors((args, kwargs))}
    return id(out.untyped_storage()) not in given
