"""Tables and plots out of results."""

import pytest
from comparison_results import make_result

from vdm.comparison.plots import write_plots
from vdm.comparison.report import outcomes_of, table, write_table
from vdm.comparison.results import read_results


def rows_of(text, title):
    """Cells of the table under a heading, by the first cell."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line[2:-2].split(" | ") for line in section.splitlines() if line[:1] == "|"]
    head, _, *rows = lines
    return head, {row[0]: row for row in rows}


def test_the_table_says_what_was_trained_and_what_came_of_it(experiment, results):
    text = table(experiment, results)
    assert experiment.question in text
    assert "Not run yet" not in text
    assert "other settings" not in text
    head, rows = rows_of(text, "Training")
    wide = dict(zip(head, rows["wide"], strict=True))
    assert wide["forward, GFLOP a sample"] == "0.000"
    assert wide["seconds (seeds)"] == "14 ± 1"
    assert wide["validation loss (seeds)"] == "0.5000 ± 0.0000"
    head, rows = rows_of(text, "Captions, test-iid/1 object")
    assert rows["wide"][head.index("whole %")] == "83.3 ± 0"
    assert rows["narrow"][-1] == ""
    assert rows["wide"][-1].startswith("+66.7 (")
    assert rows["real clips"][1] == "100.0"
    head, rows = rows_of(text, "Quality, test-iid/1 object")
    assert rows["wide"][1:] == ["25.0 ± 0", "0.4 ± 0"]
    assert rows["floor: other real clips"][2] == "0.1"
    _, rows = rows_of(text, "Sweep over steps")
    assert set(rows) == {"narrow", "wide"}
    _, rows = rows_of(text, "cost")
    assert rows["wide"] == ["wide", "16", "3"]


def test_a_distance_of_too_few_clips_is_no_number_and_no_mean(experiment, results):
    data = "test-iid/1 object"
    score = results["wide"][1].scores[data]["generated"]["fmd/flow"]
    score.pop("value")
    score["not_enough"] = "3 clips for 192 features"
    _, rows = rows_of(table(experiment, results), f"Quality, {data}")
    assert rows["wide"][2] == "not enough"
    assert rows["narrow"][2] != "not enough"


def test_scores_of_different_protocols_share_no_table(experiment, results):
    results["wide"][1].scores["test-iid/1 object"]["generated"]["fmd/flow"]["protocol"] = "q/r1"
    with pytest.raises(ValueError, match="fmd/flow: scores of different protocols: p/r1, q/r1"):
        table(experiment, results)


def test_what_is_missing_or_stale_is_said(experiment, results, folder):
    results["wide"].pop()
    assert "**Not run yet:** wide (seed 5)." in table(experiment, results)
    (folder / "narrow.yaml").write_text("model: {init_args: {name: other}}\n")
    text = table(experiment, results)
    assert "**Run under other settings than the files now say:** narrow (seed 3)" in text
    assert "Not run yet:** narrow (seed 3), narrow (seed 5)" in table(experiment, {})


def test_running_it_again_changes_nothing(experiment, results):
    for runs in results.values():
        for run in runs:
            run.save(experiment)
    made = [write_table(experiment, read_results(experiment))]
    made += write_plots(experiment, read_results(experiment))
    assert [path.name for path in made] == [
        "table.md",
        "loss.svg",
        "quality_steps.svg",
        "quality_seconds.svg",
    ]
    before = {path: path.read_bytes() for path in made}
    write_table(experiment, read_results(experiment))
    write_plots(experiment, read_results(experiment))
    assert {path: path.read_bytes() for path in made} == before


def test_seeds_with_other_numbers_of_clips_are_not_paired(experiment):
    runs = [make_result(experiment, "wide", 3, "11"), make_result(experiment, "wide", 5, "110")]
    assert outcomes_of(runs, "test-iid/1 object") is None
    assert outcomes_of(runs[:1], "test-iid/1 object").tolist() == [[1.0, 1.0]]
    assert outcomes_of(runs[:1], "test-comp/1 object") is None
    table(experiment, {"narrow": [], "wide": runs})


@pytest.mark.parametrize("left", ["training", "sweep", "sampling", "outcomes", "scores"])
def test_a_result_may_lack_any_part(experiment, results, left):
    for runs in results.values():
        for run in runs:
            getattr(run, left).clear()
    assert experiment.name in table(experiment, results)
    write_plots(experiment, results)
