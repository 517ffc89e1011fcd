"""From the results of an experiment to tables in Markdown. Running it again changes nothing."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vdm.comparison.experiment import Experiment
from vdm.comparison.results import Result, arm_digest, values_of
from vdm.comparison.statistics import Outcomes, compare, interval, spread
from vdm.comparison.timing import Timing
from vdm.pipelines.evaluate_report import GENERATED, REAL, RECONSTRUCTED

Results = Mapping[str, Sequence[Result]]
CAPTIONS = "caption-accuracy"
PARTS = ("whole", "count", "colour", "shape", "motion", "size", "speed", "camera", "persistence")
QUALITY = {
    "fmd/flow": "fmd/flow",
    "fd/transnet": "fd/transnet",
    "fvd": "FVD",
    "jitter/residual": "flicker (jitter, residual) %",
    "jitter/jerk": "jitter, jerk %",
}
GIGA = 1e9
PART = re.compile(r"^(caption-accuracy|jitter)/[a-z]+/")
"""Protocols that differ in this alone are listed once."""


def write_table(experiment: Experiment, results: Results, timing: Timing | None = None) -> Path:
    """Write ``table.md`` beside ``experiment.yaml``."""
    path = experiment.folder / "table.md"
    path.write_text(table(experiment, results, timing), encoding="utf-8")
    return path


def table(experiment: Experiment, results: Results, timing: Timing | None = None) -> str:
    """All tables, with what they need to be read."""
    parts = [f"# {experiment.name}", "", experiment.question.strip(), ""]
    parts += [f"Expected: {experiment.hypothesis.strip()}", ""]
    parts += list(_warnings(experiment, results))
    for title, rows in (
        ("What the arms are", list(_arms(experiment))),
        ("Training", list(_training(results))),
        *((f"Captions, {data}", list(_captions(results, data))) for data in _data_sets(results)),
        *((f"Quality, {data}", list(_quality(results, data))) for data in _data_sets(results)),
        ("Sampling", list(_sampling(results, timing))),
        *((f"Sweep over {name}", list(_sweep(results, name, timing))) for name in experiment.sweep),
        *((f"Time over {name}", list(_timed(timing, name))) for name in experiment.timed),
        *_measured(results),
    ):
        if len(rows) > 1:
            parts += [f"## {title}", "", *markdown(rows), ""]
    parts += list(_notes(experiment, results, timing))
    return "\n".join(parts).rstrip() + "\n"


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells, the headings first."""
    head, *rest = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rest)]


def _warnings(experiment: Experiment, results: Results) -> Iterator[str]:
    """What is not there, or not of the files that are there now."""
    missing, stale = [], []
    for arm in experiment.arms:
        have = {result.seed: result for result in results.get(arm.name, ())}
        for seed in experiment.seeds:
            if seed not in have:
                missing.append(f"{arm.name} (seed {seed})")
            elif have[seed].digest != arm_digest(experiment, arm, seed):
                stale.append(f"{arm.name} (seed {seed})")
    if missing:
        yield f"**Not run yet:** {', '.join(missing)}."
        yield ""
    if stale:
        yield f"**Run under other settings than the files now say:** {', '.join(stale)}."
        yield ""


def _arms(experiment: Experiment) -> Iterator[list[str]]:
    yield ["arm", "differs in"]
    for arm in experiment.arms:
        yield [arm.name, f"`{_flat(arm.settings)}`" if arm.settings else "the recipe as it is"]


