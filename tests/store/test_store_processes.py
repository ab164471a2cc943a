"""Kills, full disks and two owners: nothing acknowledged is lost, nothing is torn."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import random
import time

import fabricated_store as fab
import numpy as np
import pytest

from zoo.errors import StoreBusyError, StoreError
from zoo.store import (
    StoreReader,
    TaskWriter,
    claim_task,
    content_hash,
    create_store,
    extend_store,
    is_store,
    read_plan,
    read_sweep_text,
    verify_store,
)
from zoo.store import create as create_module
from zoo.store import files as files_module
from zoo.store.paths import StorePaths

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["zoo.store", "fabricated_store"])


# -- what the other processes do ----------------------------------------------------------


def write_slowly(path, acknowledged):
    """Train every task; say which checkpoint is durable as soon as commit returns."""
    plan = read_plan(path)
    acknowledged.send(None)  # from here on a kill interrupts the writing
    for task in plan.tasks():
        cohort = plan.cohort(task.cohort)
        with TaskWriter(path, cohort, task) as writer:
            point = writer.resume_point()
            start = 0 if point is None else point.index + 1
            for k in range(start, cohort.checkpoints):
                writer.commit(fab.make_checkpoint(cohort, task, k))
                acknowledged.send((task, k))
            writer.seal({})


def create_forever(folder):
    plan = fab.make_plan()
    for i in range(10_000):
        create_store(folder / f"{i}.zarr", plan, sweep_toml="", provenance={})


def try_to_own(path, task, results, barrier):
    barrier.wait(30)
    with claim_task(path, task) as owned:
        results.put((os.getpid(), owned))
        barrier.wait(30)


def own_until_killed(path, task, ready):
    with claim_task(path, task) as owned:
        ready.send(owned)
        time.sleep(60)


# -- kills --------------------------------------------------------------------------------


def check_acknowledged(path, plan, acknowledged, wanted):
    """Read every acknowledged checkpoint, and whatever else is committed."""
    reader = StoreReader(path)
    for task, k in acknowledged:
        one = reader.cohort(task.cohort)
        rows = np.arange(task.start, task.stop)
        healthy = np.array([not fab.gone(one.cohort, r, k) for r in rows])
        assert one.recorded[rows, k].tolist() == healthy.tolist()
        weights, metrics, probe = wanted[task.cohort]
        np.testing.assert_array_equal(one.read_weights(rows, k), weights[rows, k])
        np.testing.assert_array_equal(one.read_probe(rows, k), probe[rows, k])
        np.testing.assert_array_equal(
            one.metric("grad_norm")[rows, k], metrics["grad_norm"][rows, k]
        )


def drain(pipe, acknowledged):
    try:
        while pipe.poll():
            found = pipe.recv()
            if found is not None:
                acknowledged.add(found)
    except (EOFError, OSError):
        pass


@pytest.mark.slow
def test_kill_nine_at_random_moments(tmp_path, plan):
    wanted = {c.id: fab.expected(c) for c in plan.cohorts}
    undisturbed, path = tmp_path / "undisturbed.zarr", tmp_path / "killed.zarr"
    for target in (undisturbed, path):
        create_store(target, plan, sweep_toml="", provenance={})
    fab.fill(undisturbed, plan)
    chance, acknowledged, kills, finished = random.Random(0), set(), 0, False
    while kills < 25 or not finished:
        reading, writing = FORK.Pipe(duplex=False)
        process = FORK.Process(target=write_slowly, args=(path, writing))
        process.start()
        writing.close()
        assert reading.recv() is None
        end = time.monotonic() + (chance.uniform(0.0, 0.1) if kills < 25 else 60)
        while process.is_alive() and time.monotonic() < end:
            drain(reading, acknowledged)
            check_acknowledged(path, plan, acknowledged, wanted)
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        finished = process.exitcode == 0
        drain(reading, acknowledged)
        reading.close()
        check_acknowledged(path, plan, acknowledged, wanted)
        assert verify_store(path).problems == ()
        if finished and kills < 25:  # it was quicker than the kills: start over, keep the count
            assert content_hash(path) == content_hash(undisturbed)
            acknowledged.clear()
            path = tmp_path / f"killed-{kills}.zarr"
            create_store(path, plan, sweep_toml="", provenance={})
            finished = False
    assert content_hash(path) == content_hash(undisturbed)
    assert verify_store(path).strays == ()


@pytest.mark.slow
def test_killed_creation_leaves_no_store(tmp_path):
    chance = random.Random(1)
    for turn in range(8):
        folder = tmp_path / str(turn)
        folder.mkdir()
        process = FORK.Process(target=create_forever, args=(folder,))
        process.start()
        time.sleep(chance.uniform(0.05, 0.4))
        process.kill()
        process.join()
        for path in folder.glob("[0-9]*.zarr"):
            assert verify_store(path).problems == ()
        torn = folder / f"{len(list(folder.glob('[0-9]*.zarr')))}.zarr"
        assert not is_store(torn)
        create_store(torn, fab.make_plan(), sweep_toml="", provenance={})
        assert not list(folder.glob(f".{torn.name}.*/_zoo/locks/extend.lock"))


# -- owners -------------------------------------------------------------------------------


def test_one_of_two_processes_owns_a_task(empty, plan):
    task = next(plan.tasks())
    results, barrier = FORK.Queue(), FORK.Barrier(2)
    pair = [FORK.Process(target=try_to_own, args=(empty, task, results, barrier)) for _ in "ab"]
    for process in pair:
        process.start()
    found = dict(results.get(timeout=30) for _ in pair)
    for process in pair:
        process.join()
    assert sorted(found.values()) == [False, True]
    assert len(found) == 2


def test_a_killed_owner_frees_its_task(empty, plan):
    task = next(plan.tasks())
    reading, writing = FORK.Pipe(duplex=False)
    process = FORK.Process(target=own_until_killed, args=(empty, task, writing))
    process.start()
    assert reading.recv() is True
    with claim_task(empty, task) as owned:
        assert not owned
    with pytest.raises(StoreBusyError, match="another process"):
        TaskWriter(empty, plan.cohorts[0], task)
    process.kill()
    process.join()
    with claim_task(empty, task) as owned:
        assert owned
        with claim_task(empty, task) as twice:
            assert not twice


# -- the disk refuses ---------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("nth", range(1, 13))
def test_full_disk_loses_nothing(empty, plan, monkeypatch, call, nth):
    cohort = plan.cohorts[0]
    task = next(cohort.tasks())
    with TaskWriter(empty, cohort, task) as writer:
        writer.commit(fab.make_checkpoint(cohort, task, 0))
        real, count = getattr(os, call), 0

        def refuse(*args):
            nonlocal count
            count += 1
            if count >= nth:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(files_module.os, call, refuse)
            failed = False
            try:
                writer.commit(fab.make_checkpoint(cohort, task, 1))
            except StoreError as error:
                failed = True
                assert "No space left" in str(error)  # noqa: PT017
                assert "free some space" in str(error)  # noqa: PT017
        assert failed == (count >= nth)
    weights, _, _ = fab.expected(cohort)
    one = StoreReader(empty).cohorts[0]
    np.testing.assert_array_equal(one.read_weights(range(5), 0), weights[:5, 0])
    assert verify_store(empty).problems == ()
    fab.train_task(empty, cohort, task)
    one = StoreReader(empty).cohorts[0]
    np.testing.assert_array_equal(one.read_weights(range(5), 3), weights[:5, 3])
    assert verify_store(empty).strays == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_one_clear_error(tmp_path, plan):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="right to write"):
        create_store(tmp_path / "x.zarr", plan, sweep_toml="", provenance={})


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "mounted read-only"),
        (errno.EACCES, "right to write"),
    ],
)
def test_creation_where_the_disk_refuses_leaves_nothing(tmp_path, plan, monkeypatch, code, advice):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(create_module, "fsync_tree", refuse)
    with pytest.raises(StoreError, match=advice):
        create_store(tmp_path / "x.zarr", plan, sweep_toml="", provenance={})
    assert list(tmp_path.iterdir()) == []


def test_creation_refuses_what_is_there_and_bad_names(full, plan, tmp_path):
    with pytest.raises(StoreError, match="a store is there"):
        create_store(full, plan, sweep_toml="", provenance={})
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("words")
    with pytest.raises(StoreError, match="something else is there"):
        create_store(other, plan, sweep_toml="", provenance={})
    bad = fab.make_plan(fab.make_cohort("_zoo"))
    with pytest.raises(StoreError, match="_zoo"):
        create_store(tmp_path / "bad.zarr", bad, sweep_toml="", provenance={})


# -- extending ----------------------------------------------------------------------------


def digests(path):
    found = {}
    for file in (p for p in path.rglob("*") if p.is_file()):
        found[file.relative_to(path).as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def larger(plan):
    return fab.make_plan(*plan.cohorts, fab.make_cohort("mlp-c", width=8, params=120, seed=500))


def test_extending_adds_and_changes_nothing_else(full, plan):
    reader, before = StoreReader(full), digests(full)
    extend_store(full, larger(plan), sweep_toml="second\n")
    after = digests(full)
    changed = {name for name, value in before.items() if after.get(name) != value}
    changed.discard("_zoo/locks/extend.lock")  # says who holds it
    assert changed == set()
    new = {n for n in after.keys() - before.keys() if not n.startswith("mlp-c/")}
    assert new == {"_zoo/plan-0001.json", "_zoo/plan-0001.copy.json", "_zoo/sweep-0001.toml"}
    assert read_sweep_text(full) == "second\n"
    assert [c.id for c in read_plan(full).cohorts] == ["mlp-a", "mlp-b", "mlp-c"]
    reader.refresh()
    assert len(reader.cohorts) == 3
    again = digests(full)
    extend_store(full, larger(plan))
    assert {**digests(full), "_zoo/locks/extend.lock": ""} == {
        **again,
        "_zoo/locks/extend.lock": "",
    }
    plan = read_plan(full)
    for task in plan.cohort("mlp-c").tasks():
        fab.train_task(full, plan.cohort("mlp-c"), task)
    assert verify_store(full).problems == ()


def test_extended_store_is_the_store_of_the_larger_plan(full, plan, tmp_path):
    extend_store(full, larger(plan))
    once = tmp_path / "once.zarr"
    create_store(once, larger(plan), sweep_toml="", provenance={})
    fab.fill(once, larger(plan))
    for task in larger(plan).cohort("mlp-c").tasks():
        fab.train_task(full, larger(plan).cohort("mlp-c"), task)
    assert content_hash(full) == content_hash(once)


@pytest.mark.parametrize("stop", ["write_group", "fsync_tree", "fsync_folder", "write_atomic"])
def test_killed_extension_is_done_again(full, plan, monkeypatch, stop):
    with monkeypatch.context() as patch:

        def die(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(create_module, stop, die)
        with pytest.raises(KeyboardInterrupt):
            extend_store(full, larger(plan))
    assert len(StoreReader(full).cohorts) == 2
    extend_store(full, larger(plan))
    assert len(StoreReader(full).cohorts) == 3
    assert verify_store(full).problems == ()


def test_extension_that_would_change_a_cohort_is_refused(full, plan):
    changed = fab.make_plan(fab.make_cohort("mlp-a", seed=9), plan.cohorts[1])
    before = content_hash(full)
    with pytest.raises(StoreError, match="mlp-a would change"):
        extend_store(full, changed)
    assert content_hash(full) == before


def test_what_a_killed_creation_left_is_cleared_however_far_its_removal_came(tmp_path):
    made = fab.make_plan()
    for name, files in {"whole": ("zarr.json", "_zoo/locks/extend.lock"), "empty": ()}.items():
        folder = tmp_path / f".x.zarr.{name}.tmp"
        StorePaths(folder).extend_lock.parent.mkdir(parents=True)
        for file in files:
            (folder / file).touch()
    create_store(tmp_path / "x.zarr", made, sweep_toml="", provenance={})
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]
