"""At which noise times a call samples: the model's grid, another by name, or times as given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion import time_grids
from vdm.pipelines.request import check_steps, named
from vdm.pretrained.parts import Defaults

if TYPE_CHECKING:
    from vdm.pipelines.generate import Generator

TimeGridAsked = str | Mapping[str, Any] | Sequence[float]
"""A function of ``vdm.diffusion.time_grids``, the same with arguments beside its ``name``, or times
from noise down to 0."""
KNOWN = ("schedule", "num_latents", "num_tokens", "num_frames", "clip")
"""What a grid is told of the model and the clip."""


@dataclass(frozen=True)
class Walk:
    """Noise times from noise to clean data.

    Args:
        steps: How many steps.
        rule: Name of a function of ``vdm.diffusion.time_grids``.
        args: Its arguments besides the number of steps and what it is told of the clip.
        listed: The times themselves, instead.
    """

    steps: int
    rule: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    listed: tuple[float, ...] = ()

    def notes(self) -> dict[str, Any]:
        """What a clip notes of it."""
        grid = list(self.listed) if self.listed else {"name": self.rule, **self.args}
        return {"steps": self.steps, "time_grid": grid}

    def times(self, generator: Generator, latents: tuple[int, int, int]) -> Float[Tensor, " n"]:
        """The times, in float64.

        Args:
            generator: The model.
            latents: Frames, height and width of the clip's latents.
        """
        if self.listed:
            return torch.tensor(self.listed, dtype=torch.float64)
        t, h, w = latents
        (_, sh, sw), (_, ph, pw) = generator.geometry.strides, generator.geometry.patch_size
        known = {
            "schedule": generator.schedule,
            "num_latents": prod(latents),
            "num_tokens": h * w // (ph * pw),
            "num_frames": t,
            "clip": (t, h * sh, w * sw),
        }
        make = named(time_grids, self.rule, "time grid")
        told = {name: known[name] for name in inspect.signature(make).parameters if name in known}
        return make(self.steps, **told, **self.args)


def read_walk(asked: TimeGridAsked | None, steps: int | None, defaults: Defaults) -> Walk:
    """The noise times of a call; what is not given is the model's own.

    Args:
        asked: Another grid than the model's.
        steps: How many steps; of listed times there is one fewer than times.
        defaults: The model's.

    Raises:
        ValueError: If there is no such grid, it takes other arguments, or times do not fall to 0.
    """
    if asked is not None and not isinstance(asked, str | Mapping):
        return _listed(asked, steps)
    steps = check_steps(defaults.steps if steps is None else steps)
    if asked is None:
        return Walk(steps, defaults.time_grid, defaults.time_grid_args)
    told = {"name": asked} if isinstance(asked, str) else dict(asked)
    name = told.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"got time_grid={told}, expected a name in it, e.g. 'name': 'uniform'")
    if not told and name == defaults.time_grid:
        told = dict(defaults.time_grid_args)
    parameters = inspect.signature(named(time_grids, name, "time grid")).parameters
    own = [key for key in list(parameters)[1:] if key not in KNOWN]
    if unknown := sorted(set(told) - set(own)):
        may = f"one of {', '.join(own)}" if own else "none"
        raise ValueError(f"got time_grid {name!r} with {unknown[0]}, expected {may}")
    needed = [key for key in own if parameters[key].default is inspect.Parameter.empty]
    if missing := [key for key in needed if key not in told]:
        raise ValueError(
            f"got time_grid {name!r} without {missing[0]}, expected e.g. "
            f"time_grid={{'name': {name!r}, {missing[0]!r}: 1.0}}"
        )
    return Walk(steps, name, told)


def times_of(
    generator: Generator, steps: int | None = None, latents: tuple[int, int, int] = (1, 1, 1)
) -> Float[Tensor, " n"]:
    """The noise times that a model samples at, where a call says nothing else.

    Args:
        generator: The model.
        steps: How many steps; its own number if None.
        latents: Frames, height and width of the clip's latents, on which some grids depend.
    """
    return read_walk(None, steps, generator.parts.defaults).times(generator, latents)


def _listed(times: Sequence[float], steps: int | None) -> Walk:
    """Times as they are."""
    listed = tuple(map(float, times))
    if len(listed) < 2 or listed[-1] != 0 or listed[0] > 1:
        raise ValueError(
            f"got {len(listed)} times from {listed[0] if listed else None} to "
            f"{listed[-1] if listed else None}, expected at least 2, from at most 1 down to 0"
        )
    for before, after in pairwise(listed):
        if not after < before:
            raise ValueError(f"got time {after:g} after {before:g}, expected a smaller one")
    if steps not in (None, len(listed) - 1):
        raise ValueError(
            f"got steps={steps} and {len(listed)} times, expected {len(listed) - 1} or none"
        )
    return Walk(len(listed) - 1, listed=listed)
