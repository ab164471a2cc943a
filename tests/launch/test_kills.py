"""kill -9 anywhere, two runs at once, Ctrl-C: nothing acknowledged is lost, no bit is another."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict

import numpy as np
import pytest

from zoo.launch.local import run
from zoo.launch.status import store_status
from zoo.store import StoreReader, content_hash, is_store, read_plan, task_states, verify_store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes in /proc")


def wait_for(condition, *, seconds=60.0):
    """Wait until a condition holds; the limit only ends a test that hangs."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail("waited in vain")
        time.sleep(0.01)


@pytest.mark.slow
def test_every_task_dies_four_times_beside_a_reader(
    sweep, tmp_path, misbehaving, clean, clean_hash, tasks
):
    """24 kills -9; whatever a reader sees meanwhile is what an undisturbed run has."""
    path = tmp_path / "z.zarr"
    truth = StoreReader(clean)
    wrong: list[str] = []
    looks = 0
    over = threading.Event()

    def read():
        nonlocal looks
        seen: dict[str, int] = defaultdict(int)
        while not over.is_set():
            if not is_store(path):
                continue
            for cohort in StoreReader(path).cohorts:
                name = cohort.cohort.id
                rows, ks = np.nonzero(cohort.recorded)
                if len(rows) < seen[name]:
                    wrong.append(f"{name}: {len(rows)} checkpoints after {seen[name]}")
                seen[name] = len(rows)
                weights = cohort.read_weights(rows, ks)
                if not np.array_equal(weights, truth.cohort(name).read_weights(rows, ks)):
                    wrong.append(f"{name}: other weights")
                looks += len(rows)
            time.sleep(0.05)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        command = misbehaving.command(die_at=[0, 2, 4, 6], once=True)
        summary = run(sweep, path, workers=2, command=command)
    finally:
        over.set()
        reader.join()
    assert summary.complete
    assert summary.failures == ()
    assert [e[0] for e in misbehaving.events()].count("die") == 4 * tasks
    assert wrong == []
    assert looks > 0
    assert content_hash(path) == clean_hash
    assert StoreReader(path).failures() == []


def test_a_task_that_kills_its_worker_is_given_up_after_three_attempts(
    sweep, tmp_path, misbehaving
):
    plan = read_plan_of(sweep)
    task = list(plan.tasks())[-1]
    command = misbehaving.command(die_at=[1], before=True, task=[task.cohort, task.index])
    summary = run(sweep, tmp_path / "z.zarr", workers=2, command=command)
    # one attempt that made a checkpoint, three that made none
    assert [e[0] for e in misbehaving.events()].count("die") == 4
    (failed,) = summary.failures
    assert failed.task == task
    assert "SIGKILL" in failed.reason
    assert "memory" in failed.reason
    assert summary.status == {"done": 82 - task.models, "failed": task.models}
    assert run(sweep, tmp_path / "z.zarr", workers=1).complete


@pytest.mark.slow
def test_parent_killed_again_and_again(
    sweep, sweep_file, tmp_path, misbehaving, clean_hash, is_alive
):
    """kill -9 of the parent at random moments, a reader beside it, then the same command again."""
    path = tmp_path / "z.zarr"
    draw = random.Random(5)
    seen: dict[tuple[str, int], int] = defaultdict(int)
    lost: list[str] = []
    over = threading.Event()

    def read():
        while not over.is_set():
            if is_store(path):
                for state in task_states(path):
                    key = state.task.cohort, state.task.index
                    if state.committed < seen[key]:
                        lost.append(f"{key}: {state.committed} after {seen[key]}")
                    seen[key] = state.committed
            time.sleep(0.01)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        kills = 0
        for _ in range(8):
            process = misbehaving.start_run(sweep_file, path, sleep=0.3)
            started = len(misbehaving.worker_pids())
            try:
                # the first kills come before there is a store or a worker
                if kills >= 2:
                    wait_for(
                        lambda p=process, n=started: (
                            p.poll() is not None or len(misbehaving.worker_pids()) > n
                        )
                    )
                time.sleep(draw.uniform(0, 1.2))
                if process.poll() is not None:
                    break
            finally:
                process.kill()
                process.wait()
            kills += 1
            wait_for(lambda: not any(is_alive(pid) for pid in misbehaving.worker_pids()))
    finally:
        over.set()
        reader.join()
    assert kills >= 4
    assert lost == []
    assert run(sweep, path, workers=2).complete
    assert content_hash(path) == clean_hash
    report = verify_store(path)
    assert report.problems == ()
    assert report.strays == ()


