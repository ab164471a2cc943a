"""Checking a store: every byte against its record, every array against the plan."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from zoo.errors import StoreCorruptError, StoreError, UnknownNameError
from zoo.paths import is_clutter
from zoo.store.added import (
    Derived,
    array_chunks,
    inline_derived,
    planned_part,
    read_derived_record,
    read_table_record,
)
from zoo.store.commits import (
    Commit,
    committed_count,
    failure_numbers,
    lost_commits,
    read_commit,
    read_failure,
    read_seal,
)
from zoo.store.create import existing, read_plan, read_provenance, read_sweep_text
from zoo.store.derived import read_published
from zoo.store.files import STRAY_SUFFIX, read_bytes
from zoo.store.groups import metadata_bytes
from zoo.store.lease_view import damaged_leases
from zoo.store.outcomes import make_seal, outcome_chunks, same_end
from zoo.store.paths import StorePaths
from zoo.store.planned import check_planned, plan_damage
from zoo.store.resume import left_states
from zoo.store.schema import SLABS, ArraySpec, outcome_arrays, probe_size, slab_arrays
from zoo.store.shard import MISSING, decode_chunk, decode_index, shard_name
from zoo.store.shard_file import TRAIN_AGAIN, has_name
from zoo.store.side_files import snapshot_files, snapshot_problem, stage_folders, state_damage
from zoo.store.stages import part_problem, settings_damage
from zoo.store.tables import table_damage, table_names
from zoo.train.plan import Cohort, Plan, Task

__all__ = ["VerifyReport", "content_hash", "is_unplanned_group", "shard_problems", "verify_store"]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of a store found.

    Args:
        shards: committed shards that were read.
        bytes: their size together.
        problems: one sentence each, with the file and what to do; empty for a sound store.
        strays: unfinished or not yet committed files, which do no harm.
    """

    shards: int
    bytes: int
    problems: tuple[str, ...]
    strays: tuple[str, ...]


@dataclass(slots=True)
class _Check:
    paths: StorePaths
    shards: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    expected: set[Path] = field(default_factory=set)
    left: list[str] = field(default_factory=list)

    def add(self, path: Path, what: str, advice: str) -> None:
        self.problems.append(f"{self.paths.name(path)}: {what}; {advice}.")


_COPY = "restore the file from a copy of the store"
_REPAIR = "`zoo repair` writes it anew"
_DELETE = "`zoo repair` deletes it"
_STAGING = ("_zoo", "staging")


def verify_store(path: str | PathLike[str]) -> VerifyReport:
    """Check a whole store; reads every committed byte, changes nothing.

    Every shard is held against the size and checksum of its commit record and every chunk of it is
    decoded; the outcome arrays are held against the commit records, the columns and all metadata
    against the plan.

    Args:
        path: the store.

    Raises:
        StoreMissingError: no store is there.
    """
    check = _Check(existing(path))
    try:
        plan = read_plan(path)
    except StoreError as error:
        return VerifyReport(0, 0, (f"{error}; {_COPY}.",), ())
    _check_records(check)
    _check_stages(check)
    files, found = check_planned(check.paths, plan)
    check.expected |= files
    for damage in found:
        check.add(damage.file, damage.what, _REPAIR)
    for cohort in plan.cohorts:
        slabs = slab_arrays(cohort, probe_size(plan, cohort))
        for task in cohort.tasks():
            _check_task(check, cohort, task, slabs)
    _check_added(check, plan)
    strays = (*check.left, *_unexpected(check, plan))
    return VerifyReport(check.shards, check.bytes, tuple(check.problems), strays)


def _check_records(check: _Check) -> None:
    paths = check.paths
    for file, what, _ in plan_damage(paths):
        check.add(file, what, _REPAIR)
    try:
        read_provenance(paths.root)
        read_sweep_text(paths.root)
    except StoreError as error:
        check.problems.append(f"{error}; {_COPY}.")
    for file, empty in damaged_leases(paths.locks):
        if empty:
            check.left.append(paths.name(file))
            continue
        check.add(file, "does not match its checksum", "`zoo repair` makes the next one")
    for file in snapshot_files(paths):
        wrong = snapshot_problem(file)
        if wrong is not None:
            check.add(file, wrong, f"{_DELETE}; then take the snapshot again")


def _check_stages(check: _Check) -> None:
    for folder in stage_folders(check.paths):
        damage = settings_damage(folder)
        if damage is not None:
            check.add(folder / "settings.json", damage[0], _REPAIR if damage[1] else _DELETE)
        for file in sorted(folder.glob("*.npz")):
            what = part_problem(file)
            if what is not None:
                check.add(file, what, f"{_DELETE}, and the stage computes it again")