def _flat(value: Any) -> str:
    """Nested settings on one line: dotted keys, class names for ``class_path``."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            name = str(value["class_path"]).rpartition(".")[2]
            return f"{name}({_flat(value.get('init_args', {}))})"
        return ", ".join(f"{key}: {_flat(item)}" for key, item in _leaves(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_flat, value)) + "]"
    return str(value)


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """What is not itself keys and values, under dotted keys."""
    for key, item in value.items():
        inner = path if key in ("model", "init_args") and isinstance(item, Mapping) else path + key
        if isinstance(item, Mapping) and "class_path" not in item:
            yield from _leaves(item, inner and inner.rstrip(".") + ".")
        else:
            yield inner, item


def _training(results: Results) -> Iterator[list[str]]:
    """The budgets, stage by stage."""
    yield [
        "arm",
        "parameters",
        "forward, GFLOP a sample",
        "backward",
        "batch",
        "steps",
        "in all, TFLOP",
        "seconds (seeds)",
        "peak memory",
        "validation loss (seeds)",
    ]
    for arm, runs in results.items():
        if not runs or not runs[0].training:
            continue
        total = sum(stage["flops"] for stage in runs[0].training)
        for number, stage in enumerate(runs[0].training):
            same = [run.training[number] for run in runs]
            size = stage["batch_size"]
            losses = [one["losses"][-1][1] for one in same if one["losses"]]
            yield [
                stage["stage"],
                f"{stage['num_parameters'] / 1e6:.2f} M",
                f"{stage['forward_flops'] / size / GIGA:.3f}",
                f"{stage['backward_flops'] / size / GIGA:.3f}",
                str(size),
                str(stage["steps"]),
                f"{stage['flops'] / 1e12:.2f}",
                pair([one["seconds"] for one in same], "{:.0f}"),
                f"{max(one['peak_bytes'] for one in same) / GIGA:.2f} GB",
                pair(losses, "{:.4f}") if losses else "",
            ]
        if len(runs[0].training) > 1:
            row = [f"{arm}, all stages", *[""] * 9]
            row[6] = f"{total / 1e12:.2f}"
            yield row


def _data_sets(results: Results) -> list[str]:
    names: dict[str, None] = {}
    for runs in results.values():
        for run in runs:
            names |= dict.fromkeys(run.scores)
    return list(names)


def _captions(results: Results, data: str) -> Iterator[list[str]]:
    """Caption accuracy part by part, with what real clips reach and with the paired tests."""
    bits = {arm: outcomes_of(runs, data) for arm, runs in results.items() if runs}
    whole = {arm: values for arm, values in bits.items() if values is not None}
    tests = {}
    if whole:
        first, *_ = whole
        same = {k: v for k, v in whole.items() if k != first and v.shape == whole[first].shape}
        tests = compare(whole[first], same) if same else {}
    names = [part for part in PARTS if any(_has(runs, data, part) for runs in results.values())]
    if not names:
        return
    yield ["arm", *(f"{name} %" for name in names), "95 % of whole", "whole, against the first"]
    for arm, runs in results.items():
        if not _has(runs, data, "whole"):
            continue
        cells = [pair(values_of(list(runs), data, GENERATED, f"{CAPTIONS}/{n}")) for n in names]
        if arm in whole:
            low, high = interval(whole[arm])
            cells.append(f"{100 * low:.1f} to {100 * high:.1f}")
        else:
            cells.append("")
        if arm in tests:
            test = tests[arm]
            low, high = test.interval
            cells.append(
                f"{100 * test.value:+.1f} ({100 * low:.1f} to {100 * high:.1f}), p = {test.p:.3g}"
            )
        else:
            cells.append("")
        yield [arm, *cells]
    for source, label in ((REAL, "real clips"), (RECONSTRUCTED, "real clips through the VAE")):
        runs = [run for runs in results.values() for run in runs][:1]
        values = [values_of(runs, data, source, f"{CAPTIONS}/{name}") for name in names]
        if any(values):
            yield [label, *(pair(value) if value else "" for value in values), "", ""]


def _has(runs: Sequence[Result], data: str, part: str) -> bool:
    return bool(values_of(list(runs), data, GENERATED, f"{CAPTIONS}/{part}"))


def outcomes_of(runs: Sequence[Result], data: str) -> Outcomes | None:
    """Right and wrong clips of all seeds; None where they were not read."""
    rows = [[int(bit) for bit in run.outcomes[data]] for run in runs if data in run.outcomes]
    if not rows or len({len(row) for row in rows}) > 1:
        return None
    return np.array(rows, np.float64)


def _quality(results: Results, data: str) -> Iterator[list[str]]:
    """Distances and jitter, with their floors, and motion error."""
    everyone = [run for runs in results.values() for run in runs]
    names = [name for name in QUALITY if _distance(everyone, data, name)]
    if not names:
        return
    yield ["arm", "motion error %", *(QUALITY[name] for name in names)]
    for arm, runs in results.items():
        cells = [_distance(runs, data, name) for name in names]
        if not any(cells):
            continue
        motion = values_of(list(runs), data, GENERATED, f"{CAPTIONS}/motion")
        error = pair([100 - value for value in motion]) if motion else ""
        yield [arm, error, *cells]
    floors = [_floor(everyone, data, name) for name in names]
    if any(floors):
        yield ["floor: other real clips", "", *floors]


def _distance(runs: Sequence[Result], data: str, name: str) -> str:
    """A score of the arm's seeds; none of it where one of them had too few clips."""
    values = values_of(list(runs), data, GENERATED, name)  # refuses different protocols
    rows = [run.scores.get(data, {}).get(GENERATED, {}).get(name, {}) for run in runs]
    if any("not_enough" in row for row in rows):
        return "not enough"
    return pair(values) if values else ""


def _floor(runs: Sequence[Result], data: str, name: str) -> str:
    for run in runs:
        sources = run.scores.get(data, {})
        floor = sources.get(GENERATED, {}).get(name, {}).get("floor")
        real = sources.get(REAL, {}).get(name, {}).get("value")
        if (value := floor if floor is not None else real) is not None:
            return number(value)
    return ""


def _sampling(results: Results, timing: Timing | None) -> Iterator[list[str]]:
    """Seconds of a clip: side by side if they were timed so, otherwise as each run noted them."""
    yield ["arm", "seconds a clip", "peak memory above the program", "against the first"]
    first: tuple[str, float] | None = None
    for arm, runs in results.items():
        noted = [run.sampling["seconds"] for run in runs if run.sampling]
        seconds = seconds_of(timing, noted, arm)
        if not noted or not seconds:
            continue
        first = first or (arm, spread(seconds)[0])
        ratio = timing.ratio(arm, first[0]) if timing else spread(seconds)[0] / first[1]
        peak = max(run.sampling["peak_bytes"] for run in runs if run.sampling)
        yield [arm, _seconds(seconds, timing), f"{peak / 1e6:.0f} MB", f"{ratio:.2f}x"]


def seconds_of(
    timing: Timing | None,
    noted: list[float],
    arm: str,
    argument: str | None = None,
    value: Any = None,
) -> list[float]:
    """Of rounds side by side, or of the runs where there are none."""
    return noted if timing is None else timing.seconds(arm, argument, value)


def _seconds(values: list[float], timing: Timing | None) -> str:
    """Mean and spread over runs, or the median over rounds."""
    if timing is None or not values:
        return pair(values, "{:.2f}") if values else ""
    return f"{statistics.median(values):.2f}"


def _timed(timing: Timing | None, argument: str) -> Iterator[list[str]]:
    """What was only timed: seconds of a clip, an arm in each row."""
    if timing is None:
        return
    rows = [row for row in timing.rows if row["argument"] == argument]
    values = list(dict.fromkeys(row["value"] for row in rows))
    yield ["arm", *(f"{argument} {value}: seconds a clip" for value in values)]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        yield [arm, *(_seconds(timing.seconds(arm, argument, value), timing) for value in values)]


