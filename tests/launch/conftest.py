"""A small sweep, what it gives when nothing goes wrong, and workers that misbehave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.launch.local import run
from zoo.spec import Sweep
from zoo.store import content_hash

HERE = Path(__file__).parent

TABLES = {
    "name": "tiny",
    "axes": {"load": "width", "temperature": "batch_size"},
    "base": {"data": "digits", "momentum": 0.9, "lr": 0.05, "steps": 24},
    "block": [
        {"grid": {"width": [4, 8], "batch_size": [32, 64], "seed": [0, 1, 2]}},
        # more models than one group holds, so that a cohort has two tasks
        {"base": {"batch_size": 128}, "grid": {"width": [4], "seed": {"range": [0, 70]}}},
    ],
    "record": {"steps": [0, 4, 8, 12, 16, 20, 24], "probe_size": 8},
    "run": {"task_models": 2},
}
#: 4 cohorts of 3 models and one of 70, in two tasks; 7 checkpoints each.
TASKS = 6


@pytest.fixture(scope="session")
def tables():
    return TABLES


@pytest.fixture(scope="session")
def tasks():
    return TASKS


@pytest.fixture(scope="session")
def sweep():
    return Sweep.from_dict(TABLES)


@pytest.fixture(scope="session")
def clean(tmp_path_factory, sweep):
    """The store of a run that nothing disturbed; only to be read."""
    path = tmp_path_factory.mktemp("clean") / "tiny.zarr"
    summary = run(sweep, path, workers=0)
    assert summary.complete
    return path


@pytest.fixture(scope="session")
def clean_hash(clean):
    return content_hash(clean)


class Misbehaving:
    """Worker commands that sleep or die at chosen commits; ``faulty_worker.py`` reads the plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()

    def command(self, **faults: object) -> tuple[str, ...]:
        file = self.folder / "faults.json"
        file.write_text(json.dumps({"log": str(self.log), **faults}))
        return (sys.executable, str(HERE / "faulty_worker.py"), str(file))

    def events(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()]

    def start_run(self, sweep_file: Path, out: Path, **faults: object) -> subprocess.Popen[bytes]:
        """Start a process that runs the sweep with two misbehaving workers."""
        code = (
            "import sys; from zoo.launch.local import run\n"
            "s = run(sys.argv[1], sys.argv[2], workers=2, command=sys.argv[3:])\n"
            "sys.exit(0 if s.complete else 2)"
        )
        words = [sys.executable, "-c", code, str(sweep_file), str(out), *self.command(**faults)]
        return subprocess.Popen(words)

    def worker_pids(self) -> set[int]:
        return {int(words[1]) for words in self.events() if words[0] == "start"}


@pytest.fixture
def misbehaving(tmp_path):
    folder = tmp_path / "faults"
    folder.mkdir()
    return Misbehaving(folder)


@pytest.fixture
def sweep_file(tmp_path, sweep):
    path = tmp_path / "tiny.toml"
    path.write_text(sweep.to_toml())
    return path


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.fixture(scope="session")
def is_alive():
    if not Path("/proc/self").is_dir():
        pytest.skip("needs /proc")
    return alive
