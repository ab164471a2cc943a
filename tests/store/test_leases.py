"""Leases: one owner across hosts, whatever dies, sleeps or comes back; looking changes nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import fabricated_store as fab
import pytest

from zoo.cli import main
from zoo.errors import StoreBusyError, StoreError
from zoo.store import (
    TaskWriter,
    claim_task,
    content_hash,
    lease_view,
    leases,
    task_states,
    verify_store,
)
from zoo.store.lease_view import lease_bytes
from zoo.store.leases import _HEART, LeaseLostError, acquire_lease, newest_lease
from zoo.store.locks import hold, hold_patiently, task_lease
from zoo.store.paths import StorePaths
from zoo.store.repair import repair_task

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


@pytest.mark.parametrize("written", [1, 4e9], ids=["long-ago", "in-the-future"])
def test_no_date_of_a_file_takes_a_lease_or_keeps_it(tmp_path, host, written):
    """The date is of the file server's clock, ours may be hours away."""
    first = acquire_lease(tmp_path / "l", flock=False)
    stop_heart(first)
    os.utime(tmp_path / "l" / str(first.number), (written, written))
    host("b")
    assert acquire_lease(tmp_path / "l", flock=False) is None, "taken over at first sight"
    second, _ = patiently(tmp_path / "l")
    assert second.number == first.number + 1
    second.release()


@pytest.mark.parametrize("ahead_s", [3600, -3600])
def test_a_clock_that_is_off_changes_nothing(tmp_path, host, monkeypatch, ahead_s):
    first = acquire_lease(tmp_path / "l", flock=False)
    host("b")
    real = time.time
    monkeypatch.setattr(lease_view.time, "time", lambda: real() + ahead_s)
    end = time.monotonic() + 2 * TERM_S
    while time.monotonic() < end:
        assert acquire_lease(tmp_path / "l", flock=False) is None
        time.sleep(TERM_S / 10)
    view = newest_lease(tmp_path / "l")
    assert (view.alive, view.beating, view.stale) == (True, True, False)
    first.check()
    stop_heart(first)
    second, tries = patiently(tmp_path / "l")
    assert (second.number, tries > 1) == (first.number + 1, True)
    second.release()


def test_who_slept_has_not_watched(tmp_path, host, monkeypatch):
    """The first look after a suspension may show what the file system had cached before it."""
    first = acquire_lease(tmp_path / "l", flock=False)
    stop_heart(first)
    host("b")
    assert acquire_lease(tmp_path / "l", flock=False) is None
    real = time.monotonic
    monkeypatch.setattr(lease_view.time, "monotonic", lambda: real() + 1000 * TERM_S)
    assert acquire_lease(tmp_path / "l", flock=False) is None
    first.beat()
    assert acquire_lease(tmp_path / "l", flock=False) is None
    first.check()
    first.release()


def leave_behind(path):
    """Leave the lease of a host that died."""
    lease = acquire_lease(path.with_suffix(".lease"), flock=False)
    stop_heart(lease)
    return lease


def test_who_asks_once_gets_what_a_dead_host_left(tmp_path, host):
    lock = tmp_path / "a.lock"
    leave_behind(lock)
    host("b")
    with hold(lock) as owned:
        assert not owned, "taken over at first sight"
    with hold_patiently(lock) as owned:
        assert owned


def test_who_asks_once_does_not_wait_for_who_is_alive(tmp_path, host):
    lock = tmp_path / "a.lock"
    first = acquire_lease(lock.with_suffix(".lease"), flock=False)
    host("b")
    with hold_patiently(lock) as owned:
        assert not owned
    first.check()
    first.release()


def test_a_repair_takes_over_from_a_host_that_died(empty, plan, host):
    task = next(plan.tasks())
    leave_behind(StorePaths(empty).lock(task))
    host("b")
    assert repair_task(empty, task) is None


