"""A run that is scored while it goes on ends as one that is not."""

import csv
import json

import pytest

from vdm.training.cli import main
from vdm.training.scores import Scores

CALLBACK = "{class_path: Scores, init_args: {every_n_steps: 3, n: 2, steps: 1, protocols: [%s]}}"


def test_scores_are_kept_and_logged_and_change_nothing(smoke, finished, tmp_path):
    chosen = "--trainer.callbacks+=" + CALLBACK % "motion, fmd/flow"
    assert main(["fit", *smoke, chosen, f"--output={tmp_path}"]) == 0
    name = "final.safetensors"
    assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    folders = sorted((tmp_path / "scores").iterdir())
    assert [path.name for path in folders] == ["step-00000003", "step-00000006"]
    values = []
    for folder in folders:
        scores = json.loads((folder / "scores.json").read_text())["scores"]["val/1 object"]
        values.append(scores["generated"]["motion/amount"]["value"])
        assert scores["generated"]["fmd/flow"]["protocol"].startswith("fmd/flow/5f@8/16/")
    first, second = ((path / "records.jsonl").read_text().splitlines() for path in folders)
    real = [[row for row in rows[1:] if '"real"' in row] for rows in (first, second)]
    assert real[0] == real[1]
    (path,) = (tmp_path / "logs" / "csv").glob("version_*/metrics.csv")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("scores/val/1-object/motion/amount")]
    assert [int(row["step"]) for row in rows] == [3, 6]
    logged = [float(row["scores/val/1-object/motion/amount"]) for row in rows]
    assert logged == pytest.approx(values)


def test_what_cannot_be_scored_is_found_before_the_first_step(smoke, tmp_path):
    chosen = "--trainer.callbacks+=" + CALLBACK % "fmd/flaw"
    with pytest.raises(ValueError, match="got protocol 'fmd/flaw', expected one of caption-acc"):
        main(["fit", *smoke, chosen, f"--output={tmp_path}"])
    with pytest.raises(ValueError, match="got every_n_steps=0, expected at least 1"):
        Scores(every_n_steps=0)
