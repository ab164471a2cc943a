"""The manual and the API reference build without a warning, and hold what they should."""

from __future__ import annotations

import importlib
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder of the built pages; built from a copy, so that nothing is left in docs/."""
    folder = tmp_path_factory.mktemp("manual")
    source = folder / "docs"
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("_build", "api"))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    result = subprocess.run(
        [*command, source, folder / "html"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return folder / "html"


def test_every_public_name_is_documented(built):
    modules = runpy.run_path(str(DOCS / "conf.py"))["API"]
    assert {"zoo", "zoo.dataset"} <= set(modules)
    for module in modules:
        page = (built / "api" / f"{module}.html").read_text(encoding="utf-8")
        held = importlib.import_module(module)
        lacking = [
            name
            for name in held.__all__
            if callable(getattr(held, name))
            and f'id="{module}.{name}"' not in page
            and f">{module}.{name}<" not in page
        ]
        assert not lacking, f"{module}: {lacking}"


def test_every_page_is_in_the_manual(built):
    index = (built / "index.html").read_text(encoding="utf-8")
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert not {page for page in pages if f'href="{page}.html"' not in index}