BODY = {
    "host": "far", "pid": 7, "job": "", "beat": 3, "time": 1.7e9, "term_s": TERM_S, "flock": False,
    "released": False, "started": "5", "kernel": "k", "processes": "",
}  # fmt: skip
#: What a lease says, before its checksum is put under it.
CRAFTED = {
    "endless": {**BODY, "term_s": 1e308, "pid": 1e308},
    "negative": {**BODY, "term_s": -5, "pid": -1},
    "types": {**BODY, "term_s": "soon", "pid": [], "host": {}, "job": 7, "released": "yes"},
    "lines": {**BODY, "host": "a\nb\u001b[2J", "job": "\u0000"},
}
#: Content of a lease that has no checksum, or a wrong one.
DAMAGED = {
    "deep": b"[" * 60_000,
    "huge": b"7" * 200_000,
    "list": b"[1, 2]",
    "text": b'"x"',
    "nothing": b"{}",
    "nan": b'{"term_s": NaN, "pid": NaN, "check": NaN}',
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("body", CRAFTED.values(), ids=CRAFTED)
def test_a_crafted_lease_is_one_that_nobody_renews(tmp_path, host, monkeypatch, body):
    monkeypatch.setattr(lease_view, "TERM_S", TERM_S)
    folder = tmp_path / "l"
    folder.mkdir()
    (folder / "3").write_bytes(lease_bytes(folder / "3", body))
    (folder / ("9" * 200)).write_bytes(b"{}")
    (folder / "\u0663").write_bytes(b"{}")
    view = newest_lease(folder)
    assert (view.number, view.released, view.dead, view.damaged) == (3, False, False, False)
    assert (view.host + view.job).isprintable()
    lease, tries = patiently(folder)
    assert (lease.number, tries > 1) == (4, True)
    lease.release()


def is_free(folder, place, caplog):
    """Whether nobody waits for a damaged lease, and is told."""
    view = newest_lease(folder)
    lease = acquire_lease(folder, flock=False)
    lease.release()
    told = f"{place} is damaged" in caplog.text
    found = [p.name for p in folder.iterdir()]
    return (view.damaged, view.alive, told, found) == (True, False, True, [str(lease.number)])


@pytest.mark.parametrize("raw", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_lease_is_nobodys(tmp_path, host, caplog, raw):
    folder = tmp_path / "l"
    folder.mkdir()
    (folder / "3").write_bytes(raw)
    assert is_free(folder, folder / "3", caplog)


def test_no_flipped_bit_of_a_lease_keeps_its_task(tmp_path, host, monkeypatch, caplog):
    """Neither of one that was given back nor of one that says it lives for a day."""
    monkeypatch.setattr(lease_view, "_PAUSE_S", 0.0)
    place = tmp_path / "l" / "3"
    sound = lease_bytes(place, {**BODY, "term_s": 9000.0})
    place.parent.mkdir()
    place.write_bytes(sound)
    assert acquire_lease(place.parent, flock=False) is None
    for at in range(0, len(sound), 3):
        for old in place.parent.iterdir():
            old.unlink()
        caplog.clear()
        altered = bytearray(sound)
        altered[at] ^= 1 << at % 7
        place.write_bytes(altered)
        assert is_free(place.parent, place, caplog), bytes(altered)


def test_the_lease_of_something_else_is_nobodys(tmp_path, host, caplog):
    place = tmp_path / "l" / "3"
    place.parent.mkdir()
    for other in (tmp_path / "other" / "3", tmp_path / "l" / "2"):
        for old in place.parent.iterdir():
            old.unlink()
        place.write_bytes(lease_bytes(other, BODY))
        assert is_free(place.parent, place, caplog)


def test_a_lease_without_a_checksum_is_watched_as_it_always_was(tmp_path, host):
    """A process of an earlier version may hold it."""
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "3").write_bytes(json.dumps(BODY).encode().ljust(1024))
    lease, tries = patiently(tmp_path / "l")
    assert (lease.number, tries > 1) == (4, True)
    lease.release()


def test_a_lease_that_is_being_written_is_looked_at_again(tmp_path, host, monkeypatch):
    lease = acquire_lease(tmp_path / "l", flock=False)
    stop_heart(lease)
    read, seen = lease_view._read, []

    def torn(place):
        raw, written = read(place)
        seen.append(raw)
        return (raw[:300] + raw[:724] if len(seen) < 3 else raw), written

    monkeypatch.setattr(lease_view, "_read", torn)
    host("b")
    assert acquire_lease(tmp_path / "l", flock=False) is None
    assert len(seen) == 3
    lease.check()
    lease.release()


def test_verify_names_a_damaged_lease_and_repair_replaces_it(empty, plan):
    task = next(plan.tasks())
    locks = StorePaths(empty).locks
    with claim_task(empty, task):
        pass
    with hold(locks / "label.lock", leased=True):
        pass
    assert verify_store(empty).problems == ()
    for name in (f"{task.cohort}/{task.index}.lease/1", "label.lease/1"):
        (locks / name).write_bytes(b"x" * 1024)
        (problem,) = verify_store(empty).problems
        assert problem == (
            f"_zoo/locks/{name}: does not match its checksum; `zoo repair` makes the next one."
        )
        assert main(["repair", str(empty)]) == 0
        assert verify_store(empty).problems == ()
        assert (locks / name).with_name("2").exists()


def test_a_pipe_in_place_of_a_lease_does_not_hang(tmp_path):
    (tmp_path / "l").mkdir()
    os.mkfifo(tmp_path / "l" / "3")
    assert newest_lease(tmp_path / "l").number == 3


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "soon", ""])
def test_a_senseless_term_is_not_taken(monkeypatch, text):
    monkeypatch.setenv("ZOO_LEASE_S", text)
    assert 0.1 <= leases.term_s() <= 86_400


def test_an_empty_lease_may_be_in_the_making(tmp_path, host, monkeypatch):
    """Its owner is free to write into it for a moment, and then knows whether it was too late."""
    monkeypatch.setattr(lease_view, "_EMPTY_S", TERM_S)
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
        theirs = path / "_zoo/locks" / cohort.id / "0.lease" / "99"
        theirs.write_bytes(lease_bytes(theirs, BODY))
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
