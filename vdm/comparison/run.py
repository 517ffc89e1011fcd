"""Running an arm: train its stages, score its clips, keep the result. Stopped runs go on."""

from __future__ import annotations

import csv
import importlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vdm.comparison.budget import build_stage, count_step, steps_within
from vdm.comparison.cost import measure_sampling, sampling_cost, wait_for
from vdm.comparison.experiment import Arm, Experiment, Stage
from vdm.comparison.machine import describe_machine
from vdm.comparison.results import Result, arm_digest
from vdm.comparison.sheet import write_sheet
from vdm.metrics.captions import score_caption
from vdm.metrics.oracle import ObjectReading, Reading
from vdm.pipelines.evaluate import evaluate
from vdm.pipelines.evaluate_report import GENERATED
from vdm.pretrained.cascades import StageCard, assemble
from vdm.training.cli import main
from vdm.training.final import FILE

Fit = Callable[[Sequence[str], Path], dict[str, Any]]
NUM_VALIDATIONS = 10
"""Points of a loss curve."""
SWEPT = ("caption-accuracy", "fmd/flow")
"""What is measured under every value of a sweep, where it is measured at all."""


def run_arm(
    experiment: Experiment,
    arm: Arm,
    seed: int,
    folder: Path,
    is_smoke: bool = False,
) -> Result:
    """Train and score an arm under one seed.

    Args:
        experiment: What it is part of.
        arm: What to run.
        seed: Of the training, and of the noise that clips are made from.
        folder: For checkpoints and measurements; what is there of a stopped run is gone on from.
        is_smoke: Do everything in this process, measure no cost, and let the experiment's own
            functions do the least.

    Returns:
        The result, not saved yet.

    Raises:
        RuntimeError: If a training run failed.
        ValueError: If the experiment is not consistent.
    """
    result = Result(arm.name, seed, arm_digest(experiment, arm, seed), describe_machine())
    result.training = [
        _train(experiment, stage, seed, folder, _fit_here if is_smoke else _fit_apart)
        for stage in arm.stages
    ]
    model = arm.model or str(_assemble(arm, folder))
    scoring = experiment.scoring
    sample = {**scoring.sample, **arm.sample}
    evaluation = evaluate(
        model,
        list(scoring.data),
        list(scoring.protocols),
        n=scoring.n,
        num_objects=scoring.num_objects,
        out=folder / "scores",
        batch_size=scoring.batch_size,
        seed=seed,
        baselines=False,
        num_resamples=scoring.num_resamples,
        known=_earlier_scores(folder),
        **sample,
    )
    result.scores = _kept(evaluation.to_dict()["scores"])
    result.outcomes = _outcomes(folder / "scores" / "records.jsonl", scoring.n)
    result.sampling = _cost(model, sample, is_smoke)
    for name, values in experiment.sweep.items():
        for value in values:
            result.sweep.append(
                _swept(experiment, model, seed, folder, sample, name, value, is_smoke)
            )
    for path in experiment.measure:
        module, _, function = path.partition(":")
        measure = getattr(importlib.import_module(module), function)
        result.measured[function] = measure(model, sample, seed, is_smoke)
    if experiment.sheet and seed == experiment.seeds[0] and not is_smoke:
        write_sheet(experiment, arm.name, model, sample, seed)
    return result


def _earlier_scores(folder: Path) -> Path | None:
    """The measurements of another arm or seed: the real clips are the same."""
    found = sorted(folder.parent.glob("*/scores/scores.json"))
    return next((path.parent for path in found if path.parents[1] != folder), None)


def _kept(scores: dict[str, Any]) -> dict[str, Any]:
    """All of the arm's own scores; of the real clips, the same for every arm, the values."""
    return {
        data: {
            source: named
            if source == GENERATED
            else {name: {"value": score["value"]} for name, score in named.items()}
            for source, named in sources.items()
        }
        for data, sources in scores.items()
    }


def _train(
    experiment: Experiment, stage: Stage, seed: int, folder: Path, fit: Fit
) -> dict[str, Any]:
    """One training run."""
    run = folder / stage.name
    shared = [f"--seed_everything={seed}"]
    shared += [f"--{key}={_word(value)}" for key, value in experiment.overrides.items()]
    if experiment.autoencoder is not None:
        shared.append(f"--model.init_args.autoencoder={experiment.autoencoder}")
    module, data = build_stage(stage.configs, shared, folder / ".counting")
    cost = count_step(module, data)
    if experiment.budget is None:
        raise ValueError(f"{experiment.name}: got a stage to train without a budget")
    steps = steps_within(experiment.budget, cost, stage.share)
    words = [
        *shared,
        f"--trainer.max_steps={steps}",
        f"--trainer.val_check_interval={max(1, steps // NUM_VALIDATIONS)}",
        f"--output={run}",
        "--resume",
    ]
    configs = [word for path in stage.configs for word in ("--config", str(path))]
    if fit is _fit_apart:  # no arm is to be charged for the clips that all share
        if module.autoencoder is not None:
            data.use_autoencoder(module.autoencoder)
        data.train_dataset()
        data.val_dataset()
    noted = fit([*configs, *words], run)
    return {
        "stage": stage.name,
        "configs": [path.name for path in stage.configs],
        **cost.to_dict(),
        "steps": steps,
        "flops": steps * cost.flops,
        **noted,
        "losses": list(_losses(run)),
    }


