"""The progress bar of sampling: one line, on the error stream, so that output can be piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor


@contextmanager
def sampling_bar(
    num_clips: int, steps: int, shown: bool, unit: str = "steps"
) -> Iterator[Callable[[int, int, Tensor], None]]:
    """A callback for samplers that advances a bar.

    Args:
        num_clips: Clips in the batch.
        steps: Sampling steps.
        shown: Whether there is a bar at all.
        unit: What the steps are called.
    """
    clips = "1 clip" if num_clips == 1 else f"{num_clips} clips"
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        task = progress.add_task(f"sampling {clips}", total=steps)
        yield lambda step, num_steps, x: progress.update(task, completed=step + 1, total=num_steps)
