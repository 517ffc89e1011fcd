"""How class names become label numbers, and which number says nothing."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Labels:
    """A closed set of class names.

    Args:
        names: The names, in the order of their numbers.

    Raises:
        ValueError: If a name occurs twice or there is none.
    """

    names: Sequence[str]

    def __post_init__(self) -> None:
        """Check the names."""
        if not self.names:
            raise ValueError("got no names, expected at least one")
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if list(self.names).count(name) > 1)
            raise ValueError(f"got the name {twice!r} twice, expected distinct names")

    def __len__(self) -> int:
        """Number of classes, "none" not counted."""
        return len(self.names)

    @property
    def null(self) -> int:
        """The label that says nothing, as ``LabelEmbedding`` has it."""
        return len(self.names)

    def __call__(self, names: Sequence[str]) -> Int[Tensor, " b"]:
        """The numbers of some names; ``""`` says nothing.

        Raises:
            ValueError: If a name is unknown.
        """
        known = {name: number for number, name in enumerate(self.names)} | {"": self.null}
        for name in names:
            if name not in known:
                nearest = difflib.get_close_matches(name, self.names, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown label {name!r}, did you mean {nearest!r}?")
        return torch.tensor([known[name] for name in names], dtype=torch.long)
