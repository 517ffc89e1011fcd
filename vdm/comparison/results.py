"""What is kept of every run: one small file per arm and seed, which the report is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vdm import world
from vdm.comparison.experiment import Arm, Experiment
from vdm.data.block_store import digest
from vdm.pipelines.plan import read_description
from vdm.pretrained.layout import CARD, read_card
from vdm.pretrained.sources import locate

FORMAT = "vdm-result/1"
FOLDER = "results"


@dataclass
class Result:
    """One arm under one seed.

    Args:
        arm: Name of the arm.
        seed: Of the training and of the noise that clips are made from.
        digest: Of everything that the result depends on, the code aside.
        machine: Processor, versions, commit.
        training: For every stage: steps, operations, seconds, memory, validation losses.
        scores: ``scores[data][source][name]``, as ``Evaluation.to_dict`` gives them.
        outcomes: For each data set a character per clip, 1 where the whole caption is right.
        sampling: Seconds per clip and peak bytes.
        sweep: One row per value: the argument, its value, scores and seconds per clip.
        measured: What the experiment's own functions returned, by their names.
    """

    arm: str
    seed: int
    digest: str
    machine: dict[str, Any]
    training: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    sweep: list[dict[str, Any]] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    def save(self, experiment: Experiment) -> Path:
        """Write the file, whole or not at all."""
        path = result_path(experiment, self.arm, self.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        return temporary.replace(path)


def result_path(experiment: Experiment, arm: str, seed: int) -> Path:
    """Where the result of an arm under a seed lies."""
    return experiment.folder / FOLDER / f"{arm}-s{seed}.json"


def read_result(experiment: Experiment, arm: str, seed: int) -> Result | None:
    """The result of an arm under a seed; None if there is none yet.

    Raises:
        ValueError: If the file is not a result.
    """
    path = result_path(experiment, arm, seed)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format", None) != FORMAT:
            raise ValueError(f"expected format {FORMAT}")
        return Result(**content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a result: {error}") from error


def read_results(experiment: Experiment) -> dict[str, list[Result]]:
    """All results there are, by arm, in the order of arms and seeds."""
    found = {}
    for arm in experiment.arms:
        results = (read_result(experiment, arm.name, seed) for seed in experiment.seeds)
        found[arm.name] = [result for result in results if result is not None]
    return found


def arm_digest(experiment: Experiment, arm: Arm, seed: int) -> str:
    """Changes with every recipe, overlay and setting that a result depends on."""
    scoring = experiment.scoring
    return digest(
        {
            "world": world.VERSION,
            "seed": seed,
            "stages": [
                {
                    "configs": [_text(path) for path in stage.configs],
                    "share": stage.share,
                    "role": stage.role,
                    "factor": stage.factor,
                }
                for stage in arm.stages
            ],
            "model": None if arm.model is None else _card(arm.model),
            "sample": {**scoring.sample, **arm.sample},
            "budget": None if experiment.budget is None else asdict(experiment.budget),
            "scoring": [list(scoring.data), list(scoring.num_objects), scoring.n],
            "protocols": list(scoring.protocols),
            "sweep": {key: list(values) for key, values in experiment.sweep.items()},
            "sweep_n": experiment.sweep_n,
            "autoencoder": _autoencoder(experiment.autoencoder),
            "overrides": dict(experiment.overrides),
            "measure": list(experiment.measure),
        }
    )[:16]


def _autoencoder(source: str | None) -> Any:
    """What a trained autoencoder is, down to its weights."""
    if source is None:
        return None
    card = _card(source)
    return {
        "parts": card["parts"]["autoencoder"],
        "weights": card.get("weights", {}).get("autoencoder"),
    }


def _card(source: str) -> dict[str, Any]:
    """What a model is: as its folder says, which later versions of the code leave alone."""
    path = locate(source)
    return read_card(path) if (path / CARD).is_file() else read_description(source)


def _text(path: Path) -> str:
    """A config without its comments: they change nothing."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line.rstrip() for line in lines if line.split("#")[0].strip())


def values_of(results: list[Result], data: str, source: str, name: str) -> list[float]:
    """One score of all seeds that have it, and enough clips for it.

    Raises:
        ValueError: If they are of different protocols.
    """
    rows: list[Mapping[str, Any] | None] = [
        result.scores.get(data, {}).get(source, {}).get(name) for result in results
    ]
    found = [row for row in rows if row is not None]
    protocols = sorted({row["protocol"] for row in found if "protocol" in row})
    if len(protocols) > 1:
        raise ValueError(f"{name}: scores of different protocols: {', '.join(protocols)}")
    return [float(row["value"]) for row in found if "value" in row]
