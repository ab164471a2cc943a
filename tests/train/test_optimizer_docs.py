"""docs/optimizers.md: its tables are the registries, its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from zoo.architectures import NORMS
from zoo.optim import OPTIMIZERS
from zoo.optim.twin import TensorLoop
from zoo.spec.run import RunSpec

PAGE = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text(encoding="utf-8")


def rows(mark):
    body = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", PAGE, re.DOTALL).group(1)
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in body.splitlines()[2:]]
    return {line[0].strip("`"): line[1:] for line in cells}


def names(cell):
    return re.findall(r"`(\w+)`", cell)


def test_every_optimizer_is_told_as_it_is():
    table = rows("optimizers")
    assert set(table) == set(OPTIMIZERS)
    for name, (fields, state, twin) in table.items():
        entry = OPTIMIZERS[name]
        assert names(fields) == list(entry.fields), name
        assert int(state) == len(entry.moments), name
        made = entry.torch([torch.nn.Parameter(torch.zeros(2))], RunSpec(optimizer=name))
        if twin == "loop":
            assert isinstance(made, TensorLoop)
        else:
            assert twin == f"`torch.optim.{type(made).__name__}`"
            assert type(made).__module__.startswith("torch.optim")


def test_every_norm_is_told_as_it_is():
    table = rows("norms")
    assert set(table) == set(NORMS)
    for name, (fields, _) in table.items():
        assert names(fields) == list(NORMS[name].fields), name


@pytest.mark.parametrize("text", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_code_runs(text):
    exec(compile(text, "docs/optimizers.md", "exec"), {})