def _check_added(check: _Check, plan: Plan) -> None:
    """Decode what stages added; it is in no record, but every chunk has its checksum."""
    paths = check.paths
    for cohort in plan.cohorts:
        group = paths.group(cohort.id)
        for name, metadata in _derived(paths, cohort).members.items():
            check.expected |= set(array_chunks(group / name, metadata))
            try:
                read_published(paths, cohort, name)
            except UnknownNameError:  # published anew in the meantime
                continue
            except StoreError as error:
                check.problems += [f"{error}."] if _record_is_sound(paths, cohort) else []
    for damage in table_damage(paths):
        check.add(damage.file, damage.what, damage.advice)
    check.expected.add(paths.tables / "zarr.json")
    for name in table_names(paths.root):
        check.expected.add(paths.tables / name / "zarr.json")
        with contextlib.suppress(StoreError):
            for key, metadata in read_table_record(paths, name).members.items():
                check.expected |= set(array_chunks(paths.tables / name / key, metadata))


def _record_is_sound(paths: StorePaths, cohort: Cohort) -> bool:
    try:
        read_derived_record(paths, cohort)
    except StoreError:
        return False
    return True


def _derived(paths: StorePaths, cohort: Cohort) -> Derived:
    """Return what stages added to a cohort, from the group's metadata where the record is bad."""
    try:
        return read_derived_record(paths, cohort)
    except StoreError:
        try:
            return Derived(inline_derived(json.loads(read_bytes(_group_file(paths, cohort)))))
        except (StoreError, ValueError):
            return Derived({})


def _group_file(paths: StorePaths, cohort: Cohort) -> Path:
    return paths.group(cohort.id) / "zarr.json"


def _check_task(check: _Check, cohort: Cohort, task: Task, arrays: dict[str, ArraySpec]) -> None:
    paths = check.paths
    there = paths.seal(task).exists()  # before the commits, which are all there once it is
    committed = committed_count(paths, task)
    commits: list[Commit] = []
    for k in range(committed):
        try:
            commits.append(read_commit(paths, cohort, task, k))
        except StoreError as error:
            if paths.commit(task, k).exists():
                check.problems.append(f"{error}; {TRAIN_AGAIN}.")
            continue
        if commits[-1].files.keys() != arrays.keys():
            check.add(paths.commit(task, k), "is of other arrays than the plan has", TRAIN_AGAIN)
        for name in commits[-1].files.keys() & arrays.keys():
            spec = arrays[name]
            file = paths.shard(task, name, k, len(spec.shape))
            check.expected.add(file)
            for what in shard_problems(file, spec, cohort, task, commits[-1]):
                check.add(file, what, TRAIN_AGAIN)
            check.shards += 1
            check.bytes += commits[-1].files[name].bytes
    for k in lost_commits(paths, cohort, task) if there == paths.seal(task).exists() else ():
        check.add(paths.commit(task, k), "is missing", TRAIN_AGAIN)
    _check_side_files(check, cohort, task, commits)
    if there:
        _check_end(check, cohort, task, commits)


def _check_side_files(check: _Check, cohort: Cohort, task: Task, commits: Sequence[Commit]) -> None:
    """Check what is part of no result: failures, and the states that training resumes from."""
    paths = check.paths
    for number in failure_numbers(paths, task):
        try:
            read_failure(paths, cohort, task, number)
        except StoreError as error:
            check.problems.append(f"{error}; {_DELETE}.")
    for file, what in state_damage(paths, cohort, task, commits):
        check.add(file, what, f"{_DELETE}; training then resumes from the state before")


def _check_end(check: _Check, cohort: Cohort, task: Task, commits: Sequence[Commit]) -> None:
    paths = check.paths
    try:
        seal = read_seal(paths, cohort, task)
    except StoreError as error:
        check.problems.append(f"{error}; {_REPAIR} from the commits.")
        seal = None
    if len(commits) != cohort.checkpoints:
        return
    chunks = outcome_chunks(paths, cohort, task, commits)
    if seal is not None and not same_end(seal, make_seal(commits, chunks, {})):
        check.add(paths.seal(task), "differs from the commit records", _REPAIR)
    for file, data in chunks.items():
        check.expected.add(file)
        if not file.exists():
            check.add(file, "is missing", _REPAIR)
        elif file.read_bytes() != data:
            check.add(file, "differs from the commit records", _REPAIR)


