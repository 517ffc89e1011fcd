"""How the tests check the package's annotations: by beartype, and shapes where there are some.

jaxtyping's own wrapper binds the arguments of every call by name and checks them twice, with
shapes or without. That was a large part of the time of all tests, so here the check is put around
the function itself, and only functions that have shapes keep sizes of axes. It is made when a
function is first called: most are not in any one process, and making it takes far longer than to
import them. What is the same in every call is found once: the check of a function that is made
within another one, and what the annotation of a shape demands.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from types import CellType, CodeType, FunctionType
from typing import Any, NamedTuple

import jaxtyping
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import _array_types as arrays
from jaxtyping._storage import get_shape_memo, pop_shape_memo, push_shape_memo

# An int is welcome where a float is asked for, as everywhere else in Python.
check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))
whole = jaxtyping.jaxtyped
NO_ARGUMENTS: dict[str, Any] = {}


def install(package: str) -> None:
    """Check the annotations of whatever is imported from a package."""
    jaxtyping.jaxtyped = jaxtyped  # which its hook writes over every function and class
    arrays._MetaAbstractArray.__instancecheck__ = is_array
    jaxtyping.install_import_hook(package, "typecheck.check")


def jaxtyped(made: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """Check what a function is given and returns, or what a dataclass is made of.

    Args:
        made: A function or a class; None for the decorator.
        typechecker: Puts a check of annotations around a function.
    """
    if made is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(made):
        init = vars(made).get("__init__")
        if is_dataclass(made) and init is not None and not hasattr(init, "__wrapped__"):
            made.__init__ = jaxtyped(init, typechecker=typechecker)
        return made
    if known := _inner.get(made.__code__):
        return known.around(made)
    ready: Callable[..., Any] | None = None

    @functools.wraps(made)
    def from_first_call(*args: Any, **kwargs: Any) -> Any:
        nonlocal ready
        if ready is None:
            ready = _checked(made, typechecker)
        return ready(*args, **kwargs)

    return from_first_call


def _checked(made: Any, typechecker: Callable[[Any], Any]) -> Callable[..., Any]:
    written = made.__annotations__
    hints = {name: _resolve(hint, made.__globals__) for name, hint in written.items()}
    shapes = [shape for hint in hints.values() for shape in _shapes(hint)]
    if any("{" in shape.dim_str for shape in shapes):  # a size that is an argument
        return whole(made, typechecker=typechecker)
    is_inner = "<locals>" in made.__qualname__
    alike = _empty(made) if is_inner else made
    alike.__annotations__ = hints
    checked = typechecker(alike)
    if is_inner:
        _inner[made.__code__] = known = Inner(checked, bool(shapes))
        return known.around(made)
    made.__annotations__ = checked.__annotations__ = written
    return _keeps_sizes(checked) if shapes else checked


class Inner(NamedTuple):
    """What is known of a function that is made within another one.

    Args:
        check: The check of one that shares nothing with the function it is made in.
        has_shapes: Whether sizes of axes are kept.
    """

    check: FunctionType
    has_shapes: bool

    def around(self, made: FunctionType) -> Any:
        """The same check of another one."""
        told = self.check.__kwdefaults__
        if told is None or INSIDE not in told:  # it has no annotations
            return made
        names = self.check.__globals__, self.check.__name__, self.check.__defaults__
        checked = FunctionType(self.check.__code__, *names, self.check.__closure__)
        checked.__kwdefaults__ = {**told, INSIDE: made}
        functools.update_wrapper(checked, made)
        return _keeps_sizes(checked) if self.has_shapes else checked


_inner: dict[CodeType, Inner] = {}
INSIDE = "__beartype_func"
"""What beartype calls the function that it has put a check around."""


def _empty(made: FunctionType) -> FunctionType:
    """A function without what it shares with the one it is made in, which would stay alive."""
    cells = tuple(CellType() for _ in made.__code__.co_freevars)
    names = made.__globals__, made.__name__, made.__defaults__
    empty = FunctionType(made.__code__, *names, cells)
    empty.__kwdefaults__ = made.__kwdefaults__
    return empty


def _keeps_sizes(function: Any) -> Any:
    """An axis name stands for one size within a call."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        push_shape_memo(NO_ARGUMENTS)
        try:
            return function(*args, **kwargs)
        finally:
            pop_shape_memo()

    return wrapper


def is_array(kind: Any, value: Any) -> bool:
    """Whether a value is as the annotation of a shape says, within the sizes that are known.

    Args:
        kind: The annotation.
        value: Anything.
    """
    axes = _axes(kind)
    if axes is None:  # of a kind that is left to jaxtyping
        return kind.__instancecheck_str__(value) == ""
    if not isinstance(value, torch.Tensor) or not _has_dtype(kind, value.dtype):
        return False
    shape: tuple[Any, ...] = value.shape
    if axes.num_behind is not None:
        start, end = axes.num_before, len(shape) - axes.num_behind
        if end < start:
            return False
        shape = (*shape[:start], shape[start:end], *shape[end:])
    if len(shape) != len(axes.names):
        return False
    sizes, new = get_shape_memo()[0], {}
    for name, size in zip(axes.names, shape, strict=True):
        if name is None:
            continue
        expected = name if type(name) is int else sizes.get(name)
        if expected is None:
            expected = new.setdefault(name, size)
        if expected != size:
            return False
    if new:
        sizes.update(new)
    return True


class Axes(NamedTuple):
    """What the annotation of a shape says.

    Args:
        names: Names and sizes of axes; None for any size.
        num_before: Axes before the place of any number of axes, which have one name together.
        num_behind: Axes behind that; None if there is no such place.
    """

    names: tuple[str | int | None, ...]
    num_before: int
    num_behind: int | None


@functools.cache
def _axes(kind: Any) -> Axes | None:
    """What it says, if it is of tensors and nothing may be broadcast or computed."""
    if kind.array_type is not torch.Tensor or kind._skip_instancecheck:
        return None
    names: list[str | int | None] = []
    for dim in kind.dims:
        if dim in (arrays._anonymous_dim, arrays._anonymous_variadic_dim):
            names.append(None)
        elif dim.broadcastable or isinstance(dim, arrays._SymbolicDim):
            return None
        elif isinstance(dim, arrays._FixedDim):
            names.append(dim.size)
        elif dim.treepath:
            return None
        else:
            is_one = isinstance(dim, arrays._NamedDim)
            names.append(dim.name if is_one else f"*{dim.name}")
    if (place := kind.index_variadic) is None:
        return Axes(tuple(names), len(names), None)
    return Axes(tuple(names), place, len(names) - place - 1)


@functools.cache
def _has_dtype(kind: Any, dtype: torch.dtype) -> bool:
    """Whether numbers of this format are welcome, as jaxtyping finds it for an empty tensor."""
    anything = kind.dtype[torch.Tensor, "..."]
    return anything.__instancecheck_str__(torch.empty(0, dtype=dtype, device="meta")) == ""


def _resolve(hint: Any, names: dict[str, Any]) -> Any:
    """What an annotation stands for; anything, if only static checkers know."""

    def stub() -> None: ...

    stub.__annotations__ = {"hint": hint}
    try:
        return typing.get_type_hints(stub, names, include_extras=True)["hint"]
    except Exception:
        return Any


def _shapes(hint: Any) -> Iterable[Any]:
    """The annotations of shapes within one of something."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        yield hint
    for part in hint if isinstance(hint, list) else typing.get_args(hint):
        yield from _shapes(part)
