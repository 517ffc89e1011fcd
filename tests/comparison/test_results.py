"""Results on disk."""

from dataclasses import replace

import pytest
from comparison_results import make_result

from vdm.comparison import results
from vdm.comparison.experiment import read_experiment
from vdm.comparison.results import arm_digest, read_result, read_results, values_of


def test_a_result_comes_back_as_it_was(experiment):
    made = make_result(experiment, "wide", 5, "110100")
    path = made.save(experiment)
    assert path.name == "wide-s5.json"
    assert read_result(experiment, "wide", 5) == made
    assert read_result(experiment, "wide", 3) is None
    assert read_results(experiment) == {"narrow": [], "wide": [made]}
    assert values_of([made], "test-iid/1 object", "generated", "fmd/flow") == [0.4]


def test_a_file_that_is_no_result_is_said_to_be_none(experiment):
    path = make_result(experiment, "wide", 5, "110100").save(experiment)
    for text in ("{", "{}", '{"format": "vdm-result/1"}', '{"format": "vdm-result/1", "x": 1}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"wide-s5\.json: not a result"):
            read_result(experiment, "wide", 5)


def test_the_digest_sees_what_changes_the_result_and_no_more(experiment, folder):
    def digests():
        again = read_experiment(folder)
        return [arm_digest(again, arm, 3) for arm in again.arms]

    before = digests()
    wide = folder / "wide.yaml"
    wide.write_text("# a comment\n" + wide.read_text())
    assert digests() == before
    wide.write_text(wide.read_text().replace("16", "17"))
    changed = digests()
    assert (changed[0], changed[1] != before[1]) == (before[0], True)
    assert arm_digest(experiment, experiment.arms[0], 5) != before[0]
    path = folder / "experiment.yaml"
    path.write_text(path.read_text().replace("n: 6", "n: 7"))
    assert digests()[0] != before[0]


def test_what_was_run_with_a_bundled_model_is_known_by_its_card(experiment, monkeypatch):
    arm = replace(experiment.arms[0], model="moving-shapes", stages=())
    before = arm_digest(experiment, arm, 0)
    monkeypatch.setattr(
        results, "read_description", lambda source: {"format": "of a later version"}
    )
    assert arm_digest(experiment, arm, 0) == before
