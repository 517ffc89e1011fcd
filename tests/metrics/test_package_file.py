"""Weights are found where a package lies, and only those that the protocol names."""

import hashlib
import sys

import pytest

from vdm.metrics.package_file import PackageFile

CONTENT = b"some weights"
FILE = PackageFile(
    "fd/some", "brings_weights", "inner/some.pth", hashlib.sha256(CONTENT).hexdigest(), "brings==1"
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / FILE.package
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('was run')\n")
    (folder / FILE.path).write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_the_package_is_not_run(package):
    assert FILE.find() == package / FILE.path
    assert FILE.package not in sys.modules


def test_a_named_file_comes_first(package, tmp_path):
    mine = tmp_path / "mine.pth"
    mine.write_bytes(CONTENT)
    assert FILE.find(mine) == mine


def test_what_is_missing_is_told_with_what_brings_it(tmp_path):
    with pytest.raises(ImportError, match=r"^fd/some needs some.pth: pip install 'vdm\[metrics\]'"):
        FILE.find()
    with pytest.raises(FileNotFoundError, match=r"nowhere, expected the file some\.pth"):
        FILE.find(tmp_path / "nowhere")


def test_another_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "some.pth"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"some\.pth: got sha256 .* --no-deps brings==1") as said:
        FILE.find(path)
    assert "\n" not in str(said.value)
