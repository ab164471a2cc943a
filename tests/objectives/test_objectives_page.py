"""docs/objectives.md: its table is the registry, its example trains."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from zoo.launch.local import run
from zoo.objectives import OBJECTIVES, TARGETS
from zoo.spec import load_sweep
from zoo.store import read_plan

PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")


def table():
    lines = []
    for name in OBJECTIVES:
        about, entry = OBJECTIVES.about(name), OBJECTIVES[name]
        fields = ", ".join(f"`{field}`" for field in about.fields)
        takes = ", ".join(entry.takes)
        lines.append(f"| `{name}` | {takes} | {about.doc} | {fields} | {about.source} |\n")
    return "".join(lines)


def test_every_objective_is_told_as_it_is():
    body = re.search(r"<!-- objectives -->\n.*?\n.*?\n(.*?)<!-- /obj", PAGE, re.DOTALL).group(1)
    assert body == table(), f"put this there:\n{table()}"


def test_every_kind_of_targets_is_told():
    assert re.findall(r"^\| (\w+) \| (?:integer|zeros|floats|there)", PAGE, re.MULTILINE) == [
        *TARGETS
    ]


def test_the_example_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1), {})
    Path("w.toml").write_text(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL).group(1))
    run(load_sweep("w.toml"), tmp_path / "w.zarr", workers=0)
    assert {cohort.runs[0].objective for cohort in read_plan("w.zarr").cohorts} == {"mse"}
    assert np.load("waves.npz")["train_y"].dtype == np.float32
