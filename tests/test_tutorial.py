"""The tutorial notebook runs in this Python, and its committed outputs are those of its cells."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

REPO = Path(__file__).parents[1]
NOTEBOOK = REPO / "docs" / "tutorial.ipynb"
LARGEST = 300_000


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("tutorial", REPO / "tools" / "tutorial.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kinds(notebook):
    """Return for each cell of code which kinds of output it has."""
    return [
        sorted({kind for o in cell.outputs for kind in (o.get("data") or {o.get("name"): 0})})
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_what_is_committed_is_small_whole_and_of_no_machine():
    text = NOTEBOOK.read_text()
    assert len(text) < LARGEST
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 8
    assert all(cell.outputs for cell in code)
    assert not re.search(r"/(home|tmp|root|Users|work|usr|opt|var)/", text)
    assert "image/png" in kinds(notebook)[-1]


def test_nothing_of_the_kernel_is_left_open(tool, tmp_path, monkeypatch):
    """A socket that is left is told of whenever it is collected: in some other test."""
    cell = nbformat.v4.new_code_cell("import os; print(os.getpid())")
    done = tool.execute(nbformat.v4.new_notebook(cells=[cell]), tmp_path)
    left = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)
    gc.collect()
    assert left == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.cells[0].outputs[0].text), 0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_tutorial_runs(tool, tmp_path, monkeypatch):
    # the kernel is a process of its own: it takes the package that is tested here
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    committed = nbformat.read(NOTEBOOK, as_version=4)
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    asked = "import sys; print(sys.executable)"
    fresh.cells.append(nbformat.v4.new_code_cell(asked))
    done = tool.execute(fresh, tmp_path)
    assert done.cells.pop().outputs[0].text.strip() == sys.executable
    assert kinds(done) == kinds(committed)
    assert all("stderr" not in found for found in kinds(done))
    assert (tmp_path / "tutorial.html").stat().st_size > 0
    assert str(tmp_path) not in nbformat.writes(done)