def shard_problems(
    file: Path, spec: ArraySpec, cohort: Cohort, task: Task, commit: Commit
) -> Iterator[str]:
    """Yield what is wrong with a committed shard, as clauses; nothing for a sound one."""
    form, wanted = spec.shard, commit.files[spec.name]
    assert form is not None
    try:
        data = file.read_bytes()
    except OSError as error:
        yield f"cannot be read ({error.strerror}), though it was committed"
        return
    if len(data) != wanted.bytes:
        yield f"has {len(data)} bytes, {wanted.bytes} were committed"
    elif not wanted.fits(data):
        yield "does not match the checksum of its commit record"
    try:
        index = decode_index(form, data[-form.index_bytes :])
    except StoreCorruptError as error:
        yield str(error)
        return
    if not has_name(data, index, shard_name(cohort, task, spec.name, commit.index)):
        yield "holds another checkpoint's or other runs' values"
    out = np.empty(form.chunk_values, dtype=form.dtype)
    for row in range(form.rows):
        name = cohort.run_ids[task.start + row] if row < task.models else "a row that is not there"
        recorded = row < task.models and commit.diverged_step[row] < 0
        for split, (offset, length) in enumerate(index[row].tolist()):
            if (offset != int(MISSING)) != recorded:
                yield f"chunk {row}.{split} (run {name}) {'lacks' if recorded else 'holds'} values"
            if offset == int(MISSING):
                continue
            try:
                decode_chunk(form, data[offset : offset + length], out)
            except StoreCorruptError as error:
                yield f"chunk {row}.{split} (run {name}): {error}"


def _unexpected(check: _Check, plan: Plan) -> Iterator[str]:
    """Yield harmless strays; note every other file that no record or plan accounts for."""
    paths = check.paths
    files = sorted(p for p in paths.root.rglob("*") if not p.is_dir())
    names = {cohort.id for cohort in plan.cohorts}
    pending = {file for cohort in plan.cohorts for file in _pending(paths, cohort)}
    yield from _left(paths, plan)
    # What is there now besides, as the store says by now: it may be growing.
    added = {paths.group(c.id) / name for c in plan.cohorts for name in _now_added(paths, c)}
    tables = {paths.tables / name for name in table_names(paths.root)}
    for path in files:
        inside = path.relative_to(paths.root).parts
        if is_clutter(path):
            continue
        if any(part.endswith(STRAY_SUFFIX) for part in inside) or inside[:2] == _STAGING:
            yield paths.name(path)
        elif paths.records in path.parents or path in check.expected:
            continue
        elif (
            path in pending
            or path.parent in added
            or not tables.isdisjoint(path.parents)
            or (inside[0] not in names and is_unplanned_group(paths, inside[0]))
        ):
            yield paths.name(path)
        elif path.exists():
            check.add(path, "belongs to nothing in the plan", "move it out of the store")


def _left(paths: StorePaths, plan: Plan) -> Iterator[str]:
    """Yield what a kill left that no file's name tells."""
    if paths.staging.is_dir() and not any(p.is_file() for p in paths.staging.rglob("*")):
        yield paths.name(paths.staging)
    for task in plan.tasks():
        yield from map(paths.name, left_states(paths, task))


def _now_added(paths: StorePaths, cohort: Cohort) -> Iterator[str]:
    derived = _derived(paths, cohort)
    yield from derived.members
    yield from derived.pending


def is_unplanned_group(paths: StorePaths, name: str) -> bool:
    """Whether a folder is a cohort that an extension adds, or was adding when it was killed."""
    try:
        metadata = json.loads((paths.group(name) / "zarr.json").read_bytes())
        kind = metadata["attributes"]["encoding-type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return bool(kind == "phasezoo-cohort")


def _pending(paths: StorePaths, cohort: Cohort) -> Iterator[Path]:
    """Yield every file that tasks write: what has no record may have come in the meantime."""
    for task in cohort.tasks():
        for axes, name in enumerate(SLABS, 3):
            for k in range(cohort.checkpoints):
                yield paths.shard(task, name, k, axes)
        for name, spec in outcome_arrays(cohort).items():
            yield paths.chunk(task, name, len(spec.shape))


def content_hash(path: str | PathLike[str]) -> str:
    """Return the sha256 over the names and bytes of all Zarr data and metadata, as hex.

    The records under ``_zoo`` (which carry times and hosts), what stages added, and unfinished
    files do not count: the hash is of what the sweep and the training alone decide.

    Args:
        path: the store.

    Raises:
        StoreMissingError: no store is there.
    """
    paths = existing(path)
    plan = read_plan(path)
    groups = {_group_file(paths, cohort) for cohort in plan.cohorts}
    added = {paths.tables}
    for cohort in plan.cohorts:
        derived = _derived(paths, cohort)
        added |= {paths.group(cohort.id) / name for name in (*derived.members, *derived.pending)}
    digest = hashlib.sha256()
    for file in sorted(p for p in paths.root.rglob("*") if p.is_file()):
        record = paths.records in file.parents and file.name != "zarr.json"
        if record or is_clutter(file) or file.name.endswith(STRAY_SUFFIX):
            continue
        if not added.isdisjoint(file.parents):
            continue
        data = file.read_bytes()
        if file in groups:
            data = metadata_bytes(planned_part(json.loads(data)))
        digest.update(f"{paths.name(file)}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()
