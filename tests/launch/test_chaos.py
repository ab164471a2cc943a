"""The promise of the store, with the real engine: twenty kills -9, a reader checking every bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from zoo.launch.local import run
from zoo.spec import Sweep
from zoo.store import StoreReader, content_hash, is_store, task_states, verify_store

KILLS = 20
TABLES = {
    "name": "chaos",
    "base": {"data": "digits", "momentum": 0.9, "lr": 0.05, "steps": 1200, "norm": "batch"},
    "grid": {
        "width": [16, 24],
        "batch_size": [32, 64],
        "optimizer": ["sgd", "adamw"],
        "seed": [0, 1],
    },
    "record": {"steps": list(range(0, 1200, 40)), "probe_size": 8},
    # one run that diverges on the way
    "zip": {"label_noise": [0.0, 0.3], "init_scale": [1.0, 2.0]},
}


def committed(path: Path) -> int:
    return sum(s.committed for s in task_states(path)) if is_store(path) else 0


class Reader(threading.Thread):
    """Reads what is acknowledged, again and again, and holds every row against the clean store."""

    def __init__(self, path: Path, clean: Path) -> None:
        super().__init__()
        self.path, self.over, self.faults, self.rows = path, threading.Event(), [], 0
        self.seen: dict[str, np.ndarray] = {}
        self.clean = {c.cohort.id: c for c in StoreReader(clean).cohorts}

    def run(self) -> None:
        while not self.over.is_set():
            if is_store(self.path):
                try:
                    for cohort in StoreReader(self.path).cohorts:
                        self.check(cohort)
                except Exception as error:  # noqa: BLE001 - any fault at all is a finding
                    self.faults.append(repr(error))
                    return
            self.over.wait(0.05)

    def check(self, cohort) -> None:
        name = cohort.cohort.id
        recorded = cohort.recorded
        before = self.seen.get(name)
        if before is not None and (before & ~recorded).any():
            self.faults.append(f"{name}: an acknowledged checkpoint is gone")
        self.seen[name] = recorded
        rows, ks = np.nonzero(recorded)
        take = np.random.default_rng(self.rows).permutation(len(rows))[:40]
        rows, ks = rows[take], ks[take]
        found, wanted = (c.read_weights(rows, ks) for c in (cohort, self.clean[name]))
        if found.tobytes() != wanted.tobytes():
            self.faults.append(f"{name}: a row differs from the undisturbed store's")
        self.rows += len(rows)


def start(sweep: Path, store: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "zoo.cli", "run", str(sweep), "--out", str(store)]
    return subprocess.Popen(
        [*command, "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(c) for c in listed.read_text().split()] if listed.exists() else []


def kill(process: subprocess.Popen, how: str) -> str:
    """Kill -9 a worker, the parent, or the whole session; return which it was."""
    workers = children(process.pid)
    if how == "worker" and workers:
        os.kill(workers[-1], signal.SIGKILL)
        return how
    if how == "everything":
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    return "everything" if how == "everything" else "parent"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_twenty_kills_lose_nothing(tmp_path):
    sweep = Sweep.from_dict(TABLES)
    clean, path, file = tmp_path / "clean.zarr", tmp_path / "z.zarr", tmp_path / "s.toml"
    file.write_text(sweep.to_toml())
    assert run(sweep, clean, workers=2).complete
    draw = random.Random(int(os.environ.get("CHAOS_SEED", "0")))
    reader = Reader(path, clean)
    reader.start()
    kills = {"parent": 0, "worker": 0, "everything": 0}
    process, since_start = start(file, path), 0
    try:
        while sum(kills.values()) < KILLS:
            goal, deadline = committed(path) + 1, time.monotonic() + 60
            while committed(path) < goal and process.poll() is None:
                assert time.monotonic() < deadline, "no progress for a minute"
                time.sleep(0.02)
            assert process.poll() is None, f"it ended after {kills}: make the sweep longer"
            time.sleep(draw.uniform(0, 0.15))
            # a task whose worker dies three times with nothing new is given up, and rightly
            how = draw.choice(sorted(kills)) if since_start < 2 else "parent"
            kills[kill(process, how)] += 1
            since_start += 1
            if process.poll() is not None:
                process, since_start = start(file, path), 0
        assert process.wait(timeout=300) in (0, 2)
    finally:
        reader.over.set()
        reader.join()
        process.kill()
    assert reader.faults == []
    assert reader.rows > 0
    assert all(kills.values())
    assert run(sweep, path, workers=2).complete
    assert content_hash(path) == content_hash(clean)
    assert verify_store(path).problems == ()
