"""Notebooks run from top to bottom on a fresh clone, and are stored without what they printed."""

import ast
from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_LINES = 10


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def code_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_a_notebook_is_stored_without_outputs(path):
    for cell in code_cells(path):
        assert not cell.outputs
        assert cell.execution_count is None


def test_what_takes_more_than_ten_lines_belongs_in_the_package(path):
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < MAX_LINES, node.name


@pytest.fixture(scope="module")
def kernel():
    """One process for all: most of a notebook's time would be that of imports."""
    manager = KernelManager(kernel_name="python3")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)  # pictures are to appear in the notebook
        manager.start_kernel(cwd=str(ROOT / "notebooks"))
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_a_notebook_runs_from_top_to_bottom(path, kernel):
    notebook = nbformat.read(path, as_version=4)
    forget = nbformat.v4.new_code_cell("%reset -f")  # names of the notebooks before
    notebook.cells.insert(0, forget)
    NotebookClient(notebook, km=kernel, timeout=240).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert any("text/html" in output.get("data", {}) for output in shown)
