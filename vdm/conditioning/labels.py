"""How class names become label numbers, and which number says nothing."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from vdm.utils.config import configurable
from vdm.world import attributes as a
from vdm.world.captions import parse_caption


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


class LabelStates(NamedTuple):
    """What :class:`CaptionLabels` hands to a network: a field of ``Conditioning``."""

    label: Int[Tensor, " b"]


@configurable
class CaptionLabels(nn.Module):
    """From captions of the embedded world to classes, in the place of a text encoder.

    A network with as many ``num_labels`` is then conditioned on the class alone. A prompt is a
    caption, of which the first object counts, or the name of a class, such as ``left`` or ``star``
    or ``star left``.

    Args:
        kind: What the class is: the motion (12), the shape (7), or both (the 80 that exist).
    """

    def __init__(self, kind: Literal["motion", "shape", "shape_motion"] = "motion") -> None:
        super().__init__()
        names = {
            "motion": list(a.MOTIONS),
            "shape": list(a.SHAPES),
            "shape_motion": [f"{shape} {motion}" for shape, motion in a.DRAWABLE_PAIRS],
        }
        if kind not in names:
            raise ValueError(f"got kind={kind!r}, expected one of {', '.join(names)}")
        self.kind = kind
        self.labels = Labels(names[kind])

    @property
    def null(self) -> int:
        """The label that says nothing: the network's ``num_labels``."""
        return self.labels.null

    def forward(self, prompts: Sequence[str]) -> LabelStates:
        """The labels of captions or class names; ``""`` says nothing.

        Raises:
            ValueError: If a prompt is neither a caption nor a class.
        """
        return LabelStates(self.labels([self._name(prompt) for prompt in prompts]))

    def encode(self, prompts: Sequence[str]) -> LabelStates:
        """The same as calling it."""
        return self(prompts)

    def _name(self, prompt: str) -> str:
        if not prompt.strip() or prompt in self.labels.names:
            return prompt.strip()
        if " " not in prompt.strip() or prompt.split()[0] in a.SHAPES:
            return prompt  # the name of a class, unknown
        thing = parse_caption(prompt).objects[0]
        name = {"motion": thing.motion, "shape": thing.shape}
        return name.get(self.kind, f"{thing.shape} {thing.motion}")
