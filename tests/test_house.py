"""The rules of the house, read from the syntax tree: who may import what, sizes, docstrings."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from house_imports import ROOMS, circles, tree_of, upward

REPO = Path(__file__).parents[1]
HOUSE = REPO / "zoo"
FILES = sorted(HOUSE.rglob("*.py"))

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

#: Functions that are a loss, or what one is made of.
LOSSES = r"(\w*_)?cross_entropy(_\w+)?|log_softmax|logsumexp|(mse|nll|l1|huber)_loss"

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def name_of(path):
    return path.relative_to(REPO).as_posix()


@pytest.fixture(params=FILES, ids=name_of)
def file(request):
    return request.param


def imports(tree, *, top_only=False):
    """Yield the dotted names that a module imports, for whatever purpose."""
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module


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
    rooms = {room_of(path) for path in FILES}
    assert rooms <= set(ROOMS), f"rooms without a place in the house: {rooms - set(ROOMS)}"
    assert len(FILES) > 50


def test_a_room_imports_and_starts_only_what_stands_below():
    assert upward(REPO) == []


def test_no_files_import_each_other_in_a_circle():
    assert [c for c in circles(REPO) if "zoo.spec.run" not in c] == []


#: A small house: what stands where, before something is planted in it.
SMALL = {
    "zoo/__init__.py": "",
    "zoo/__main__.py": "from zoo.cli.main import main\n",
    "zoo/errors.py": "",
    "zoo/store/__init__.py": "from zoo.store.reader import read\n",
    "zoo/store/reader.py": "import zoo.errors\n",
    "zoo/launch/__init__.py": "",
    "zoo/launch/local.py": "from zoo.store import read\n",
    "zoo/cli/__init__.py": "",
    "zoo/cli/__main__.py": "from zoo.cli.main import main\n",
    "zoo/cli/main.py": "import zoo\nTABLE = {'run': 'zoo.cli.run:run'}\n",
    "zoo/cli/run.py": "from zoo.launch.local import run\n",
}


def planted(folder, name, text):
    """Build the small house with one more file, or with a file that says more."""
    for path, content in (SMALL | {name: SMALL.get(name, "") + text}).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "from zoo.launch.local import run",
        "import zoo.cli.main",
        "from zoo import cli",
        "import zoo",
        "def f():\n    from zoo.launch import local",
        "if TYPE_CHECKING:\n    from zoo.launch.local import run",
        "import_module('zoo.launch')",
        "TABLE = {'run': 'zoo.launch.local:run'}",
        "import_module(f'zoo.{room}')",
        "import_module(f'zoo.launch.{name}')",
        "run([sys.executable, '-P', '-m', 'zoo.cli', *words])",
        "WORDS = ('-m', 'zoo')",
        "command = 'python -m zoo run'",
        "command = f'{python} -m zoo.cli run'",
        "BOOT = 'import sys; from zoo.launch.local import run'",
    ],
)
def test_a_planted_import_from_above_is_found(tmp_path, text):
    found = upward(planted(tmp_path, "zoo/store/writer.py", f"{text}\n"))
    assert found
    assert all(line.startswith("zoo/store/writer.py:") for line in found)


@pytest.mark.parametrize(
    "text",
    [
        "import zoo.errors",
        "from zoo.store.reader import read",
        "import_module('zoo.errors')",
        "'''See :func:`zoo.launch.local.run`.'''",
        "def f():\n    '''What `python -m zoo` calls.'''",
        "logging.getLogger('zoo.launch')",
        "message = f'run `zoo {verb}`, or zoo.open(path) and z.query(...)'",
        "run([sys.executable, '-m', 'pip'])",
        "name_in_a_file = f'zoo.{activation}'",
    ],
)
def test_what_stands_below_or_only_reads_like_an_import_is_allowed(tmp_path, text):
    house = planted(tmp_path, "zoo/store/writer.py", f"{text}\n")
    assert upward(house) == []
    assert circles(house) == []


@pytest.mark.parametrize(
    "text",
    [
        "from zoo.store.reader import read",
        "def f():\n    from zoo.store.reader import read",
        "if TYPE_CHECKING:\n    from zoo.store.reader import read",
        "import_module('zoo.store.reader')",
    ],
)
def test_a_planted_circle_is_found(tmp_path, text):
    back = "if TYPE_CHECKING:\n    import zoo.store.schema\n"
    one_way = planted(tmp_path / "a", "zoo/store/schema.py", f"{text}\n")
    assert circles(one_way) == []
    house = planted(tmp_path / "b", "zoo/store/schema.py", f"{text}\n")
    (house / "zoo" / "store" / "reader.py").write_text(back)
    assert circles(house) == [["zoo.store.reader", "zoo.store.schema"]]


def test_a_file_that_imports_from_its_own_package_is_in_a_circle(tmp_path):
    house = planted(tmp_path, "zoo/store/reader.py", "from zoo.store import read\n")
    assert circles(house) == [["zoo.store", "zoo.store.reader"]]


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


def loops_over_ops(tree):
    """The lines that go through the ops of a network by hand."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            node.attr == "nodes"
            or (node.attr == "ops" and ast.unparse(node.value).split(".")[-1] == "network")
        )
    ]


def test_one_walker_goes_over_the_ops_of_a_network(file):
    if room_of(file) != "architectures":
        found = loops_over_ops(tree_of(file))
        assert not found, f"{name_of(file)}:{found}: call the network's own passes"


def test_a_loop_over_ops_is_seen():
    for planted in ("for op in self.network.ops: pass", "a = network.graph.nodes[0]"):
        assert loops_over_ops(ast.parse(planted))


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


def losses_of(tree):
    """Return the names of loss functions that a module uses; text and comments do not count."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {name for name in names if re.fullmatch(LOSSES, name)}


def test_losses_are_spelled_out_in_one_room(file):
    """What a model minimises is known to its objective alone, and to the kernels beneath."""
    if room_of(file) in ("objectives", "kernels"):
        return
    found = losses_of(tree_of(file))
    assert not found, f"{name_of(file)} spells out {found}; an objective has the loss"


def test_a_loss_spelled_out_elsewhere_is_found():
    for line in (
        "F.cross_entropy(z, y)",
        "torch.logsumexp(z, -1)",
        "x.log_softmax(-1)",
        "mse_loss",
    ):
        assert losses_of(ast.parse(line)), line
    assert not losses_of(ast.parse("OBJECTIVES['cross_entropy'].losses(z, y)  # logsumexp"))


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
    address = r"(?<!\.)\b\d{1,3}(\.\d{1,3}){3}\b"  # after a dot it is the name of a chunk
    machine = re.compile("/" + r"(home|root|work|Users|scratch)/\w" + "|" + address)
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
