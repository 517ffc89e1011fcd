"""What an experiment's file may say."""

from pathlib import Path

import pytest
import yaml

from vdm.comparison.experiment import Budget, read_experiment

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "experiments").glob("*/experiment.yaml"))


def change(folder, **keys):
    path = folder / "experiment.yaml"
    content = yaml.safe_load(path.read_text()) | keys
    path.write_text(
        yaml.safe_dump({k: v for k, v in content.items() if v is not ...}, sort_keys=False)
    )


def test_an_arm_is_a_recipe_and_the_overlay_of_its_name(experiment, folder):
    narrow, wide = experiment.arms
    assert [stage.configs[0].name for stage in narrow.stages] == ["tiny.yaml"]
    assert wide.stages[0].configs[1] == folder / "wide.yaml"
    assert wide.settings == {"model": {"init_args": {"network": {"init_args": {"dim": 16}}}}}
    assert experiment.seeds == (3, 5)
    assert experiment.scoring.n == 6


def test_stages_share_the_budget_of_their_arm(folder):
    stages = {
        "keyframes": {"recipe": "tiny", "share": 1},
        "interpolate": {"recipe": "tiny", "share": 3},
    }
    change(folder, arms={"both": {"stages": stages}, "wide": None})
    both, _ = read_experiment(folder).arms
    assert [(stage.role, stage.share) for stage in both.stages] == [
        ("keyframes", 0.25),
        ("interpolate", 0.75),
    ]
    assert [stage.name for stage in both.stages] == ["both-keyframes", "both-interpolate"]


def test_an_arm_may_only_sample_otherwise(folder):
    arms = {"few": {"model": "moving-shapes", "sample": {"steps": 5}}}
    change(folder, arms=arms, budget=..., recipe=...)
    (few,) = read_experiment(folder).arms
    assert (few.model, few.sample, few.stages) == ("moving-shapes", {"steps": 5}, ())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"seed": [1]}, "got key 'seed', nearest seeds"),
        ({"question": ...}, "got no question"),
        ({"arms": ["narrow", "other"]}, "arm 'other' differs in nothing, expected other.yaml"),
        ({"arms": {"wide": {"recipes": "tiny"}}}, "got key 'recipes', nearest recipe"),
        ({"recipe": "huge"}, "huge.yaml, expected a file that exists"),
        ({"budget": {"flops": 1e9, "steps": 3}}, "one positive of flops, samples, steps"),
        ({"budget": ...}, "got arms to train, expected a budget"),
        ({"seeds": [1, 1]}, "a seed twice"),
        ({"scoring": {"m": 5}}, "got key 'm'"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(folder, keys, message):
    change(folder, **keys)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_experiment(folder)


def test_a_folder_without_experiment_is_no_experiment(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a folder that holds experiment\.yaml"):
        read_experiment(tmp_path)


def test_a_budget_is_one_positive_number():
    with pytest.raises(ValueError, match="one positive"):
        Budget(flops=-1.0)
    with pytest.raises(ValueError, match="one positive"):
        Budget()


@pytest.mark.parametrize("home", FOLDERS, ids=lambda path: path.name)
def test_every_experiment_has_arms_of_few_lines_and_three_seeds(home):
    experiment = read_experiment(home)
    assert len(experiment.seeds) >= 3
    for arm in experiment.arms:
        own = home / f"{arm.name}.yaml"
        if own.is_file():
            lines = [line for line in own.read_text().splitlines() if line.split("#")[0].strip()]
            assert 1 <= len(lines) <= 5, own


@pytest.mark.parametrize("home", FOLDERS, ids=lambda path: path.name)
def test_every_overlay_belongs_to_an_arm(home):
    experiment = read_experiment(home)
    used = {path for arm in experiment.arms for stage in arm.stages for path in stage.configs}
    assert {path for path in home.glob("*.yaml") if path.name != "experiment.yaml"} <= used
