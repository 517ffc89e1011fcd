"""The project's own files agree: requirements with pins, targets with what they promise."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGETS = ("setup", "check", "test", "smoke", "bench", "demo")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins() -> dict[str, tuple[int, ...]]:
    """Versions in ``constraints.txt`` by normal name."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        match = re.fullmatch(r"([\w.-]+)==([\w.+!-]+)", line)
        assert match, f"not a pin: {line!r}"
        found[normal(match[1])] = release(match[2])
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))


def test_every_tested_requirement_is_pinned_within_its_range():
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    tested = project["dependencies"] + extras["dev"]
    for extra in re.search(r"vdm\[(.*?)\]", extras["dev"][0])[1].split(","):
        tested += extras[extra]
    pinned = pins()
    for requirement in tested:
        name = normal(re.split(r"[\[<>=]", requirement)[0])
        if name == "vdm":
            continue
        assert name in pinned, f"{name} is not in constraints.txt"
        (least,) = re.findall(r">=([\d.]+)", requirement)
        assert release(least) <= pinned[name], f"{requirement} but pinned {pinned[name]}"


def test_all_requirements_say_what_is_the_lowest_that_works():
    project = PYPROJECT["project"]
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in group:
            assert ">=" in requirement or requirement.startswith("vdm["), requirement


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_sets_up_first_and_names_no_machine(target):
    planned = subprocess.run(
        ["make", "--dry-run", "--always-make", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert planned.index("venv .venv") < planned.index("install")
    assert "-c constraints.txt" in planned


@pytest.mark.parametrize("caption", ["a red circle moves left, a blue ring grows", 'a "b" \'c`'])
def test_a_caption_of_the_user_reaches_the_demo_whole(caption, tmp_path):
    demo = tmp_path / "vdm"
    demo.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    demo.chmod(0o755)
    said = subprocess.run(
        # Within `make test` this is a make in a make, which would say where it enters and leaves.
        [
            "make",
            "--no-print-directory",
            "--silent",
            "--old-file=.venv/.setup-done",
            "demo",
            f"BIN={tmp_path}",
            f"PROMPT={caption}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.splitlines() == ["demo", "--prompt", caption]


def test_continuous_integration_checks_and_then_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    commands = [line for line in script.read_text().splitlines() if line.startswith("make")]
    assert commands == ["make check", "make test"]


def test_the_version_is_stated_once_more_and_the_same():
    import vdm

    assert vdm.__version__ == PYPROJECT["project"]["version"]


def test_the_licence_is_whole():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert text.rstrip().endswith("limitations under the License.")