def _fit_here(words: Sequence[str], run: Path) -> dict[str, Any]:
    """Train in this process; no cost is measured."""
    main(["fit", *words])
    return {"seconds": 0.0, "peak_bytes": 0}


def _fit_apart(words: Sequence[str], run: Path) -> dict[str, Any]:
    """Train in a process of its own; seconds, over all attempts, and its peak memory."""
    notes = run / "cost.json"
    before = json.loads(notes.read_text()) if notes.is_file() else {"seconds": 0, "peak_bytes": 0}
    if (run / FILE).is_file():
        return before
    run.mkdir(parents=True, exist_ok=True)
    log = run / "fit.log"
    start = time.perf_counter()
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "vdm.cli", "fit", *words], stdout=file, stderr=file
        )
        try:
            peak = wait_for(process)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code := process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RuntimeError(f"training ended with status {code}, see {log}: {(lines or [''])[-1]}")
    noted = {
        "seconds": before["seconds"] + time.perf_counter() - start,
        "peak_bytes": max(before["peak_bytes"], peak),
    }
    notes.write_text(json.dumps(noted) + "\n")
    return noted


def _cost(model: str, sample: Mapping[str, Any], is_smoke: bool) -> dict[str, float]:
    """Seconds and bytes of sampling."""
    return measure_sampling(model, sample, 1) if is_smoke else sampling_cost(model, sample)


def trained_model(arm: Arm, folders: Iterable[Path]) -> str:
    """A model of an arm out of any of its runs.

    Raises:
        FileNotFoundError: If none has ended.
    """
    if arm.model:
        return arm.model
    for folder in folders:
        if all((folder / stage.name / FILE).is_file() for stage in arm.stages):
            return str(_assemble(arm, folder))
    raise FileNotFoundError(f"no run of {arm.name} has ended, expected one: vdm compare --run")


def _assemble(arm: Arm, folder: Path) -> Path:
    """The model of an arm: its only stage, or a cascade of all."""
    finals = [folder / stage.name / FILE for stage in arm.stages]
    if len(finals) == 1:
        return finals[0]
    cards = [
        StageCard(stage.role, str(final), stage.factor)
        for stage, final in zip(arm.stages, finals, strict=True)
    ]
    made = folder / "cascade"
    shutil.rmtree(made, ignore_errors=True)  # an earlier attempt may have left a part
    return assemble(made, cards)


def _swept(
    experiment: Experiment,
    model: str,
    seed: int,
    folder: Path,
    sample: Mapping[str, Any],
    name: str,
    value: Any,
    is_smoke: bool,
) -> dict[str, Any]:
    """Scores under another value of one sampling argument, on the first data set alone."""
    scoring = experiment.scoring
    changed = {**sample, name: value}
    evaluation = evaluate(
        model,
        scoring.data[0],
        [protocol for protocol in SWEPT if protocol in scoring.protocols],
        n=experiment.sweep_n,
        num_objects=scoring.num_objects[:1],
        out=folder / "sweep" / f"{name}-{value}",
        batch_size=scoring.batch_size,
        seed=seed,
        baselines=False,
        num_resamples=scoring.num_resamples,
        known=folder / "scores",
        **changed,
    )
    generated = {
        data: {k: score.value for k, score in sources[GENERATED].items() if not score.not_enough}
        for data, sources in evaluation.scores.items()
    }
    seconds = _cost(model, changed, is_smoke)["seconds"]
    return {"argument": name, "value": value, "seconds": seconds, "scores": generated}


def _losses(run: Path) -> Iterator[tuple[int, float]]:
    """Step and validation loss, as logged."""
    rows: dict[int, float] = {}
    for path in sorted((run / "logs" / "csv").glob("version_*/metrics.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get("val/loss"):
                    rows[int(row["step"]) + 1] = float(row["val/loss"])
    yield from sorted(rows.items())


def _outcomes(path: Path, n: int) -> dict[str, str]:
    """Which clips show their whole caption, a character each, by data set."""
    found: dict[str, dict[int, str]] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines[1:]):
        if row["source"] != GENERATED or "reading" not in row["measured"]:
            continue
        seen = row["measured"]["reading"]
        things = tuple(ObjectReading(**thing) for thing in seen["objects"])
        reading = Reading(things, seen["camera"], seen["is_persistent"])
        right = score_caption(reading, row["measured"]["caption"]).whole
        found.setdefault(row["data"], {})[row["index"]] = str(int(right))
    return {data: "".join(rows[k] for k in range(n)) for data, rows in found.items()}


def _word(value: Any) -> str:
    """A value as a word of the command line."""
    return value if isinstance(value, str) else json.dumps(value)
