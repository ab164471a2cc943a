"""Leases: one owner across hosts, whatever dies, sleeps or comes back; looking changes nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import fabricated_store as fab
import pytest

from zoo.errors import StoreBusyError, StoreError
from zoo.store import TaskWriter, claim_task, content_hash, leases, task_states, verify_store
from zoo.store.leases import _HEART, LeaseLostError, acquire_lease, newest_lease
from zoo.store.locks import task_lease

TERM_S = 0.6


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("ZOO_LEASE_S", str(TERM_S))


@pytest.fixture
def host(monkeypatch):
    """Become another host, one on which file locks of the others are not seen."""

    def become(name):
        monkeypatch.setenv("ZOO_HOST_ID", name)
        monkeypatch.setenv("ZOO_LOCKS", "lease")

    become("a")
    return become


def patiently(folder):
    """Try until somebody's lease is given up, as a worker does; return it and the tries."""
    for tries in range(200):
        lease = acquire_lease(folder, flock=False)
        if lease is not None:
            return lease, tries
        time.sleep(TERM_S / 20)
    return None, tries


def stop_heart(lease):
    _HEART.remove(lease)


def test_given_back_means_free_at_once(tmp_path, host):
    first = acquire_lease(tmp_path / "l", flock=False)
    host("b")
    assert acquire_lease(tmp_path / "l", flock=False) is None
    first.release()
    second = acquire_lease(tmp_path / "l", flock=False)
    assert second.number == first.number + 1
    assert [p.name for p in (tmp_path / "l").iterdir()] == [str(second.number)]
    second.release()


def test_a_beating_owner_is_never_taken_over(tmp_path, host):
    first = acquire_lease(tmp_path / "l", flock=False)
    host("b")
    end = time.monotonic() + 3 * TERM_S
    while time.monotonic() < end:
        assert acquire_lease(tmp_path / "l", flock=False) is None
        time.sleep(TERM_S / 10)
    first.check()
    first.release()


def test_a_silent_owner_is_taken_over_after_its_term_and_knows(tmp_path, host):
    first = acquire_lease(tmp_path / "l", flock=False)
    stop_heart(first)
    host("b")
    second, tries = patiently(tmp_path / "l")
    assert tries > 1, "taken over at first sight"
    with pytest.raises(LeaseLostError, match="taken over"):
        first.check()
    first.release()  # must not give back what is not its own
    host("c")
    assert acquire_lease(tmp_path / "l", flock=False) is None
    second.check()
    second.release()


def test_a_late_owner_that_nobody_replaced_goes_on_under_a_new_number(tmp_path, host):
    first = acquire_lease(tmp_path / "l", flock=False)
    stop_heart(first)
    time.sleep(TERM_S)
    number = first.number
    first.check()
    assert first.number == number + 1
    first.release()


def test_two_successors_later_the_first_owner_still_knows(tmp_path, host):
    first = acquire_lease(tmp_path / "l", flock=False)
    stop_heart(first)
    for name in ("b", "c"):
        host(name)
        lease, _ = patiently(tmp_path / "l")
        assert lease is not None
        stop_heart(lease)
    with pytest.raises(LeaseLostError):
        first.check()


def test_an_old_lease_needs_no_watching(tmp_path, host):
    first = acquire_lease(tmp_path / "l", flock=False)
    stop_heart(first)
    os.utime(tmp_path / "l" / str(first.number), (1, 1))
    host("b")
    assert acquire_lease(tmp_path / "l", flock=False) is not None


def test_a_torn_lease_counts_as_alive_first(tmp_path, host, monkeypatch):
    monkeypatch.setattr(leases, "TERM_S", TERM_S)
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "7").write_bytes(b"")
    lease, tries = patiently(tmp_path / "l")
    assert (lease.number, tries > 1) == (8, True)
    lease.release()


RACER = """
import sys, time
from pathlib import Path
from zoo.store.leases import acquire_lease
folder, gate = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
while not gate.exists():
    pass
lease = acquire_lease(folder, flock=False)
print("won" if lease else "lost", flush=True)
time.sleep(30)
"""


def test_of_many_who_race_one_wins(tmp_path):
    command = [sys.executable, "-c", RACER, str(tmp_path / "l"), str(tmp_path / "gate")]
    racers = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "ZOO_HOST_ID": f"h{i}", "ZOO_LOCKS": "lease"},
        )
        for i in range(4)
    ]
    try:
        assert {r.stdout.readline() for r in racers} == {"ready\n"}
        (tmp_path / "gate").touch()
        words = [r.stdout.readline() for r in racers]
        assert sorted(words) == ["lost\n"] * 3 + ["won\n"]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
            racer.stdout.close()


OWNER = """
import sys, time
from zoo.store import claim_task, read_plan
task = next(read_plan(sys.argv[1]).tasks())
with claim_task(sys.argv[1], task) as owned:
    print(owned, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("locks", ["flock", "lease"])
def test_a_killed_owner_of_this_host_is_seen_dead_at_once(empty, plan, monkeypatch, locks):
    if locks == "lease":
        monkeypatch.setenv("ZOO_LOCKS", "lease")
    monkeypatch.setenv("ZOO_LEASE_S", "3600")
    path, task = empty, next(plan.tasks())
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout.readline() == "True\n"
    with claim_task(path, task) as owned:
        assert not owned
    state = next(s for s in task_states(path) if s.task == task)
    assert state.owner_alive
    assert (state.lease.pid, state.lease.released) == (owner.pid, False)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert not next(s for s in task_states(path) if s.task == task).owner_alive
    with claim_task(path, task) as owned:
        assert owned


def test_a_fenced_writer_writes_nothing(empty, plan, host):
    path = empty
    cohort = plan.cohorts[0]
    task = next(cohort.tasks())
    first, second = (fab.make_checkpoint(cohort, task, k) for k in (0, 1))
    with claim_task(path, task) as owned:
        assert owned
        writer = TaskWriter(path, cohort, task)
        writer.commit(first)
        before = content_hash(path)
        (path / "_zoo/locks" / cohort.id / "0.lease" / "99").write_bytes(b"another host's")
        for attempt in (lambda: writer.commit(second), lambda: writer.fail("why", "where")):
            with pytest.raises(LeaseLostError):
                attempt()
    assert content_hash(path) == before
    assert verify_store(path).problems == ()
    assert issubclass(LeaseLostError, StoreBusyError)


@pytest.mark.parametrize("locks", ["flock", "lease"])
def test_a_full_disk_is_an_error_each_time_and_leaves_nothing_behind(
    empty, plan, monkeypatch, locks
):
    """And not a lease without an owner, or a lock that its process forgot."""
    if locks == "lease":
        monkeypatch.setenv("ZOO_LOCKS", "lease")
    task = next(plan.tasks())

    def refuse(handle, data, offset):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(leases.os, "pwrite", refuse)
        for _ in range(3):
            with pytest.raises(StoreError, match="No space left"), claim_task(empty, task):
                pass
    with claim_task(empty, task) as owned:
        assert owned


def test_looking_at_a_lease_changes_nothing(tmp_path, host):
    assert newest_lease(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()
    lease = acquire_lease(tmp_path / "l", flock=False)
    stop_heart(lease)

    def facts():
        return [(p.name, p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "l").iterdir()]

    before = facts()
    host("b")
    view = newest_lease(tmp_path / "l")
    assert (view.host, view.pid, view.here, view.alive) == ("a", os.getpid(), False, True)
    assert facts() == before


def test_a_task_that_nobody_owned_has_no_lease(empty, plan):
    assert task_lease(empty, next(plan.tasks())) is None
