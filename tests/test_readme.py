"""What the README says holds: its code runs, its numbers are those that were measured."""

import json
import re
from pathlib import Path

import pytest

from vdm.pipelines.results_table import results_table
from vdm.pretrained.sources import BUNDLED, bundled

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_code_runs_and_writes_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README, "python")
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "circle.mp4").stat().st_size > 1000


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README)
    local = [a or b for a, b in links if "://" not in (a or b)]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", bundled())
def test_the_tables_are_those_of_the_stored_scores(name):
    scores = json.loads((BUNDLED / name / "scores.json").read_text(encoding="utf-8"))
    table = results_table(scores)
    assert table in (BUNDLED / name / "README.md").read_text(encoding="utf-8")
    assert table in README


def test_the_tree_names_every_package():
    packages = [path.parent.name for path in (ROOT / "vdm").glob("*/__init__.py")]
    assert [name for name in packages if f"{name}/" not in README] == []


def test_every_recipe_that_is_named_exists():
    named = re.findall(r"configs/\w+\.yaml", README)
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []
