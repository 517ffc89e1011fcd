"""``vdm compare``: the arms of an experiment at equal data and compute, a table and plots."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vdm.cli_parsing import Parser, Terminated, WrongWords, positive, reading_words, whole_or_list


def parser() -> Parser:
    """The words of ``vdm compare``."""
    made = Parser(
        prog="vdm compare",
        description="Make the tables and plots of an experiment from its results; train and score "
        "what is missing, or anew, where asked to.",
    )
    made.add_argument("experiment", metavar="EXPERIMENT", type=Path, help="folder of an experiment")
    made.add_argument("--run", action="store_true", help="train and score what has no result yet")
    made.add_argument("--retrain", metavar="ARM|all", help="train and score an arm anew")
    made.add_argument("--seeds", type=whole_or_list, metavar="N,N", help="only these")
    made.add_argument("--jobs", type=positive, default=1, help="runs at a time")
    made.add_argument(
        "--out", type=Path, metavar="DIR", help="of the runs (outputs/experiments/NAME)"
    )
    made.add_argument(
        "--smoke", action="store_true", help="one step of every arm, on next to no data, in DIR"
    )
    made.add_argument(
        "--time", action="store_true", help="time sampling, all arms side by side, when all has run"
    )
    made.add_argument("--arm", help="only this arm")
    made.add_argument("--no-report", dest="report", action="store_false", help="run, and no more")
    return made


def main(words: list[str]) -> None:
    """Run what is asked for, then report."""
    asked = parser().read(words)
    from vdm.comparison.experiment import read_experiment

    with reading_words(asked.experiment):
        experiment = read_experiment(asked.experiment)
        seeds = _seeds(experiment, asked.seeds)
        for name in {asked.arm, asked.retrain} - {None, "all"}:
            experiment.arm(name)
    out = asked.out or Path("outputs") / "experiments" / experiment.name
    if asked.smoke:
        from vdm.comparison.smoke import run_smoke

        run_smoke(experiment, out)
        return
    todo = list(_todo(experiment, seeds, asked, out))
    before = signal.signal(signal.SIGTERM, _end)
    try:
        if asked.jobs > 1 and len(todo) > 1:
            _in_parallel(asked, out, todo)
        else:
            _one_by_one(experiment, out, todo)
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked.time:
        from vdm.comparison.run import trained_model
        from vdm.comparison.timing import time_arms

        def locate(arm: Any) -> str:
            return trained_model(arm, (out / f"{arm.name}-s{seed}" for seed in experiment.seeds))

        print(f"wrote {time_arms(experiment, locate).save(experiment)}", flush=True)
    if asked.report:
        _report(experiment)


def _end(*_: Any) -> None:
    """Asked to end: whoever waits for a run ends that first.

    Raises:
        Terminated: Always.
    """
    raise Terminated


def _seeds(experiment: Any, chosen: int | list[int] | None) -> tuple[int, ...]:
    if chosen is None:
        return experiment.seeds
    seeds = tuple(chosen) if isinstance(chosen, list) else (chosen,)
    for seed in seeds:
        if seed not in experiment.seeds:
            have = ", ".join(map(str, experiment.seeds))
            raise WrongWords(f"got seed {seed}, expected one of {have}")
    return seeds


def _todo(experiment: Any, seeds: tuple[int, ...], asked: Any, out: Path) -> Any:
    """Arms and seeds to run; what is to be made anew loses what it has."""
    from vdm.comparison.results import arm_digest, read_result

    for seed in seeds:
        for arm in experiment.arms:
            if asked.arm is not None and arm.name != asked.arm:
                continue
            if asked.retrain in (arm.name, "all"):
                shutil.rmtree(out / f"{arm.name}-s{seed}", ignore_errors=True)
                yield arm.name, seed
            elif asked.run:
                found = read_result(experiment, arm.name, seed)
                if found is None or found.digest != arm_digest(experiment, arm, seed):
                    yield arm.name, seed


def _one_by_one(experiment: Any, out: Path, todo: list[tuple[str, int]]) -> None:
    from vdm.comparison.run import run_arm

    for number, (name, seed) in enumerate(todo, 1):
        print(f"{number}/{len(todo)}: {name}, seed {seed}", flush=True)
        result = run_arm(experiment, experiment.arm(name), seed, out / f"{name}-s{seed}")
        print(f"wrote {result.save(experiment)}", flush=True)


def _in_parallel(asked: Any, out: Path, todo: list[tuple[str, int]]) -> None:
    """Every run in a process of its own, with its part of the cores."""
    threads = max(1, (os.cpu_count() or 1) // asked.jobs)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}

    def run(job: tuple[str, int]) -> int:
        name, seed = job
        words = ["compare", str(asked.experiment), "--run", "--arm", name, "--seeds", str(seed)]
        command = [sys.executable, "-m", "vdm.cli", *words, "--no-report"]
        command += ["--out", str(out)]
        return subprocess.run(command, env=environment, check=False).returncode

    with ThreadPoolExecutor(asked.jobs) as pool:
        failed = [job for job, status in zip(todo, pool.map(run, todo), strict=True) if status]
    if failed:
        names = ", ".join(f"{name} (seed {seed})" for name, seed in failed)
        raise RuntimeError(f"{len(failed)} of {len(todo)} runs failed: {names}")


def _report(experiment: Any) -> None:
    from vdm.comparison.plots import write_plots
    from vdm.comparison.report import write_table
    from vdm.comparison.results import read_results
    from vdm.comparison.sheet import write_sheets
    from vdm.comparison.timing import read_timing

    results, timing = read_results(experiment), read_timing(experiment)
    path = write_table(experiment, results, timing)
    print(path.read_text(encoding="utf-8"))
    for made in (path, *write_plots(experiment, results, timing), write_sheets(experiment)):
        if made is not None:
            print(f"wrote {made}")
