"""Everything that goes wrong on a cluster, on a real SLURM, on purpose: nothing is lost.

File locks are switched off in these jobs (``ZOO_LOCKS=lease``), and each emulated node counts as a
host of its own: what keeps two owners apart is the leases alone.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from clustered import ask, kill, processes, profile_file, slow, slurm, sweep_file, wait_for, zoo

from zoo.launch.cluster import cluster_status
from zoo.launch.local import run
from zoo.launch.profile import load_profile
from zoo.launch.slurm_client import parse_squeue
from zoo.launch.submit import Draft, hand_in
from zoo.store import StoreReader, content_hash, read_plan, verify_store
from zoo.store.locks import task_lease
from zoo.store.states import task_progress

EVENTS = int(os.environ.get("CHAOS_EVENTS", "22"))
LEASE_S = 5.0
#: How often each kind happens, at least; the rest is drawn.
LEAST = {
    "kill -9 worker": 2, "kill -9 element": 2, "requeue": 3, "USR2": 3, "node down": 1,
    "scancel": 2, "double": 1, "two owners": 2,
}  # fmt: skip
LOCKS = {"setup": ["export ZOO_HOST_ID=$SLURMD_NODENAME"], "lease_s": LEASE_S, "save_s": 0.05}


def tables(**grid):
    return {
        "name": "chaos",
        "base": {"data": "digits", "momentum": 0.9, "steps": 1040, "batch_size": 512},
        "grid": {
            "width": [8, 12, 16, 20, 24],
            "norm": ["none", "batch"],
            "seed": [0, 1, 2],
            **grid,
        },
        # 130 steps are two blocks at this batch size: tasks are saved between checkpoints, too
        "record": {"steps": list(range(0, 1040, 130)), "probe_size": 8},
    }


class Reader(threading.Thread):
    """Reads what is acknowledged, again and again, and holds every row against the clean store."""

    def __init__(self, path: Path, clean: Path) -> None:
        super().__init__()
        self.path, self.over, self.faults, self.rows = path, threading.Event(), [], 0
        self.seen: dict[str, np.ndarray] = {}
        self.clean = {c.cohort.id: c for c in StoreReader(clean).cohorts}

    def run(self) -> None:
        while not self.over.is_set():
            try:
                for cohort in StoreReader(self.path).cohorts:
                    self.check(cohort)
            except Exception as error:  # noqa: BLE001 - any fault at all is a finding
                self.faults.append(repr(error))
                return
            self.over.wait(0.5)

    def check(self, cohort) -> None:
        name, recorded = cohort.cohort.id, cohort.recorded
        before = self.seen.get(name)
        if before is not None and (before & ~recorded).any():
            self.faults.append(f"{name}: an acknowledged checkpoint is gone")
        self.seen[name] = recorded
        rows, ks = np.nonzero(recorded)
        found, wanted = (c.read_weights(rows, ks) for c in (cohort, self.clean[name]))
        if found.tobytes() != wanted.tobytes():
            self.faults.append(f"{name}: a row differs from the undisturbed store's")
        self.rows += len(rows)


class Watcher:
    """Holds what ``zoo status`` says against ``squeue``, before and after."""

    def __init__(self, store: Path) -> None:
        self.store, self.compared = store, 0

    def queue(self) -> dict[str, str]:
        text = slurm("squeue", "-h", "-r", "-t", "all", "-o", "%i|%F|%K|%T|%N|%j|%r")
        views = parse_squeue(text)
        return {f"{v.job}" + ("" if v.index is None else f"_{v.index}"): v.state for v in views}

    def look(self) -> dict:
        before, status, after = self.queue(), ask("status", self.store, code=None), self.queue()
        assert not status["cluster"]["trouble"]
        elements = status["cluster"]["elements"]
        for element in elements:
            told = {before.get(element["job"]), after.get(element["job"])}
            if len(told) == 1 and None not in told:
                assert {element["state"]} == told, element
                self.compared += 1
            elif told == {None}:
                assert element["source"] != "squeue", element
        for task in status["tasks"]:
            mine = [e for e in elements if [task["cohort"], task["task"]] in e["tasks"]]
            live = [e for e in mine if e["live"]]
            word = task["state"]
            if word in ("queued", "held", "assigned"):
                assert live, (task, mine)
            if word == "queued":
                assert not all(e["state"] == "RUNNING" for e in live), (task, mine)
            if word in ("stopped", "waiting", "failed", "unknown"):
                assert not live, (task, mine)
            if word == "running":
                ids = {e["job"] for e in mine}
                seen = {q[i] for q in (before, after) for i in ids if i in q}
                assert seen & {"RUNNING", "COMPLETING"}, (task, mine, before, after)
        return status


class Chaos:
    """Makes things go wrong, only where a task has got somewhere since the last time."""

    def __init__(self, store: Path, profile: Path, draw: random.Random) -> None:
        self.store, self.profile, self.draw = store, load_profile(profile), draw
        self.tasks = {(t.cohort, t.index): t for t in read_plan(store).tasks()}
        self.since: dict[tuple[str, int], tuple[int, int, int]] = {}
        self.done: Counter[str] = Counter()
        self.log: list[str] = []

    def progress(self, key):
        return task_progress(self.store, self.tasks[key])

    def target(self, status: dict):
        """Return (element, task) of a job that has got somewhere, or None."""
        words = {(t["cohort"], t["task"]): t["state"] for t in status["tasks"]}
        ready = []
        for element in status["cluster"]["elements"]:
            key = tuple(element["tasks"][0])
            if element["state"] != "RUNNING" or words[key] != "running":
                continue
            if self.progress(key) > self.since.get(key, (0, 0, 0)) and element["job"] != self.long:
                ready.append((element, key))
        return self.draw.choice(ready) if ready else None

    long = ""

    def kind(self) -> str:
        due = [kind for kind, least in LEAST.items() if self.done[kind] < least]
        return self.draw.choice(due or list(LEAST))

    def strike(self, status: dict) -> None:
        found = self.target(status)
        if found is None:
            return
        element, key = found
        kind, job = self.kind(), element["job"]
        self.since[key] = self.progress(key)
        if getattr(self, kind.replace(" ", "_").replace("-", ""))(job, key, element) is not False:
            self.done[kind] += 1
            self.log.append(f"{kind} on {job}")

    def kill_9_worker(self, job, key, element):
        return kill(job, "worker")

    def kill_9_element(self, job, key, element):
        return kill(job, "element")

    def requeue(self, job, key, element):
        return "error" not in slurm("scontrol", "requeue", job)

    def USR2(self, job, key, element):  # noqa: N802 - the signal's name
        return "error" not in slurm("scancel", "--signal=USR2", job)

    def scancel(self, job, key, element):
        return "error" not in slurm("scancel", job)

    def node_down(self, job, key, element):
        node = element["node"]
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=chaos")
        time.sleep(2)
        slurm("scontrol", "update", f"nodename={node}", "state=resume")

    def again(self, key):
        """Hand the task in a second time, past everything that keeps people from doing so."""
        draft = Draft(self.profile, ((key,),), (1.0,), (0.01,), 100, 3, {})
        (job,) = hand_in(self.store, draft).jobs.values()
        return str(job)

    def double(self, job, key, element):
        second = self.again(key)
        wait_for(lambda: processes(second) or self.over(key), 60, "a second owner's start")

    def two_owners(self, job, key, element):
        """Stop an owner for longer than its lease; wake it when somebody else has its task."""
        lease = task_lease(self.store, self.tasks[key])
        if lease is None or lease.job != job or not kill(job, "worker", signal.SIGSTOP):
            return False
        kill(job, "element", signal.SIGSTOP)
        try:
            self.again(key)
            wait_for(lambda: task_lease(self.store, self.tasks[key]).job != job, 90, "a takeover")
        finally:
            kill(job, "element", signal.SIGCONT)
            kill(job, "worker", signal.SIGCONT)
        return True

    def over(self, key):
        states = {
            (t["cohort"], t["task"]): t["state"]
            for t in ask("status", self.store, code=None)["tasks"]
        }
        return states[key] == "done"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("cluster")
def test_chaos_ends_with_the_bits_of_an_undisturbed_run(tmp_path, capsys):
    sweep = sweep_file(tmp_path, **tables())
    store, clean = tmp_path / "z.zarr", tmp_path / "clean.zarr"
    assert run(str(sweep), clean, workers=2).complete
    profile = profile_file(tmp_path, environment=slow(0.15, ZOO_LOCKS="lease"), **LOCKS)
    # the first task sits in a job that runs into its time limit, on a very slow disk
    crawl = profile_file(
        tmp_path,
        "crawl",
        time="1",
        signal_s=0,  # no warning
        environment=slow(2.5, ZOO_LOCKS="lease"),
        **LOCKS,
    )
    (made,) = ask("submit", sweep, "--out", store, "--cluster", crawl, "--limit", 1)["submitted"]
    ask("submit", store, "--cluster", profile, "--calibrate", 0)
    chaos = Chaos(store, profile, random.Random(int(os.environ.get("CHAOS_SEED", "0"))))
    chaos.long = str(made["jobs"][0])
    watcher, reader = Watcher(store), Reader(store, clean)
    reader.start()
    end = time.monotonic() + 600
    try:
        while True:
            status = watcher.look()
            timeout = any(e["state"] == "TIMEOUT" for e in status["cluster"]["elements"])
            if status["complete"] and timeout:
                break
            assert time.monotonic() < end, (chaos.log, zoo("status", store, "--tasks", code=None))
            left = [t for t in status["tasks"] if t["state"] in ("stopped", "waiting")]
            if left:
                ask("retry", store, "--cluster", profile, "--calibrate", 0)
            if sum(chaos.done.values()) < EVENTS:
                chaos.strike(status)
            time.sleep(0.3)
    finally:
        reader.over.set()
        reader.join()
    happened = chaos.done + Counter({"time limit": int(timeout)})
    with capsys.disabled():
        sys.stdout.write(f"\nchaos: {dict(happened)}\n")
    assert reader.faults == []
    assert reader.rows > 0
    assert watcher.compared > 20
    assert content_hash(store) == content_hash(clean)
    assert verify_store(store).problems == ()
    assert cluster_status(store).store.complete
    assert sum(happened.values()) >= min(EVENTS, 20), happened
    assert all(happened[kind] >= least for kind, least in LEAST.items()), happened
