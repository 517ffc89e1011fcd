"""``vdm compare``: reports without work, runs what is missing, refuses what cannot be meant."""

import contextlib
import io
import json
import shutil
import statistics
from pathlib import Path

import pytest
from tiny_model import make_parts

from vdm import cli
from vdm.comparison import run
from vdm.comparison.experiment import read_experiment
from vdm.comparison.timing import NUM_ROUNDS, read_timing
from vdm.pretrained import export
from vdm.pretrained.parts import Defaults, Envelope

ROOT = Path(__file__).parents[1]
SMALL = """
question: Do more steps help?
hypothesis: Yes (+).
arms:
  few: {model: MODEL, sample: {steps: 1}}
  more: {model: MODEL, sample: {steps: 2}}
seeds: [0, 1]
scoring: {n: 2, num_resamples: 10, protocols: [caption-accuracy]}
sweep: {guidance_scale: [1.0]}
sweep_n: 2
"""


def vdm(*words):
    return cli.main(["compare", *map(str, words)])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An experiment with a tiny model."""
    defaults = Defaults(5, 8.0, 16, 16, steps=1, guidance_scale=2.0, sampler="euler")
    parts = make_parts(defaults=defaults, envelope=Envelope((1, 7), (8, 8), (16, 16), (16, 16)))
    model = export(parts, tmp_path_factory.mktemp("model") / "tiny", layout="vdm")
    return SMALL.replace("MODEL", str(model))


def write_experiment(root, text):
    home = root / "experiments" / "007_steps"
    home.mkdir(parents=True)
    (home / "experiment.yaml").write_text(text)
    return home


@pytest.fixture
def folder(small, tmp_path):
    return write_experiment(tmp_path, small)


@pytest.fixture(scope="module")
def first_run(small, tmp_path_factory):
    """An experiment of which seed 0 was run, and what the command said."""
    home = write_experiment(tmp_path_factory.mktemp("ran"), small)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert vdm(home, "--run", "--seeds", "0", "--out", home.parents[1] / "runs") == 0
    return home, said.getvalue()


@pytest.fixture(scope="module", autouse=True)
def _measured_once():
    """A process measures the cost of the first arm; the others are said to cost the same."""
    measured, measure = [], run.sampling_cost

    def first(model, settings):
        if not measured:
            measured.append(measure(model, settings))
        return measured[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "sampling_cost", first)
        yield


@pytest.fixture
def ran(first_run, tmp_path):
    """A copy of it, to be worked on."""
    root = first_run[0].parents[1]
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    return tmp_path / first_run[0].relative_to(root)


def test_without_results_it_says_what_is_missing(folder, capsys):
    assert vdm(folder) == 0
    assert "**Not run yet:** few (seed 0), few (seed 1), more (seed 0)" in capsys.readouterr().out
    assert (folder / "table.md").is_file()


def test_it_runs_what_is_missing_once(first_run, ran, tmp_path, capsys):
    said = first_run[1]
    assert "1/2: few, seed 0" in said
    assert "2/2: more, seed 0" in said
    assert "**Not run yet:** few (seed 1), more (seed 1)." in said
    result = json.loads((ran / "results" / "more-s0.json").read_text())
    assert set(result["outcomes"]) == {"test-iid/1 object"}
    assert len(result["outcomes"]["test-iid/1 object"]) == 2
    assert result["sampling"]["seconds"] > 0
    assert [row["value"] for row in result["sweep"]] == [1.0]
    assert (ran / "quality_guidance_scale.svg").is_file()
    assert vdm(ran, "--run", "--seeds", "0", "--out", tmp_path / "runs") == 0
    assert "1/" not in capsys.readouterr().out.split("# 007")[0]
    assert vdm(ran, "--retrain", "few", "--seeds", "0", "--out", tmp_path / "runs") == 0
    assert "1/1: few, seed 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--retrain", "fw"], "got arm 'fw', nearest few"),
        (["--seeds", "4"], "got seed 4, expected one of 0, 1"),
        (["--train"], "got --train, no flag of vdm compare"),
    ],
)
def test_wrong_words_get_one_line(folder, words, message, capsys):
    assert vdm(folder, *words) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_experiment_is_refused(tmp_path, capsys):
    assert vdm(tmp_path / "nowhere") == 2
    assert "expected a folder that holds experiment.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("home", sorted(p.parent for p in ROOT.glob("experiments/*/results")))
def test_committed_tables_are_what_the_results_give(home):
    from vdm.comparison.report import table
    from vdm.comparison.results import read_results

    experiment = read_experiment(home)
    made = table(experiment, read_results(experiment), read_timing(experiment))
    assert (home / "table.md").read_text() == made


def test_every_experiment_is_in_the_list():
    listed = (ROOT / "experiments" / "README.md").read_text()
    for path in ROOT.glob("experiments/*/experiment.yaml"):
        assert f"({path.parent.name}/README.md)" in listed
        text = (path.parent / "README.md").read_text()
        for heading in ("## Question", "## Hypothesis", "## Result", "## Answer"):
            assert heading in text, path.parent.name


def test_arms_are_timed_side_by_side(small, ran, capsys):
    (ran / "experiment.yaml").write_text(small + "timed: {num_frames: [3]}\n")
    assert vdm(ran, "--time") == 0
    timing = read_timing(read_experiment(ran))
    asked = [(row["arm"], row["argument"], row["value"]) for row in timing.rows]
    settings = [(None, None), ("guidance_scale", 1.0), ("num_frames", 3)]
    assert asked == [(arm, *setting) for arm in ("few", "more") for setting in settings]
    assert all(len(row["seconds"]) == NUM_ROUNDS for row in timing.rows)
    text = capsys.readouterr().out
    assert f"| more | {statistics.median(timing.seconds('more')):.2f} |" in text
    assert f"| {timing.ratio('more', 'few'):.2f}x |" in text
    assert "## Time over num_frames" in text
    assert "other settings" not in text  # timing is no part of what a result depends on


def test_what_was_never_trained_is_not_timed(folder, tmp_path, capsys):
    (folder.parents[1] / "configs").mkdir()
    (folder.parents[1] / "configs" / "tiny.yaml").write_text("model: {}\n")
    arms = "arms: {tiny: {recipe: tiny}}\nbudget: {steps: 1}\nquestion: q\nhypothesis: h\n"
    (folder / "experiment.yaml").write_text(arms)
    assert vdm(folder, "--time", "--out", tmp_path / "runs") == 1
    assert "no run of tiny has ended" in capsys.readouterr().err
