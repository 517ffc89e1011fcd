"""Plots of an experiment: loss against operations, quality against steps and against seconds.

The files are SVG without dates and random names, so that the same results give the same bytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vdm.comparison.experiment import Experiment
from vdm.comparison.report import CAPTIONS, Results, seconds_of
from vdm.comparison.statistics import spread
from vdm.comparison.timing import Timing

WHOLE = f"{CAPTIONS}/whole"


def write_plots(
    experiment: Experiment, results: Results, timing: Timing | None = None
) -> list[Path]:
    """Write every plot that there are results for, beside ``experiment.yaml``."""
    made = []
    if any(run.training for runs in results.values() for run in runs):
        made.append(_loss(experiment.folder / "loss.svg", results))
    for name in experiment.sweep:
        if any(run.sweep for runs in results.values() for run in runs):
            made.append(_quality(experiment.folder / f"quality_{name}.svg", results, name))
            if name == "steps":
                path = experiment.folder / "quality_seconds.svg"
                made.append(_quality(path, results, name, timing, in_seconds=True))
    return made


@contextmanager
def _figure(path: Path, xlabel: str, ylabel: str) -> Iterator[Any]:
    """Axes that end up in a file, the same bytes every time."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": path.name, "font.size": 9, "svg.fonttype": "none"}):
        figure = Figure(figsize=(5, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        yield axes
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _loss(path: Path, results: Results) -> Path:
    with _figure(path, "training operations, TFLOP", "validation loss") as axes:
        for arm, runs in results.items():
            stages = range(len(runs[0].training) if runs else 0)
            for number in stages:
                same = [run.training[number] for run in runs]
                first = same[0]
                x = [step * first["flops"] / first["steps"] / 1e12 for step, _ in first["losses"]]
                curves = [[loss for _, loss in stage["losses"]] for stage in same]
                name = first["stage"] if len(stages) > 1 else arm
                _band(axes, x, curves, name)
    return path


def _quality(
    path: Path,
    results: Results,
    argument: str,
    timing: Timing | None = None,
    in_seconds: bool = False,
) -> Path:
    label = "seconds a clip" if in_seconds else argument.replace("_", " ")
    with _figure(path, label, "whole captions, %") as axes:
        for arm, runs in results.items():
            rows = [[row for row in run.sweep if row["argument"] == argument] for run in runs]
            for data in dict.fromkeys(d for run in rows for row in run for d in row["scores"]):
                curves = [[row["scores"][data].get(WHOLE) for row in run] for run in rows]
                if not curves or any(value is None for curve in curves for value in curve):
                    continue
                x = [same[0]["value"] for same in zip(*rows, strict=True)]
                if in_seconds:
                    noted = [[row["seconds"] for row in same] for same in zip(*rows, strict=True)]
                    taken = [
                        seconds_of(timing, seconds, arm, argument, value)
                        for seconds, value in zip(noted, x, strict=True)
                    ]
                    if not all(taken):
                        continue
                    x = [statistics.median(seconds) for seconds in taken]
                _band(axes, x, curves, f"{arm}, {data}")
    return path


def _band(axes: Any, x: Sequence[float], curves: Sequence[Sequence[float]], name: str) -> None:
    """The mean of some curves, and one standard deviation around it."""
    if not x or len({len(curve) for curve in curves}) > 1:
        return
    means, spreads = zip(*(spread(values) for values in zip(*curves, strict=True)), strict=True)
    (line,) = axes.plot(x, means, marker="o", markersize=3, label=name)
    low = [mean - deviation for mean, deviation in zip(means, spreads, strict=True)]
    high = [mean + deviation for mean, deviation in zip(means, spreads, strict=True)]
    axes.fill_between(x, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
