"""The kernels under Triton's interpreter, in processes of their own.

The interpreter has to be chosen before Triton is imported, and a process that interprets cannot
compile; so each file of ``interpreted/`` runs in a pytest of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted((HERE / "interpreted").glob("kernel_*.py"))

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton: pip install phasezoo[gpu]"
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_kernels_equal_their_references(file, tmp_path):
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "TRITON_CACHE_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout


def test_there_are_interpreted_files():
    assert len(FILES) > 3
