"""Dropping what is damaged of a task, so that running again trains it anew."""

from __future__ import annotations

import contextlib
import glob
import shutil
import time
import uuid
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from zoo.errors import StoreBusyError, StoreCorruptError, StoreError
from zoo.store.added import read_array, read_derived_record, remake_advice
from zoo.store.commits import (
    committed_count,
    failure_numbers,
    lost_commits,
    read_commit,
    read_failure,
    read_seal,
)
from zoo.store.create import existing, read_plan
from zoo.store.derived import alone, withdraw
from zoo.store.files import STRAY_SUFFIX, fsync_folder, remove_strays, store_errors, write_atomic
from zoo.store.lease_view import damaged_leases
from zoo.store.locks import claim_task, hold, hold_patiently
from zoo.store.outcomes import make_seal, outcome_chunks, same_end
from zoo.store.paths import StorePaths
from zoo.store.records import write_record
from zoo.store.resume import remove_left
from zoo.store.schema import ArraySpec, outcome_arrays, probe_size, slab_arrays
from zoo.store.side_files import snapshot_files, snapshot_problem, stage_folders, state_damage
from zoo.store.stages import part_problem, settings_damage
from zoo.store.tables import table_damage, table_names, withdraw_table
from zoo.store.verify import is_unplanned_group, shard_problems
from zoo.train.plan import Cohort, Plan, Task

__all__ = ["repair_added", "repair_task"]

#: An unfinished file that has no lock is left over when it is older than this.
_IDLE_S = 3600.0


def repair_task(path: str | PathLike[str], task: Task, *, first: int | None = None) -> int | None:
    """Take back the commits of a task from its first damaged checkpoint on.

    Running the sweep again then completes the task. If its resume states are gone, it is trained
    from the start, and the checkpoints that stayed must come out with the same bits; where they
    cannot (another machine type, another version), drop them too with ``first=0``. The commits are
    taken back before any file is deleted, newest first, so an interruption leaves a sound task.

    Args:
        path: the store.
        task: one of its plan's tasks.
        first: the first checkpoint to take back; by default the first that is damaged.

    Returns:
        The first checkpoint that was taken back; K where only the seal or the outcome arrays were
        damaged, and were written anew; None if nothing was taken back.

    Raises:
        StoreBusyError: another process owns the task.
        StoreError: something cannot be deleted.
    """
    paths = existing(path)
    plan = read_plan(path)
    cohort = plan.cohort(task.cohort)
    with (
        claim_task(path, task, patient=True) as owned,
        store_errors("repair", paths.task(task)),
    ):
        if not owned:
            msg = f"another process owns task {task.index} of {task.cohort}; wait for it"
            raise StoreBusyError(msg)
        paths.check_inside(paths.group(cohort.id), paths.task(task))
        remove_strays(paths.task(task))
        _drop_side_files(paths, cohort, task)
        if first is None:
            slabs = slab_arrays(cohort, probe_size(plan, cohort))
            bad = _first_bad(paths, cohort, task, slabs)
            found = [*lost_commits(paths, cohort, task), *([] if bad is None else [bad])]
            first = min(found, default=None)
        if first is None:
            sealed = paths.seal(task).exists()
            sound = not sealed or _mend_end(paths, cohort, task)
            remove_left(paths, task)
            return None if sound else cohort.checkpoints
        _take_back(paths, cohort, task, first)
        return first


def _first_bad(
    paths: StorePaths, cohort: Cohort, task: Task, arrays: dict[str, ArraySpec]
) -> int | None:
    """Return the first committed checkpoint of a task that is damaged, or None."""
    for k in range(committed_count(paths, task)):
        try:
            commit = read_commit(paths, cohort, task, k)
        except StoreCorruptError:
            return k
        if commit.files.keys() != arrays.keys():
            return k
        for name in commit.files:
            file = paths.shard(task, name, k, len(arrays[name].shape))
            if any(True for _ in shard_problems(file, arrays[name], cohort, task, commit)):
                return k
    return None


def _drop_side_files(paths: StorePaths, cohort: Cohort, task: Task) -> None:
    """Delete damaged records of failures, and damaged states that training resumes from."""
    for number in failure_numbers(paths, task):
        try:
            read_failure(paths, cohort, task, number)
        except StoreCorruptError:
            _delete(paths.failure(task, number))
    commits = []
    for k in range(committed_count(paths, task)):
        with contextlib.suppress(StoreCorruptError):
            commits.append(read_commit(paths, cohort, task, k))
    for file, _ in list(state_damage(paths, cohort, task, commits)):
        _delete(file)


def _mend_end(paths: StorePaths, cohort: Cohort, task: Task) -> bool:
    """Write the outcomes and the seal of a task anew from its commits; return whether all was well.

    What the run said about itself is lost with a damaged seal.
    """
    commits = [read_commit(paths, cohort, task, k) for k in range(cohort.checkpoints)]
    chunks = outcome_chunks(paths, cohort, task, commits)
    sound = True
    for file, data in chunks.items():
        if not (file.exists() and file.read_bytes() == data):
            write_atomic(file, data, staging=paths.task(task))
            sound = False
    wanted = make_seal(commits, chunks, {"rebuilt": True})
    try:
        seal = read_seal(paths, cohort, task)
    except StoreCorruptError:
        seal = None
    if seal is None or not same_end(seal, wanted):
        write_record(paths.seal(task), "seal", wanted.to_json(cohort, task))
        sound = False
    return sound