def _sweep(results: Results, name: str, timing: Timing | None) -> Iterator[list[str]]:
    """Scores under other sampling arguments."""
    rows = [
        (arm, value, [row for run in runs for row in run.sweep if _is(row, name, value)])
        for arm, runs in results.items()
        for value in _swept_values(runs, name)
    ]
    keys: dict[tuple[str, str], None] = {}
    for _, _, found in rows:
        for row in found:
            for data, scores in row["scores"].items():
                wanted = [f"{CAPTIONS}/whole", *(key for key in QUALITY if key in scores)]
                keys |= dict.fromkeys((data, key) for key in wanted if key in scores)
    yield ["arm", name, "seconds a clip", *(f"{key.split('/')[-1]}, {data}" for data, key in keys)]
    for arm, value, found in rows:
        cells = [pair([row["scores"][data][key] for row in found]) for data, key in keys]
        seconds = seconds_of(timing, [row["seconds"] for row in found], arm, name, value)
        yield [arm, _flat(value), _seconds(seconds, timing), *cells]


def _is(row: Mapping[str, Any], name: str, value: Any) -> bool:
    return row["argument"] == name and row["value"] == value


def _swept_values(runs: Sequence[Result], name: str) -> list[Any]:
    values: list[Any] = []
    for run in runs:
        for row in run.sweep:
            if row["argument"] == name and row["value"] not in values:
                values.append(row["value"])
    return values


def _measured(results: Results) -> Iterator[tuple[str, list[list[str]]]]:
    """What the experiment's own functions returned: lists of rows, averaged over seeds."""
    names = dict.fromkeys(
        name for runs in results.values() for run in runs for name in run.measured
    )
    for name in names:
        rows: list[list[str]] = []
        for arm, runs in results.items():
            tables = [run.measured[name] for run in runs if run.measured.get(name)]
            if not tables:
                continue
            columns = list(tables[0][0])
            rows = rows or [["arm", *columns]]
            for same in zip(*tables, strict=True):
                cells = [_average([row[column] for row in same]) for column in columns]
                rows.append([arm, *cells])
        yield name.replace("_", " "), rows


def _average(values: list[Any]) -> str:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return pair(values) if len(set(values)) > 1 else number(values[0])
    return _flat(values[0])


def _notes(experiment: Experiment, results: Results, timing: Timing | None) -> Iterator[str]:
    scoring = experiment.scoring
    runs = [run for runs in results.values() for run in runs]
    if not runs:
        return
    yield (
        f"Mean ± standard deviation over seeds {', '.join(map(str, experiment.seeds))}; "
        f"n = {scoring.n} clips per data set and seed, the same captions and the same noise for "
        "every arm. Intervals resample seeds and clips; p is a sign-flip test over clips, "
        "corrected after Holm for the number of arms."
    )
    if any(run.training for run in runs):
        yield ""
        yield (
            "Operations are those of forward and backward passes of what is trained, counted by "
            "torch on real batches; the optimiser, encoding and validation are not in them. Memory "
            "is the largest resident set of the training process, the mapped data included."
        )
    yield ""
    yield f"Run on {'; '.join(dict.fromkeys(_machine(run.machine) for run in runs))}."
    if timing is not None:
        yield ""
        yield (
            "Seconds of sampling were taken side by side in one process, one clip of every arm in "
            f"each of {len(timing.rows[0]['seconds'])} rounds: medians over rounds, and medians of "
            f"the ratios within a round. {_machine(timing.machine)}."
        )
    protocols = sorted(
        {
            PART.sub(r"\1/*/", str(score["protocol"]))
            for run in runs
            for sources in run.scores.values()
            for score in sources.get(GENERATED, {}).values()
        }
    )
    yield ""
    yield "Protocols: " + ", ".join(f"`{protocol}`" for protocol in protocols)


def _machine(about: Mapping[str, Any]) -> str:
    where = about["device"] or about["processor"]
    return f"{where}, {about['cores']} cores, torch {about['torch']}"


def pair(values: Sequence[float], form: str = "") -> str:
    """Mean and standard deviation, or the value alone."""
    mean, deviation = spread(values)
    write = form.format if form else number
    return write(mean) if len(values) == 1 else f"{write(mean)} ± {write(deviation)}"


def number(value: float) -> str:
    """Three figures, whole numbers as they are."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
