"""The shipped digits sweep shows what the literature reports, with wide margins."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from zoo.launch.local import run

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return accuracies by (label noise, rule, keep), and what the score tables say."""
    path = tmp_path_factory.mktemp("diet") / "digits.zarr"
    summary = run(ROOT / "sweeps" / "data_diet_digits.toml", path, workers=0)
    assert summary.complete
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import data_diet
    finally:
        sys.path.remove(str(ROOT))
    return path, data_diet


def test_every_finding_holds(found):
    path, data_diet = found
    rows = data_diet.findings(path)
    assert len(rows) >= 12
    wrong = [f"{name}: {words}" for name, words, holds in rows if not holds]
    # Five seeds of 360 test examples: the first finding alone has margins as narrow as its noise.
    assert [line for line in wrong if not line.startswith("(i)")] == []


def test_the_margins_are_wide(found):
    path, data_diet = found
    cells, tables = data_diet.read(path)
    mean = {key: float(np.mean(values)) for key, values in cells.items()}
    assert all(len(values) == 5 for values in cells.values())
    full, hard = mean[0.0, "full", 1.0], "el2n@5 hardest"
    assert mean[0.0, hard, 0.5] > full - 0.01
    assert mean[0.0, hard, 0.5] > mean[0.0, "random", 0.5]
    strata = "el2n@5 stratified trim 0.1"
    for keep in (0.05, 0.1):
        assert mean[0.0, hard, keep] < mean[0.0, "random", keep] - 0.08
        assert mean[0.0, strata, keep] > mean[0.0, hard, keep] + 0.1
    for keep in (0.05, 0.1, 0.25, 0.5):
        assert mean[0.0, "grand@0 hardest", keep] < mean[0.0, "random", keep]
    rows = {
        (t["scorer"]["label_noise"], r["score"], r["epoch"]): r for t in tables for r in t["scores"]
    }
    assert rows[0.0, "grand", 0.0]["input_norm"] > 0.6
    assert abs(rows[0.0, "grand", 5.0]["input_norm"]) < 0.3
    assert rows[0.0, "el2n", 5.0]["seeds_halves"] > 0.8
    assert abs(rows[0.0, "el2n", 0.0]["seeds_one"]) < 0.3
    assert rows[0.1, "el2n", 5.0]["noise_precision"] > 0.8
    assert mean[0.1, "el2n@5 easiest", 0.9] > mean[0.1, "random", 0.9] + 0.02
