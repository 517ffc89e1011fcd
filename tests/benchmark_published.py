"""Published networks against their references, interleaved in one process: part of ``make bench``.

By itself it takes parts of their names: ``.venv/bin/python tests/benchmark_published.py svd``.

A ratio is ours / theirs, so that less is better: of times the median over rounds, of memory that of
the most bytes of tensors alive at once, weights aside, which is the same on every machine.
"""

from __future__ import annotations

import math
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
from tests.pretrained.speed import CASES, Pair, peak_bytes, time_ratio  # noqa: E402

ROUNDS = {1: 5, 2: 9}
"""Rounds by the number of threads; a second one is disturbed more."""

MOST_TIME = 1.0
MOST_MEAN_TIME = 0.8
MOST_MEMORY = {"SVD temporal decoder": 0.5}
MOST_UNET_MEMORY = 0.65
MOST_ERROR = 1e-5


class Row(NamedTuple):
    """What was measured of one network.

    Args:
        name: Which.
        error: Relative L2 difference of the results.
        times: Ours / theirs by the number of threads.
        half: The same in bfloat16 on one thread.
        peaks: Bytes of ours and theirs.
    """

    name: str
    error: float
    times: dict[int, float]
    half: float
    peaks: tuple[int, int]

    @property
    def memory(self) -> float:
        """Ours / theirs."""
        return self.peaks[0] / self.peaks[1]

    @property
    def is_kept(self) -> bool:
        """Whether every bound on a single network is kept."""
        most = MOST_MEMORY.get(self.name, MOST_UNET_MEMORY)
        is_fast = all(ratio <= MOST_TIME for ratio in self.times.values())
        return is_fast and self.memory <= most and self.error <= MOST_ERROR


def measure(name: str) -> Row:
    """One row of the table."""
    pair: Pair = CASES[name]()
    with torch.no_grad():
        error = relative_error(pair.ours.run(), pair.theirs.run())
    peaks = (peak_bytes(pair.ours), peak_bytes(pair.theirs))
    before, times = torch.get_num_threads(), {}
    try:
        for threads, rounds in ROUNDS.items():
            torch.set_num_threads(threads)
            times[threads] = time_ratio(pair, rounds)
        torch.set_num_threads(1)
        half = time_ratio(CASES[name](torch.bfloat16), ROUNDS[1])
    finally:
        torch.set_num_threads(before)
    return Row(name, error, times, half, peaks)


def geometric_mean(rows: list[Row]) -> float:
    """Of all ratios of times in float32."""
    logs = [math.log(ratio) for row in rows for ratio in row.times.values()]
    return math.exp(sum(logs) / len(logs))


def table_of(rows: list[Row]) -> Table:
    """What is printed."""
    version = diffusers.__version__
    table = Table(title=f"ours / diffusers {version}, CPU, torch {torch.__version__}, eager")
    table.add_column("network", no_wrap=True)
    for threads in ROUNDS:
        table.add_column(f"time, {threads} thread{'s'[: threads - 1]}", justify="right")
    for column in ("time in bf16", "memory", "peak, ours", "peak, theirs", "difference", ""):
        table.add_column(column, justify="right")
    for row in rows:
        times = [f"{row.times[threads]:.2f}" for threads in ROUNDS]
        megabytes = [f"{peak / 1e6:.0f} MB" for peak in row.peaks]
        verdict = "" if row.is_kept else "MISSED"
        numbers = [*times, f"{row.half:.2f}", f"{row.memory:.2f}", *megabytes, f"{row.error:.0e}"]
        table.add_row(row.name, *numbers, verdict)
    return table


def published(words: Sequence[str] = ("",)) -> int:
    """Measure and print everything.

    Args:
        words: Parts of the names of networks to measure.

    Returns:
        How many bounds are not kept.
    """
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity_error()
    names = [name for name in CASES if any(word.lower() in name.lower() for word in words)]
    rows = [measure(name) for name in names]
    mean = geometric_mean(rows)
    console = Console(width=max(Console().width, 120))
    console.print(table_of(rows))
    missed = mean > MOST_MEAN_TIME
    console.print(
        f"geometric mean of times in float32: {mean:.2f} <= {MOST_MEAN_TIME}"
        + ("   MISSED" if missed else "")
    )
    return missed + sum(not row.is_kept for row in rows)


if __name__ == "__main__":
    sys.exit(published(sys.argv[1:] or [""]) > 0)
