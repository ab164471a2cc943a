"""The benchmarks of reading, of curvature and of growth run as their files say, at a tiny size."""

from __future__ import annotations

import json
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
            ["phasezoo", "zarr, oindex", "h5py, gzip", ".pt, a file per row", "safetensors"],
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


def test_growth_is_measured_for_every_operation(tmp_path):
    """Sizes this small say nothing about exponents, so no exponent is too large."""
    words = ["--runs", "8,16", "--cohorts", "2,4", "--limit", "99"]
    command = [sys.executable, str(REPO / "benchmarks" / "bench_scale.py"), *words]
    command += ["--json", str(tmp_path / "scale.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "above 99.0: none"
    found = json.loads((tmp_path / "scale.json").read_text())
    operations = {"plan", "create", "open", "query", "status", "verify", "publish", "score"}
    for axis, sizes in (("runs", [8, 16]), ("cohorts", [2, 4])):
        assert found[axis]["sizes"] == sizes
        assert found[axis]["exponents"].keys() == operations


def test_every_way_of_grand_has_the_same_norms():
    found = []
    for way in ("ghost", "vmap a model", "vmap at once"):
        words = ["-m", "benchmarks.bench_grand", "--case", "mlp-64, 8x8", "--way", way]
        done = subprocess.run(
            [sys.executable, *words], cwd=REPO, capture_output=True, text=True, check=True
        )
        found.append(float(done.stdout.split()[-1]))
    assert found == pytest.approx(found[:1] * 3, rel=1e-4)
