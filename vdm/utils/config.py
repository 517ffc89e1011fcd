"""How an object is written down as ``{class_path, init_args}`` and built again."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


def configurable(cls: T) -> T:
    """Class decorator: remember the constructor's arguments, for :func:`describe`."""
    init = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        init(self, *args, **kwargs)
        if type(self) is cls:
            object.__setattr__(
                self, "_init_args", {k: v for k, v in list(bound.arguments.items())[1:]}
            )

    cls.__init__ = wrapper  # type: ignore[misc]
    cls._is_configurable = True  # type: ignore[attr-defined]
    return cls


def describe(value: Any) -> Any:
    """The plain data (JSON types) that :func:`build` turns back into an equal object.

    Raises:
        TypeError: If the value is neither plain data nor of a class whose arguments are known.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        arguments = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    elif hasattr(value, "_init_args"):
        arguments = value._init_args
    else:
        raise TypeError(
            f"cannot describe a {type(value).__name__}: "
            "mark its class @configurable or make it a dataclass"
        )
    path = f"{type(value).__module__}.{type(value).__qualname__}"
    return {
        "class_path": path,
        "init_args": {name: describe(item) for name, item in arguments.items()},
    }


def build(description: Any) -> Any:
    """The inverse of :func:`describe`; sequences are tuples.

    Descriptions come in files of other people, so nothing is called but the classes of this package
    that :func:`describe` can write down.

    Raises:
        ValueError: If a class path leads to anything else or does not exist, or an argument is
            unknown.
    """
    if isinstance(description, list):
        return tuple(build(item) for item in description)
    if not isinstance(description, dict):
        return description
    if set(description) - {"class_path", "init_args"} or "class_path" not in description:
        return {key: build(item) for key, item in description.items()}
    path = description["class_path"]
    module, _, name = path.rpartition(".")
    if not module.startswith("vdm."):
        raise ValueError(f"got class path {path!r}, expected a class of the vdm package")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"class {path!r} does not exist: {error}") from error
    if not _is_describable(cls):
        raise ValueError(
            f"got class path {path!r}, expected a class of the vdm package that is a dataclass "
            "or marked @configurable"
        )
    arguments = {key: build(item) for key, item in description.get("init_args", {}).items()}
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error
    return cls(**arguments)


def _is_describable(cls: object) -> bool:
    """Whether this is a class of the package whose arguments are known."""
    return (
        inspect.isclass(cls)
        and cls.__module__.startswith("vdm.")
        and (dataclasses.is_dataclass(cls) or "_is_configurable" in vars(cls))
    )
