"""The GPU benchmarks run, and say plainly when there is nothing to measure with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).parents[2]
SCRIPTS = ["bench_kernels.py", "bench_gpu.py"]


def run(script, *arguments):
    command = [sys.executable, str(REPO / "benchmarks" / script), *arguments]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_case_runs_once_at_a_tiny_size(script):
    done = run(script, "--smoke")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nan" in done.stdout, "a smoke test has no figures"
    assert len(done.stdout.splitlines()) > 15


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device to measure")
def test_without_a_gpu_nothing_is_claimed(script, tmp_path):
    done = run(script, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no CUDA device" in done.stdout
    assert not list(tmp_path.iterdir())
