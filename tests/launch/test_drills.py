"""Every verb that writes, killed before any of its file operations; the same command mends it.

Not at random moments: a child counts its file operations and dies before a chosen one, so that the
few that matter are met in any run. ``ZOO_KILLS=N`` kills N times a verb.
"""

# ruff: noqa: E501

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from zoo.spec import Sweep
from zoo.store import is_store, verify_store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # a page with its pictures is made some 25 times
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts Linux's calls"),
]
#: Kills a verb; with the verbs below more than 200.
KILLS = int(os.environ.get("ZOO_KILLS", "15"))

TABLES = {
    "name": "drill",
    "axes": {"load": "width", "temperature": "batch_size"},
    "base": {"data": "digits", "lr": 0.05, "steps": 6, "train_size": 200},
    "grid": {"width": [4, 6], "batch_size": [32, 64], "seed": [0, 1]},
    "record": {"steps": [0, 3, 6], "probe_size": 8},
}
MORE = {**TABLES, "grid": {**TABLES["grid"], "seed": [0, 1, 2]}}
DIET = {
    "name": "diet",
    "base": {"data": "digits", "epochs": 1, "width": 4, "score": "el2n", "score_epoch": 1.0,
             "score_seeds": 2, "keep": 0.5, "train_size": 200},
    "grid": {"seed": [0, 1]},
    "diet": {"baseline": False},
    "record": {"epochs": [1], "probe_size": 0},
}  # fmt: skip
CNN = {
    "name": "cnn",
    "base": {"data": "digits", "steps": 2, "width": 4, "train_size": 200, "architecture": "cnn"},
    "grid": {"seed": [0, 1]},
    "record": {"steps": [2], "probe_size": 0},
}
LANDSCAPE = [
    "landscape", "x.zarr", "--metrics", "curvature,connectivity,similarity", "--workers", "0", "-q",
    *(word for option in (
        "curvature.steps=4", "curvature.more_steps=6", "curvature.probes=2",
        "connectivity.min_steps=2", "connectivity.max_steps=4", "connectivity.points=3",
        "connectivity.statistics=32", "probes.train=64", "probes.test=32", "probes.mixup=32",
    ) for word in ("--set", option)),
]  # fmt: skip
#: Python that stands for what no verb does.
PLANNED = (
    "from pathlib import Path; from zoo.stages.plan import prepare_store;"
    " from zoo.spec import load_sweep; prepare_store(load_sweep('diet.toml'), Path('d.zarr'))"
)
MATERIALIZE = "import zoo; zoo.open('x.zarr').query('epoch == -1').materialize('cache')"
NORMALIZATION = (
    "import zoo; from zoo.dataset import fit_normalization as fit;"
    " fit(zoo.open('x.zarr').query('epoch == -1 and width == 4')).save('n.npz')"
)

#: verb -> (where it begins, the command line or code)
VERBS = {
    "run": ("empty", ["run", "s.toml", "--out", "x.zarr", "--workers", "0", "-q"]),
    "extend": ("trained", ["run", "more.toml", "--out", "x.zarr", "--workers", "0", "-q"]),
    "score": ("planned", ["score", "d.zarr", "--workers", "0", "-q"]),
    "landscape": ("trained", LANDSCAPE),
    "label": ("measured", ["label", "x.zarr"]),
    "snapshot": ("trained", ["snapshot", "x.zarr", "epoch == -1", "--name", "a"]),
    "split": ("trained", ["split", "x.zarr", "--by", "run", "--out", "split.json"]),
    "export hdf5": ("trained", ["export", "x.zarr", "epoch == -1", "--format", "hdf5", "--out", "a.h5"]),
    "export safetensors": ("trained", ["export", "x.zarr", "epoch == -1", "--format", "safetensors", "--out", "a"]),
    "export small-cnn-zoo": ("cnn", ["export", "c.zarr", "--format", "small-cnn-zoo", "--out", "a"]),
    "materialize": ("trained", MATERIALIZE),
    "normalization": ("trained", NORMALIZATION),
    "report --html": ("labelled", ["report", "x.zarr", "--html", "a.html"]),
    "report --plot": ("trained", ["report", "x.zarr", "--plot", "a.svg"]),
    "repair": ("damaged", ["repair", "x.zarr"]),
    "submit": ("empty", ["submit", "s.toml", "--out", "x.zarr", "--cluster", "p.toml", "--calibrate", "0"]),
}  # fmt: skip
#: What follows before the contents are compared: what a repair took back is trained again.
THEN = {"repair": ["run", "x.zarr", "--workers", "0", "-q"]}


