"""A small experiment on disk, and results for it."""

import pytest
from comparison_results import make_result

from vdm.comparison.experiment import read_experiment

EXPERIMENT = """
question: Does width pay?
hypothesis: Wider is better (+).
recipe: tiny
budget: {flops: 3.0e+9}
arms: [narrow, wide]
seeds: [3, 5]
scoring: {data: [test-iid], num_objects: [1], n: 6}
sweep: {steps: [2, 4]}
"""


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "experiments" / "009_width"
    home.mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.yaml").write_text("model: {init_args: {network: {}}}\n")
    (home / "experiment.yaml").write_text(EXPERIMENT)
    for name, dim in (("narrow", 8), ("wide", 16)):
        text = f"model: {{init_args: {{network: {{init_args: {{dim: {dim}}}}}}}}}\n"
        (home / f"{name}.yaml").write_text(text)
    return home


@pytest.fixture
def experiment(folder):
    return read_experiment(folder)


@pytest.fixture
def results(experiment):
    made = {
        "narrow": [make_result(experiment, "narrow", s, "010000") for s in (3, 5)],
        "wide": [make_result(experiment, "wide", s, "111011") for s in (3, 5)],
    }
    made["wide"][1].measured = {"cost": [{"frames": 8, "ms": 2.0}, {"frames": 16, "ms": 3.0}]}
    return made