def _take_back(paths: StorePaths, cohort: Cohort, task: Task, first: int) -> None:
    _delete(paths.seal(task))
    dropped = range(cohort.checkpoints - 1, first - 1, -1)
    for k in dropped:
        _delete(paths.commit(task, k))
    for name, spec in outcome_arrays(cohort).items():
        _delete(paths.chunk(task, name, len(spec.shape)))
    slabs = {name: len(spec.shape) for name, spec in slab_arrays(cohort, 1).items()}
    for k in dropped:
        _delete(paths.resume(task, k))
        for name, axes in slabs.items():
            _delete(paths.shard(task, name, k, axes))


def _delete(path: Path) -> None:
    if path.exists():
        path.unlink()
        fsync_folder(path.parent)


def repair_added(path: str | PathLike[str]) -> tuple[str, ...]:
    """Mend what stages added, snapshots, and what killed processes left.

    Columns and tables with a damaged chunk are taken away, and so are damaged parts of stages: the
    stage makes them again. What another process works on is left alone.

    Args:
        path: the store.

    Returns:
        What was done, a line each.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: the plan itself is damaged.
        StoreBusyError: another process changes the store's metadata and does not end.
        StoreError: a file cannot be written.
    """
    paths, plan = existing(path), read_plan(path)
    done: list[str] = []
    with store_errors("repair", paths.root), alone(paths):
        for cohort in plan.cohorts:
            done += _withdraw_columns(paths, plan, cohort)
        for damage in list(table_damage(paths)):
            if damage.data is not None:
                write_atomic(damage.file, damage.data, staging=paths.records)
                done.append(f"{paths.name(damage.file)}: written anew")
            elif damage.table in table_names(path):
                withdraw_table(paths, damage.table)
                done.append(f"table {damage.table}: taken away; {damage.advice}")
        done += _clear(paths, plan)
    done += _replace_leases(paths)
    done += _mend_stages(paths)
    for file in snapshot_files(paths):
        if snapshot_problem(file) is not None:
            _delete(file)
            done.append(f"{paths.name(file)}: deleted; take the snapshot again")
    return tuple(done)


def _withdraw_columns(paths: StorePaths, plan: Plan, cohort: Cohort) -> Iterator[str]:
    record, group = read_derived_record(paths, cohort), paths.group(cohort.id)
    gone = {}
    for name, metadata in record.members.items():
        try:
            read_array(group / name, metadata, record.checks.get(name))
        except StoreError:
            gone[name] = metadata
    withdraw(paths, plan, cohort, gone)
    for name, metadata in gone.items():
        advice = remake_advice(metadata).partition(", and ")[2]
        yield f"{cohort.id}/{name}: taken away; {advice}"
    for name in record.pending:
        yield f"{cohort.id}/{name}: removed, it was never finished"


def _clear(paths: StorePaths, plan: Plan) -> Iterator[str]:
    """Delete what killed extensions and publications left; their lock is ours."""
    names = {cohort.id for cohort in plan.cohorts}
    left = [paths.staging] if paths.staging.exists() else []
    left += paths.records.glob(f"*{STRAY_SUFFIX}")
    left += [
        p
        for p in paths.root.iterdir()
        if p.is_dir()
        and not p.is_symlink()
        and p.name not in names
        and is_unplanned_group(paths, p.name)
        and not (paths.records / "tasks" / p.name).exists()
    ]
    left += _idle_strays(paths)
    for path in left:
        name = paths.name(path)
        if path.is_dir() and not path.is_symlink():
            if path.parent == paths.root:  # half deleted, nobody could tell whose it was
                path = path.replace(paths.records / f"{path.name}.{uuid.uuid4().hex}{STRAY_SUFFIX}")
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        yield f"{name}: removed, it was never finished"


def _idle_strays(paths: StorePaths) -> Iterator[Path]:
    """Yield unfinished files that are not a task's and that nobody has written to for long."""
    for folder in ("derived", "snapshots", "tables"):
        for stray in (paths.records / folder).glob(f"*{STRAY_SUFFIX}"):
            if time.time() - stray.stat().st_mtime > _IDLE_S:
                yield stray


def _replace_leases(paths: StorePaths) -> Iterator[str]:
    """Take over what a damaged lease is of, which makes the next one, and give it back."""
    for file, _ in list(damaged_leases(paths.locks)):
        with hold_patiently(file.parent.with_suffix(".lock"), leased=True) as owned:
            if owned:
                yield f"{paths.name(file)}: replaced by the next one"


def _mend_stages(paths: StorePaths) -> Iterator[str]:
    for folder in stage_folders(paths):
        damage = settings_damage(folder)
        file = folder / "settings.json"
        if damage is not None and damage[1] is not None:
            write_atomic(file, damage[1])
            yield f"{paths.name(file)}: written anew"
        elif damage is not None:
            _delete(file)
            yield f"{paths.name(file)}: deleted"
        locks = paths.locks / "stages" / folder.name
        parts = {p.name.partition(".npz")[0] for p in folder.glob("*.npz*")}
        for part in sorted(parts):
            with hold(locks / f"{part}.lock") as owned:
                for stray in (
                    folder.glob(f"{glob.escape(part)}.npz.*{STRAY_SUFFIX}") if owned else ()
                ):
                    stray.unlink(missing_ok=True)
                    yield f"{paths.name(stray)}: removed, it was never finished"
                file = folder / f"{part}.npz"
                if owned and part_problem(file) is not None:
                    _delete(file)
                    yield f"{paths.name(file)}: deleted; the stage computes it again"
