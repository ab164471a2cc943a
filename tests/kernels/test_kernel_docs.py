"""docs/kernels.md: its code runs, and it names every kernel file."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).parents[2]
TEXT = (REPO / "docs" / "kernels.md").read_text(encoding="utf-8")
#: Parts that operations are made of.
PARTS = {"__init__", "language", "softmax", "philox", "activation", "conv_forms"}


def test_the_code_runs(capsys):
    scope = {}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/kernels.md", "exec"), scope)
    assert capsys.readouterr().out.splitlines()[-1] == "implicit"


def test_every_operation_is_in_the_table():
    files = {p.stem for p in (REPO / "zoo" / "kernels").glob("*.py")} - PARTS
    assert files == set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))


def test_what_it_names_exists():
    for path in re.findall(r"`((?:zoo|tests|benchmarks)/[\w/.]+)`", TEXT):
        assert (REPO / path).exists(), path
