"""How the tests check the package's annotations: by beartype, and shapes where there are some.

jaxtyping's own wrapper binds the arguments of every call by name and checks them twice, with
shapes or without. That was a large part of the time of all tests, so here the check is put around
the function itself, and only functions that have shapes keep sizes of axes. It is made when a
function is first called: most are not in any one process, and making it takes far longer than to
import them.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

# An int is welcome where a float is asked for, as everywhere else in Python.
check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))
whole = jaxtyping.jaxtyped
SIZES = jaxtyping.jaxtyped("context")
"""Within it, an axis name stands for one size."""


def install(package: str) -> None:
    """Check the annotations of whatever is imported from a package."""
    jaxtyping.jaxtyped = jaxtyped  # which its hook writes over every function and class
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
    made.__annotations__ = hints
    checked = typechecker(made)
    made.__annotations__ = checked.__annotations__ = written
    return _keeps_sizes(checked) if shapes else checked


def _keeps_sizes(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with SIZES:
            return function(*args, **kwargs)

    return wrapper


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
