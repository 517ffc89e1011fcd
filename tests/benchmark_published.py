"""Published models against their references, interleaved in one process: part of ``make bench``.

By itself it takes parts of their names: ``.venv/bin/python tests/benchmark_published.py svd``.

A ratio is ours / theirs, so that less is better: of times the median over rounds, of memory that of
the most bytes of tensors alive at once, weights aside, which is the same on every machine. Times
are those on the wall where the process had its cores to itself, and otherwise those that cores
worked for it, which others disturb less; the table says which counts.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import diffusers
import torch
from rich.console import Console
from rich.table import Table

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "support")]

from tests.models.unet3d_oracles import relative_error  # noqa: E402
from tests.pretrained import speed  # noqa: E402
from tests.pretrained.speed import Pair, Times, measure_times, peak_bytes  # noqa: E402
from tests.pretrained.speed_dit import DECODERS, TRANSFORMERS  # noqa: E402
from vdm.utils.hardware import has_bfloat16  # noqa: E402

ROUNDS = {1: 5, 2: 9}
"""Rounds by the number of threads; a second one is disturbed more."""


class Family(NamedTuple):
    """Models that bounds are set for together.

    Args:
        cases: What is measured of each.
        mean: The geometric mean of times that is to be kept in float32.
        memory: The memory that each is to keep.
        error: The relative L2 difference that each is to keep.
    """

    cases: dict[str, speed.Case]
    mean: float
    memory: float
    error: float


FAMILIES = {
    "U-Nets and the decoder of SVD": Family(speed.CASES, 0.8, 0.65, 1e-5),
    "transformers": Family(TRANSFORMERS, 0.92, 0.7, 1e-5),
    "causal VAEs": Family(DECODERS, 0.85, 0.65, 2e-5),
}
MOST_TIME = 1.0


class Row(NamedTuple):
    """What was measured of one model.

    Args:
        name: Which.
        family: What it is one of.
        error: Relative L2 difference of the results.
        times: By the number of threads.
        half: In bfloat16 on one thread; None where no hardware has it.
        peaks: Bytes of ours and theirs.
    """

    name: str
    family: Family
    error: float
    times: dict[int, Times]
    half: Times | None
    peaks: tuple[int, int]

    @property
    def memory(self) -> float:
        """Ours / theirs."""
        return self.peaks[0] / self.peaks[1]

    @property
    def is_kept(self) -> bool:
        """Whether every bound on a single model is kept."""
        is_fast = all(times.ratio <= MOST_TIME for times in self.times.values())
        return is_fast and self.memory <= self.family.memory and self.error <= self.family.error


def measure(name: str, family: Family) -> Row:
    """One row of the table."""
    make = family.cases[name]
    pair: Pair = make()
    with torch.no_grad():
        error = relative_error(pair.ours.run(), pair.theirs.run())
    peaks = (peak_bytes(pair.ours), peak_bytes(pair.theirs))
    before, times = torch.get_num_threads(), {}
    try:
        for threads, rounds in ROUNDS.items():
            if threads > len(os.sched_getaffinity(0)):
                continue
            torch.set_num_threads(threads)
            times[threads] = measure_times(pair, rounds)
        torch.set_num_threads(1)
        half = measure_times(make(torch.bfloat16), ROUNDS[1]) if has_bfloat16() else None
    finally:
        torch.set_num_threads(before)
    return Row(name, family, error, times, half, peaks)


def geometric_mean(rows: list[Row]) -> float:
    """Of all ratios of times in float32."""
    logs = [math.log(times.ratio) for row in rows for times in row.times.values()]
    return math.exp(sum(logs) / len(logs))


def table_of(rows: list[Row]) -> Table:
    """What is printed."""
    table = Table(
        title=f"ours / diffusers {diffusers.__version__}, CPU, torch {torch.__version__}, eager",
        caption="times: on the wall / that cores worked; [b]bold[/b] counts",
    )
    table.add_column("model", no_wrap=True)
    for threads in ROUNDS:
        table.add_column(f"{threads} thread{'s'[: threads - 1]}", justify="right", no_wrap=True)
    for column in ("bf16", "memory", "peak, ours", "peak, theirs", "difference", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        times = [_shown(row.times.get(threads)) for threads in ROUNDS]
        megabytes = [f"{peak / 1e6:.0f} MB" for peak in row.peaks]
        verdict = "" if row.is_kept else "MISSED"
        half = _shown(row.half) if row.half else "none"
        numbers = [*times, half, f"{row.memory:.2f}", *megabytes, f"{row.error:.0e}"]
        table.add_row(row.name, *numbers, verdict)
    return table


def _shown(times: Times | None) -> str:
    if times is None:
        return "no core"
    both = {"wall": f"{times.wall:.2f}", "cpu": f"{times.cpu:.2f}"}
    both[times.clock] = f"[b]{both[times.clock]}[/b]"
    return " / ".join(both.values())


def published(words: Sequence[str] = ("",)) -> int:
    """Measure and print everything.

    Args:
        words: Parts of the names of models to measure.

    Returns:
        How many bounds are not kept.
    """
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity_error()
    console, missed = Console(width=max(Console().width, 120)), 0
    for title, family in FAMILIES.items():
        names = [
            name for name in family.cases if any(word.lower() in name.lower() for word in words)
        ]
        if not names:
            continue
        rows = [measure(name, family) for name in names]
        mean = geometric_mean(rows)
        is_slow = mean > family.mean
        console.print(table_of(rows))
        console.print(
            f"{title}: geometric mean of times in float32 {mean:.2f} <= {family.mean}"
            + ("   MISSED" if is_slow else "")
        )
        missed += is_slow + sum(not row.is_kept for row in rows)
    return missed


if __name__ == "__main__":
    sys.exit(published(sys.argv[1:] or [""]) > 0)
