"""An experiment in under a minute: one training step and two clips per arm, nothing kept."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from vdm.comparison.experiment import Budget, Experiment
from vdm.comparison.report import table
from vdm.comparison.results import Result
from vdm.comparison.run import run_arm

OVERRIDES = {
    "data.init_args.batch_size": 2,
    "data.init_args.shapes": {"num_train": 4, "num_val": 2},
    "trainer.limit_val_batches": 1,
    "trainer.enable_progress_bar": False,
}
NUM_CLIPS = 2
NUM_STEPS = 2


def shrink(experiment: Experiment) -> Experiment:
    """The same arms on the smallest setting."""
    arms = tuple(
        replace(
            arm, sample={**arm.sample, "steps": NUM_STEPS} if "steps" in arm.sample else arm.sample
        )
        for arm in experiment.arms
    )
    scoring = replace(
        experiment.scoring,
        data=experiment.scoring.data[:1],
        num_objects=experiment.scoring.num_objects[:1],
        n=NUM_CLIPS,
        num_resamples=10,
        sample={**experiment.scoring.sample, "steps": NUM_STEPS},
    )
    return replace(
        experiment,
        arms=arms,
        seeds=experiment.seeds[:1],
        budget=None if experiment.budget is None else Budget(steps=1),
        scoring=scoring,
        sweep={name: values[:1] for name, values in experiment.sweep.items()},
        sweep_n=NUM_CLIPS,
        overrides={**experiment.overrides, **OVERRIDES},
    )


def run_smoke(experiment: Experiment, out: Path) -> dict[str, list[Result]]:
    """Run every arm on the smallest setting and print the report.

    Args:
        experiment: What to run.
        out: Folder for runs; a ``smoke`` folder in it is used and removed.
    """
    small = shrink(experiment)
    folder = out / "smoke"
    shutil.rmtree(folder, ignore_errors=True)
    seed = small.seeds[0]
    results = {}
    try:
        for arm in small.arms:
            print(f"{experiment.name}: {arm.name}", flush=True)
            results[arm.name] = [run_arm(small, arm, seed, folder / arm.name, is_smoke=True)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(small, results))
    return results
