"""The kernels against their references: under Triton's interpreter, and on a GPU.

The interpreter has to be chosen before Triton is imported, and a process that interprets cannot
compile; so each file of ``cases/`` runs in a pytest of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
FILES = sorted((HERE / "cases").glob("kernel_*.py"))

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton: pip install phasezoo[gpu]"
)


def run_cases(file, tmp_path, **environment):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TRITON_CACHE_DIR": str(tmp_path),
        **environment,
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_kernels_equal_their_references(file, tmp_path):
    run_cases(file, tmp_path, TRITON_INTERPRET="1")


@pytest.mark.parametrize("file", FILES[:1], ids=lambda file: file.stem)
def test_the_bridge_to_a_device_changes_nothing(file, tmp_path):
    """What carries the cases to a GPU, with the interpreter in the GPU's place."""
    run_cases(file, tmp_path, TRITON_INTERPRET="1", ZOO_TEST_KERNELS="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_kernels_equal_their_references_on_a_gpu(file, tmp_path):
    run_cases(file, tmp_path, ZOO_TEST_KERNELS="cuda")


def test_there_are_files_of_cases():
    assert len(FILES) > 3
