"""How long the arms take to sample, side by side: one process, one clip of each in turn.

Runs of an experiment are spread over hours and machines, so the seconds that each notes are not
to be compared. Here every round makes one clip of every arm; what is reported are medians over
rounds, and medians of the ratios within a round.
"""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import vdm
from vdm.comparison.cost import PROMPT
from vdm.comparison.experiment import Arm, Experiment
from vdm.comparison.machine import describe_machine
from vdm.comparison.results import FOLDER
from vdm.pipelines.stream_cost import Arm as Way
from vdm.pipelines.stream_cost import is_causal, measure

FORMAT = "vdm-timing/1"
FILE = "timing.json"
NUM_ROUNDS = 5


@dataclass
class Timing:
    """Seconds of every round, by arm and changed argument.

    Args:
        machine: Processor, versions, commit.
        rows: Each an ``arm``, an ``argument`` with its ``value`` (None: as the experiment
            samples), and ``seconds`` of a clip, one per round.
    """

    machine: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def seconds(self, arm: str, argument: str | None = None, value: Any = None) -> list[float]:
        """Seconds of a clip in every round; none if it was not timed."""
        for row in self.rows:
            if (row["arm"], row["argument"], row["value"]) == (arm, argument, value):
                return row["seconds"]
        return []

    def ratio(self, arm: str, first: str) -> float:
        """Median over rounds of how much longer one arm takes than another."""
        pairs = zip(self.seconds(arm), self.seconds(first), strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    def save(self, experiment: Experiment) -> Path:
        """Write the file beside the results."""
        path = experiment.folder / FOLDER / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, **asdict(self)}
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path


def read_timing(experiment: Experiment) -> Timing | None:
    """What was timed; None if nothing was.

    Raises:
        ValueError: If the file is not one of these.
    """
    path = experiment.folder / FOLDER / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format", None) != FORMAT:
            raise ValueError(f"expected format {FORMAT}")
        return Timing(**content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a timing: {error}") from error


def time_arms(
    experiment: Experiment,
    locate: Callable[[Arm], str],
    num_rounds: int = NUM_ROUNDS,
) -> Timing:
    """Time the arms, as the experiment samples, and under every value of sweeps and ``timed``.

    Args:
        experiment: Whose arms.
        locate: Gives a trained model of an arm; any seed will do.
        num_rounds: Clips of every arm and setting, after one that is not counted.
    """
    asked: list[tuple[str | None, Any]] = [(None, None)]
    for name, values in {**experiment.sweep, **experiment.timed}.items():
        asked += [(name, value) for value in values]
    timing, ways = Timing(describe_machine()), list[tuple[Way, dict[str, Any]]]()
    for arm in experiment.arms:
        generate = vdm.load(locate(arm))
        sample = {**experiment.scoring.sample, **arm.sample}
        for argument, value in asked:
            changed = sample if argument is None else {**sample, argument: value}
            is_streamed = argument == "num_frames" and is_causal(generate)
            ways.append((Way(arm.name, generate, is_streamed), changed))
            told = {"arm": arm.name, "argument": argument, "value": value}
            timing.rows.append({**told, "seconds": list[float]()})
    for turn in range(num_rounds + 1):
        for (way, sample), row in zip(ways, timing.rows, strict=True):
            seconds = _seconds(way, sample, turn)
            if turn:
                row["seconds"].append(seconds)
    return timing


def _seconds(way: Way, sample: Mapping[str, Any], seed: int) -> float:
    """Of one clip."""
    settings = {**sample, "seed": seed}
    num_frames = settings.pop("num_frames", way.generator.parts.defaults.num_frames)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*trained on.*")
        return num_frames * measure(way, num_frames, PROMPT, **settings).seconds_per_frame
