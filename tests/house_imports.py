"""What the files of a house import and start, read from their syntax trees.

Every kind counts: statements at the top, inside functions and for type checking alone, names of
modules in strings (tables, ``import_module``, code handed to another Python), and programs that are
started with ``-m``. Docstrings and the names of loggers do not.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

#: From the ground to the roof; a room imports only what stands before it. The front door (what
#: ``import zoo`` gives, as ``__init__``) stands above what it opens, and below the command line.
ROOMS = (
    "version", "filling", "errors", "fields", "registry", "seeds", "paths", "plugins", "arithmetic",
    "provenance", "arrays", "spec", "data", "kernels", "objectives", "architectures", "optim",
    "train", "diets",
    "landscape", "store", "phases", "plugin", "dataset", "stages", "launch", "report",
    "composition", "__init__", "cli", "__main__",
)  # fmt: skip

_MODULE = re.compile(r"\bzoo(?:\.[A-Za-z_]\w*)+")
#: A string that is nothing but the name of a module, or of something in it.
_ENTRY = re.compile(r"zoo(?:\.\w+)+(?::\w*)?")
_STARTED = re.compile(r"-m\s+(zoo\b(?:\.[A-Za-z_]\w*)*)")
#: A name that is put together when the code runs.
ANY = "zoo.*"


class Import(NamedTuple):
    """A module that a file imports, starts or names.

    ``closes`` says whether it counts for circles of files: a program that is started has a process
    of its own, and a text that mentions a module among other words may be for people.
    """

    module: str
    line: int
    closes: bool = True


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(root: Path) -> dict[str, Path]:
    """Return module → file, of every module of the house in ``root``."""
    found = {}
    for path in sorted((root / "zoo").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.Module, known: dict[str, Path]) -> list[Import]:
    """Return everything of ``known`` that a module imports or starts; :data:`ANY` included."""
    skip = {id(node) for node in _no_imports(tree)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append(Import(inner if inner in known else node.module, node.lineno))
        elif isinstance(node, ast.List | ast.Tuple):
            for flag, program in zip(node.elts, node.elts[1:], strict=False):
                if isinstance(flag, ast.Constant) and flag.value == "-m":
                    found += _started(program, known)
                    skip.add(id(program))
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            texts = [arg for arg in node.args if isinstance(arg, ast.JoinedStr)]
            found += [Import(ANY, node.lineno) for text in texts if "zoo." in ast.unparse(text)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skip:
            for text in _STARTED.findall(node.value):
                found.append(Import(_main(text, known), node.lineno, closes=False))
            alone = _ENTRY.fullmatch(node.value) is not None
            for text in _MODULE.findall(_STARTED.sub("", node.value)):
                if name := _longest(text, known):
                    found.append(Import(name, node.lineno, closes=alone))
    return [one for one in found if one.module in known or one.module == ANY]


def _no_imports(tree: ast.Module) -> list[ast.AST]:
    """Return the strings that nobody runs: docstrings, and the names of loggers."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.append(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger"):
            found += node.args
    return found


def _started(program: ast.expr, known: dict[str, Path]) -> list[Import]:
    text = program.value if isinstance(program, ast.Constant) else None
    if isinstance(text, str) and (text == "zoo" or text.startswith("zoo.")):
        return [Import(_main(text, known), program.lineno, closes=False)]
    return []


def _main(name: str, known: dict[str, Path]) -> str:
    return f"{name}.__main__" if f"{name}.__main__" in known else name


def _longest(text: str, known: dict[str, Path]) -> str | None:
    """Return the module that a dotted text begins with; ``zoo.open`` is a name of the door."""
    parts = text.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 1, -1))
    return next((name for name in names if name in known), None)


def room_of(module: str) -> str:
    """Return the room of a module; the front door's is ``__init__``."""
    return module.split(".")[1] if "." in module else "__init__"


@functools.cache
def house(root: Path) -> dict[str, tuple[Path, list[Import]]]:
    """Return module → its file, and what that imports, of the house in ``root``."""
    known = modules(root)
    return {name: (path, imports(tree_of(path), known)) for name, path in known.items()}


def upward(root: Path) -> list[str]:
    """Return a line for each import or start of something that stands above."""
    found = []
    for module, (path, inner) in house(root).items():
        here = ROOMS.index(room_of(module))
        for one in inner:
            if one.module == ANY:
                above = room_of(module) != "__init__"  # the door opens any room
            else:
                above = ROOMS.index(room_of(one.module)) > here
            if above:
                found.append(f"{path.relative_to(root)}:{one.line} reaches up to {one.module}")
    return found


def circles(root: Path) -> list[list[str]]:
    """Return the sets of files that import each other, however they do it."""
    edges = {
        module: {one.module for one in inner if one.closes and one.module not in (ANY, module)}
        for module, (_, inner) in house(root).items()
    }
    reach = {module: _reachable(module, edges) for module in edges}
    found = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in edges
        if module in reach[module]
    }
    return [list(circle) for circle in sorted(found)]


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    """Return what a file imports, and what that imports, and so on."""
    found: set[str] = set()
    todo = [start]
    while todo:
        new = edges[todo.pop()] - found
        found |= new
        todo += new
    return found