def test_workers_die_with_their_parent(sweep_file, tmp_path, misbehaving, is_alive):
    process = misbehaving.start_run(sweep_file, tmp_path / "z.zarr", sleep=30)
    try:
        wait_for(lambda: len(misbehaving.worker_pids()) == 2)
        assert all(is_alive(pid) for pid in misbehaving.worker_pids())
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in misbehaving.worker_pids()))
    assert not any(state.owner_alive for state in task_states(tmp_path / "z.zarr"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_stops_and_the_same_command_goes_on(
    name, sweep_file, tmp_path, misbehaving, clean_hash, is_alive
):
    path = tmp_path / "z.zarr"
    process = misbehaving.start_run(sweep_file, path, sleep=0.2)
    wait_for(lambda: is_store(path) and any(s.committed for s in task_states(path)))
    process.send_signal(getattr(signal, name))
    assert process.wait(timeout=60) == 2
    assert not any(is_alive(pid) for pid in misbehaving.worker_pids())
    before = store_status(path)
    assert not before.complete
    assert before.counts["failed"] == 0
    assert run(sweep_file, path).complete
    assert content_hash(path) == clean_hash


def test_two_runs_share_a_store(sweep_file, tmp_path, misbehaving, clean_hash):
    path = tmp_path / "z.zarr"
    processes = [misbehaving.start_run(sweep_file, path, sleep=0.05) for _ in range(2)]
    assert [p.wait(timeout=120) for p in processes] == [0, 0]
    assert content_hash(path) == clean_hash
    assert verify_store(path).problems == ()
    pids: dict[str, set[int]] = defaultdict(set)
    for record in (path / "_zoo" / "tasks").rglob("[0-9]*.json"):
        pids[str(record.parent)].add(json.loads(record.read_text())["pid"])
    assert all(len(owners) == 1 for owners in pids.values())  # one owner a task, start to end
    assert len(set.union(*pids.values())) >= 3  # both runs had a part in it


def test_a_run_waits_for_tasks_that_another_process_owns(sweep, tmp_path, clean_hash):
    """A task that is owned elsewhere is neither trained twice nor left out."""
    path = tmp_path / "z.zarr"
    assert run(sweep, path, workers=0, limit=5).tasks == 5
    (task,) = [s.task for s in task_states(path) if not s.sealed]
    code = (
        "import sys, time; from zoo.store import *\n"
        "task = [s.task for s in task_states(sys.argv[1]) if not s.sealed][0]\n"
        "with claim_task(sys.argv[1], task) as owned:\n"
        "    print(owned, flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"True\n"
    waits = []

    def progress(state):
        if state.elsewhere and len(waits) < 3:
            waits.append([s.committed for s in task_states(path) if s.task == task])
            if len(waits) == 3:
                holder.kill()

    try:
        summary = run(sweep, path, workers=1, progress=progress)
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    assert waits == [[0], [0], [0]]
    assert summary.complete
    assert summary.tasks == 1
    assert content_hash(path) == clean_hash


def read_plan_of(sweep):
    from zoo.train.planner import plan

    return plan(sweep)


def test_the_clean_store_is_planned_as_the_sweep_is(sweep, clean):
    assert read_plan(clean).to_json() == json.loads(json.dumps(read_plan_of(sweep).to_json()))
