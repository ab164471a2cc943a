"""The guide: its blocks run, its tables say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from synthetic import grid, write
from test_label_store import publish_cells

from zoo.phases import PHASES, SETTINGS
from zoo.phases.thresholds import AGREEMENT
from zoo.phases.units import UNITS
from zoo.spec import load_sweep

REPO = Path(__file__).parents[2]
GUIDE = (REPO / "docs" / "phases.md").read_text(encoding="utf-8")


def test_blocks_run(tmp_path, monkeypatch, full, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "grid.csv", grid()[1])
    full.rename(tmp_path / "z.zarr")
    publish_cells(tmp_path / "z.zarr")
    space = {}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, space)
    out = capsys.readouterr().out
    assert "phases-v1" in out
    assert "given by the user" in out


def test_names_in_the_guide_are_those_of_the_code():
    for name in (*SETTINGS["zoo"].numbers(), "hard_tests"):
        assert f"`{name}`" in GUIDE, name
    for phase in PHASES:
        assert f"\n| {phase} |" in GUIDE
    for name in UNITS:
        assert f"`{name}`" in GUIDE
    for value in ("0.01 nats", "0.71", "0.82", "1.5 %"):
        assert value in GUIDE


def test_sweeps_have_the_models_that_the_guide_says():
    rows = re.findall(r"\| `(sweeps/[\w.]+)` \| ([^|]+) \| (\d+)", GUIDE)
    assert len(rows) == 8
    for file, axes, models in rows:
        sweep = load_sweep(REPO / file)
        assert len(sweep.runs()) == int(models), file
        assert "\N{MULTIPLICATION SIGN}" in axes
        assert set(sweep.axes) == {"load", "temperature"}
        if "label_noise" in sweep.base or "train_size" in sweep.base:
            assert sweep.base["noise_seed"] == 0, file


def test_the_guide_says_how_far_each_setting_agrees_with_the_published_grid():
    assert set(AGREEMENT) == set(SETTINGS)
    for percent in AGREEMENT.values():
        assert f"{percent:g} %" in GUIDE
