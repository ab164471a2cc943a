"""Functions that take many things take records of them."""

from __future__ import annotations

import ast
from pathlib import Path

import zoo

#: What users type: options by name, as the libraries they know have them.
FACADES = {"run", "run_stage", "benchmark", "objective", "WeightDataset.__init__"}
MOST = 6


def long_signatures(source: str) -> set[str]:
    """Return the functions with more parameters than MOST, a kernel's apart.

    What Triton compiles takes addresses and constants one by one.
    """
    found = set()
    tree = ast.parse(source)
    owners = {f: c.name for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for f in c.body}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if any(isinstance(d, ast.Name) and d.id == "jit" for d in node.decorator_list):
            continue
        given = node.args
        names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        if len([name for name in names if name not in ("self", "cls")]) > MOST:
            found.add(f"{owners[node]}.{node.name}" if node in owners else node.name)
    return found


def test_a_planted_signature_is_seen():
    long = "def f(a, b, c, *, d, e, g, h): ..."
    assert long_signatures(long) == {"f"}
    assert long_signatures(f"class A:\n    {long}") == {"A.f"}
    assert long_signatures("def f(self, a, b, c, d, e, g): ...") == set()
    assert long_signatures(f"@jit\n{long}") == set()


def test_only_what_users_type_has_many_parameters():
    found = set()
    for path in Path(zoo.__file__).parent.rglob("*.py"):
        found |= long_signatures(path.read_text(encoding="utf-8"))
    assert found == FACADES