class Drill:
    """The process that forks, and what it is told."""

    def __init__(self, folder: Path) -> None:
        self.slurm = FakeSlurm(folder / "slurm")
        words = [sys.executable, str(Path(__file__).with_name("kill_drill.py"))]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def __call__(self, folder, what, at=0):
        """Run a command, killed before its ``at``-th operation; return the answer."""
        job = {"folder": str(folder), "at": at}
        job["code" if isinstance(what, str) else "words"] = what
        job["environment"] = {"PATH": f"{self.slurm.bin}{os.pathsep}{os.environ['PATH']}"}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def well(self, folder, what):
        """Run a command to its end."""
        found = self(folder, what)
        assert found["code"] == 0, found["said"]
        return found


@pytest.fixture(scope="module")
def drill(tmp_path_factory):
    found = Drill(tmp_path_factory.mktemp("drill"))
    try:
        yield found
    finally:
        found.process.stdin.close()
        found.process.wait(60)
        found.process.stdout.close()


@pytest.fixture(scope="module")
def places(drill, tmp_path_factory):
    """Return a function that returns the folder in which a verb begins; only to be copied."""
    root, made = tmp_path_factory.mktemp("places"), {}

    def begin(name, after, *steps):
        shutil.copytree(place(after), root / name)
        for step in steps:
            drill.well(root / name, step)

    def place(name):
        if name in made:
            return made[name]
        made[name] = root / name
        if name == "empty":
            (root / name).mkdir()
            for file, tables in (("s", TABLES), ("more", MORE), ("diet", DIET), ("cnn", CNN)):
                (root / name / f"{file}.toml").write_text(Sweep.from_dict(tables).to_toml())
            (root / name / "p.toml").write_text('time = "0:30:00"\n')
        elif name == "trained":
            begin(name, "empty", VERBS["run"][1])
        elif name == "measured":
            begin(name, "trained", VERBS["landscape"][1])
        elif name == "cnn":
            begin(name, "empty", ["run", "cnn.toml", "--out", "c.zarr", "--workers", "0", "-q"])
        elif name == "labelled":
            begin(name, "measured", VERBS["label"][1])
        elif name == "planned":
            begin(name, "empty", PLANNED)
        elif name == "damaged":
            begin(name, "trained")
            damage(root / name / "x.zarr")
        return made[name]

    return place


def damage(store):
    """Flip a byte of a shard, and delete metadata that follow from the plan."""
    shard = max(store.glob("*/weights/c.*"), key=lambda path: path.name)
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 8
    shard.write_bytes(data)
    shard.with_name("zarr.json").unlink()
    (store / "zarr.json").unlink()


def contents(folder):
    """Return the content of every file, and of our records the names alone: they have times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and "/locks/" not in name and ".slurm/" not in name:
            known = "" if "/_zoo/" in name else hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = known
    return found


def strays(folder):
    """Return what was never finished, and empty folders of ours."""
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.name.endswith(".tmp") or path.name == "staging"
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_killed_anywhere_the_same_command_mends_it(verb, drill, places, tmp_path):
    begin, what = VERBS[verb]
    calm = [shutil.copytree(places(begin), tmp_path / name / "w") for name in ("calm", "calm2")]
    count = min(drill.well(folder, what)["operations"] for folder in calm)
    for folder in calm:
        drill.well(folder, THEN.get(verb, "pass"))
    one, other = map(contents, calm)
    wanted = {name: known if other[name] == known else "" for name, known in one.items()}
    jobs = len(drill.slurm.jobs) // 2
    points = sorted({1 + round(n * (count - 1) / max(KILLS - 1, 1)) for n in range(KILLS)})
    killed, todo, n = 0, list(points), 0
    while todo:
        folder, n = shutil.copytree(places(begin), tmp_path / str(n) / "w"), n + 1
        before = len(drill.slurm.jobs)
        # A late kill, then an early one of what is left; if that ended first, it comes again.
        row = [todo.pop(), *todo[:1]]
        for at in row:
            found = drill(folder, what, at)
            assert "Traceback" not in found["said"], (at, found["said"])
            killed += found["code"] == -9
        if found["code"] == -9:
            del todo[:1]
        last = drill(folder, what)
        assert last["code"] == 0 or "exists already" in last["said"], (row, last["said"])
        drill.well(folder, THEN.get(verb, "pass"))
        for store in filter(is_store, folder.glob("*.zarr")):  # clears what has no next owner
            drill.well(folder, ["repair", store.name])
        assert strays(folder) == [], row
        there = contents(folder)
        assert there.keys() == wanted.keys(), row
        differ = [name for name, known in wanted.items() if known and there[name] != known]
        assert differ == [], row
        if verb == "submit":
            assert len(drill.slurm.jobs) - before == jobs, row
        for store in filter(is_store, folder.glob("*.zarr")):
            report = verify_store(store)
            assert (report.problems, report.strays) == ((), ()), row
    assert killed >= len(points) - 2
