"""The rules of the house, read from the syntax tree: who may import what, sizes, docstrings."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
HOUSE = REPO / "zoo"
FILES = sorted(HOUSE.rglob("*.py"))

#: From the ground to the roof; a room imports only what stands before it.
ROOMS = (
    "errors", "registry", "seeds", "spec", "data", "kernels", "architectures", "optim", "train",
    "diets", "landscape", "store", "phases", "dataset", "report", "launch", "cli",
)  # fmt: skip

#: Libraries that one room alone may import.
ONLY_IN = {
    "zarr": ["zoo/store/"],
    "numcodecs": ["zoo/store/"],
    "google_crc32c": ["zoo/store/"],
    "triton": ["zoo/kernels/"],
    "submitit": ["zoo/launch/slurm"],
    "h5py": ["zoo/dataset/exports/"],
    "argparse": ["zoo/cli/"],
}
#: Optional, so never imported when a module is.
OPTIONAL = {
    "matplotlib", "pandas", "polars", "xarray", "h5py", "safetensors", "submitit", "triton",
    "torch_geometric", "nfn",
}  # fmt: skip
NEVER = {
    "pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "requests",
    "urllib.request",
}

#: Reads a published format that is a pickle, by an unpickler that admits one kind of array.
READS_PICKLES = "zoo/data/cifar.py"

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def name_of(path):
    return path.relative_to(REPO).as_posix()


@pytest.fixture(params=FILES, ids=name_of)
def file(request):
    return request.param


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree, *, top_only=False):
    """Yield the dotted names that a module imports, those for type checking alone left out."""
    nodes = list(tree.body) if top_only else list(ast.walk(tree))
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in nodes:
        if id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module
            if node.module == "zoo":
                yield from (f"zoo.{alias.name}" for alias in node.names)


def room_of(path):
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def functions(tree):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def docstring_lines(node):
    first = node.body[0]
    has = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return first.end_lineno - first.lineno + 1 if has and isinstance(first.value.value, str) else 0


def test_every_room_has_its_place():
    rooms = {room_of(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms <= set(ROOMS), f"rooms without a place in the house: {rooms - set(ROOMS)}"
    assert len(FILES) > 50


def test_a_room_imports_only_what_stands_below(file):
    room = room_of(file)
    if room == "__init__":
        return  # the front door: its names are imported on first use
    for name in imports(tree_of(file)):
        parts = name.split(".")
        if parts[0] != "zoo" or len(parts) == 1:
            continue
        if parts[1] not in ROOMS:  # a public name of the front door (zoo.open, __version__)
            assert room == "cli", f"{name_of(file)} imports {name}: only the roof uses the door"
            continue
        below = ROOMS.index(parts[1]) <= ROOMS.index(room)
        assert below, f"{name_of(file)} ({room}) imports {name}, which stands above it"


def test_libraries_stay_in_their_rooms(file):
    name = name_of(file)
    for module in imports(tree_of(file)):
        if (module, name) == ("pickle", READS_PICKLES):
            continue
        assert module not in NEVER, f"{name} imports {module}"
        assert module.split(".")[0] not in NEVER, f"{name} imports {module}"
        for library, places in ONLY_IN.items():
            if module.split(".")[0] == library:
                assert any(name.startswith(place) for place in places), f"{name} imports {library}"


def test_the_one_reader_of_pickles_admits_what_it_lists():
    tree = tree_of(REPO / READS_PICKLES)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
    }
    assert used == {"Unpickler", "UnpicklingError"}
    readers = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, node.bases)
    ]
    assert readers
    for reader in readers:
        assert {"find_class", "persistent_load"} <= {f.name for f in functions(reader)}


def test_optional_libraries_are_imported_on_use(file):
    found = {module.split(".")[0] for module in imports(tree_of(file), top_only=True)}
    assert not found & OPTIONAL


def test_files_and_functions_are_short(file):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines < MAX_FILE_LINES, f"{name_of(file)} has {lines} lines"
    for node in functions(tree_of(file)):
        length = node.end_lineno - node.lineno + 1 - docstring_lines(node)
        where = f"{name_of(file)}:{node.lineno} {node.name}"
        assert length < MAX_FUNCTION_LINES, f"{where} has {length} lines"


def test_public_names_are_documented(file):
    tree = tree_of(file)
    assert ast.get_docstring(tree), f"{name_of(file)} has no docstring"
    todo = [(node, "") for node in tree.body]
    while todo:
        node, inside = todo.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        decorators = {ast.unparse(d).split(".")[-1] for d in node.decorator_list}
        if not decorators & {"overload", "setter", "override"}:
            where = f"{name_of(file)}:{node.lineno} {inside}{node.name}"
            assert ast.get_docstring(node), f"{where} has no docstring"
        if isinstance(node, ast.ClassDef):
            todo += [(inner, f"{node.name}.") for inner in node.body]


def test_nothing_prints_outside_the_command_line(file):
    if room_of(file) == "cli":
        return
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{name_of(file)}:{node.lineno} prints"


def test_nothing_seeds_globally_or_unpickles(file):
    text = ast.unparse(tree_of(file))  # without comments
    for pattern in (
        r"torch\.manual_seed\(", r"np\.random\.seed\(", r"random\.seed\(", r"\beval\(", r"\bexec\(",
        r"allow_pickle=True", r"torch\.(load|save)\(", r"os\.system\(", r"shell=True",
    ):  # fmt: skip
        found = re.search(rf"(?<![.\w]){pattern}", text)
        # a method called eval() (of a module) is something else than the built-in
        assert found is None, f"{name_of(file)} has {found and found.group()}"


def test_nothing_names_a_machine():
    """No home folders, no addresses: the repository works on any machine."""
    suffixes = {".py", ".toml", ".md", ".sh", ".txt", ""}
    folders = ("zoo", "tests", "sweeps", "docs", "tools", "benchmarks", "slurm", ".ci")
    files = [p for name in folders for p in (REPO / name).rglob("*") if p.is_file()]
    files += [p for p in REPO.iterdir() if p.is_file() and not p.name.startswith(".")]
    machine = re.compile("/" + r"(home|root|work|Users|scratch)/\w" + r"|\b\d{1,3}(\.\d{1,3}){3}\b")
    for path in files:
        if path.suffix in suffixes and "__pycache__" not in path.parts:
            found = machine.search(path.read_text(encoding="utf-8", errors="replace"))
            assert found is None, f"{name_of(path)}: {found and found.group()}"


def test_direct_dependencies_are_pinned_within_their_ranges():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {}
    for line in (REPO / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pinned = Requirement(line)
            (only,) = pinned.specifier
            assert only.operator == "=="
            pins[canonicalize_name(pinned.name)] = only.version
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(r) for r in project["dependencies"]]
    for group in project["optional-dependencies"].values():
        wanted += [Requirement(r) for r in group]
    for need in wanted:
        if need.name == project["name"]:
            continue
        version = pins.get(canonicalize_name(need.name))
        assert version is not None, f"{need.name} is not in constraints.txt"
        assert version in need.specifier, f"{need} excludes the pinned {version}"
