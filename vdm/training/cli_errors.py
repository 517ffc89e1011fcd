"""What jsonargparse says about wrong words, as one line with the nearest legal one."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Iterable
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from vdm.cli_parsing import nearest
from vdm.data.batches import BatchesModule
from vdm.training.base import TrainingModule

TOP: dict[str, type] = {
    "model": TrainingModule,
    "data": BatchesModule,
    "trainer.callbacks": Callback,
    "trainer.logger": Logger,
}
"""What the keys at the top of a recipe take."""
_KEY = re.compile(r'^\s*(?:- )?Parser key "([^"]*)":')
_CLASS = re.compile(r"Problem with given class_path '([^']*)'")
_UNKNOWN = (
    re.compile(r"Option '([^']*)' is not accepted"),
    re.compile(r"unrecognized arguments: --([^\s=]*)"),
    re.compile(r"does not accept option '([^']*)'"),
    re.compile(r"Key '([^']*)' is not expected"),
    re.compile(r"Unexpected key '([^']*)'"),
)
_NOISE = ("Expected a <class 'NoneType'>", "Given value", "Subtypes:", "Errors:", "Does not valid")


def one_line(message: str, flags: Iterable[str] = ()) -> str:
    """The innermost complaint, with the path of keys that leads to it.

    Args:
        message: Of the parser; may have many nested lines.
        flags: Keys that the parser takes on the top level.
    """
    path: list[str] = []
    owner: str | None = None
    leaves: list[str] = []
    for line in message.splitlines():
        if match := _KEY.match(line):
            path.append(match[1])
        elif match := _CLASS.search(line):
            owner = match[1]
        elif line.strip() and not any(noise in line for noise in _NOISE):
            leaves.append(line.strip().removeprefix("- "))
    for pattern in _UNKNOWN:
        if match := pattern.search(message):
            return _unknown(match[1], path, owner, flags)
    where = ".".join(path)
    complaint = "; ".join(dict.fromkeys(leaves)) or "cannot be read"
    if match := re.search(r"Expected a dot import path string: (\S+)", message):
        classes = _classes(path, owner)
        hint = nearest(match[1], classes) if classes else "expected the path of a class"
        return f"{where}: got {match[1]!r}, {hint}"
    complaint = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", complaint)
    return f"{where}: {complaint}" if where else complaint


def _unknown(key: str, path: list[str], owner: str | None, flags: Iterable[str]) -> str:
    key = key.replace("init_args.", "")
    legal = list(flags) if owner is None else _arguments(owner)
    if owner is None and "." in key:  # a group: compare within it, or the group's own name
        group = key.split(".")[0]
        inside = [flag for flag in legal if flag.startswith(f"{group}.")]
        legal = inside or sorted({flag.split(".")[0] for flag in legal})
        shown = key if inside else group
        return f"got {key}, nothing reads it; {nearest(shown, legal)}"
    full = ".".join([*path, key])
    return f"got {full}, nothing reads it; {nearest(key.split('.')[0], legal)}"


def _load(path: str) -> type:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _arguments(path: str) -> list[str]:
    """Names of the arguments of a class."""
    return [name for name in inspect.signature(_load(path)).parameters if name != "self"]


def _classes(path: list[str], owner: str | None) -> list[str]:
    """Names of the classes that a key takes, as far as they are imported."""
    if owner is None:
        return sorted(_concrete(TOP[path[-1]])) if path and path[-1] in TOP else []
    annotated: object = _load(owner)
    for name in path[-1].split("."):
        hints = _hints(annotated)
        annotated = hints.get(name, object)
        bases = getattr(annotated, "__args__", ())
        annotated = next((b for b in bases if isinstance(b, type)), annotated)
    if not isinstance(annotated, type):
        return []
    return sorted(_concrete(annotated))


def _hints(cls: object) -> dict[str, object]:
    if not isinstance(cls, type):
        return {}
    source: Any = cls if dataclasses.is_dataclass(cls) else cls.__dict__["__init__"]
    return typing.get_type_hints(source)


def _concrete(base: type) -> set[str]:
    own: set[str] = set() if inspect.isabstract(base) else {base.__name__}
    children: list[type] = base.__subclasses__()
    for child in children:
        own |= _concrete(child)
    return own
