"""The benchmarks of reading and of curvature run as their files say, at a tiny size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (
            ["bench_read.py", "--models", "16", "--params", "500", "--rows", "8", "--repeat", "2"],
            ["phasezoo", "zarr, oindex", "h5py, gzip", ".pt, a file a row", "safetensors"],
        ),
        (
            ["bench_landscape.py", "recipe", "--models", "2", "--exact", "1", "--repeats", "1"],
            ["method=ours", "method=pyhessian-style loop", "method=curvlinops"],
        ),
        (
            ["bench_landscape.py", "products", "--models", "2", "--repeats", "1"],
            ["method=second pass (ours)", "method=vmap(jvp(grad))"],
        ),
    ],
    ids=["read", "recipe", "products"],
)
def test_every_rival_is_measured(words, rows):
    command = [sys.executable, str(REPO / "benchmarks" / words[0]), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    first, *found = done.stdout.splitlines()
    assert first.startswith("cpu=")
    assert "torch=" in first
    assert "date=" in first
    for row in rows:
        assert any(row in line for line in found), (row, done.stdout)
