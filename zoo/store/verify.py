"""Checking a store: every byte against its record, every array against the plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import StoreCorruptError, StoreError
from zoo.store.added import added_folders, array_chunks, find_added, planned_part, read_array
from zoo.store.commits import Commit, committed_count, read_commit, read_failures, read_seal
from zoo.store.create import existing, read_plan, read_provenance, read_sweep
from zoo.store.files import STRAY_SUFFIX, checksum, read_bytes
from zoo.store.groups import (
    cohort_arrays,
    group_metadata,
    metadata_bytes,
    root_metadata,
    scalar_metadata,
)
from zoo.store.outcomes import outcome_chunks, recorded_until
from zoo.store.paths import StorePaths
from zoo.store.schema import ArraySpec, columns, outcome_arrays
from zoo.store.shard import MISSING, decode_chunk, decode_index
from zoo.train.plan import Cohort, Plan, Task

__all__ = ["VerifyReport", "content_hash", "first_bad_checkpoint", "verify_store"]


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

    def add(self, path: Path, what: str, advice: str) -> None:
        self.problems.append(f"{self.paths.name(path)}: {what}; {advice}.")


def _advice(task: Task) -> str:
    return f"train it again: repair_task(store, task {task.index} of {task.cohort}), then `zoo run`"


_COPY = "restore the file from a copy of the store"


def verify_store(path: str | PathLike[str]) -> VerifyReport:
    """Check a whole store; reads every committed byte, changes nothing.

    Every shard is held against the size and checksum of its commit record and every chunk of it is
    decoded; the outcome arrays are held against the commit records, the columns and all metadata
    against the plan, the columns through the zarr library.

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
    _check_root(check, plan)
    for cohort in plan.cohorts:
        arrays = cohort_arrays(plan, cohort)
        _check_metadata(check, plan, cohort, arrays)
        _check_columns(check, cohort)
        for task in cohort.tasks():
            _check_task(check, cohort, task, arrays)
    _check_added(check, plan)
    strays = tuple(_unexpected(check, plan))
    return VerifyReport(check.shards, check.bytes, tuple(check.problems), strays)


def _check_root(check: _Check, plan: Plan) -> None:
    root = check.paths.root
    creator = ""
    try:
        creator = read_provenance(root)["created_by"]
        read_sweep(root)
    except (StoreError, UnicodeDecodeError) as error:
        check.problems.append(f"{error}; {_COPY}.")
    _check_json(check, check.paths.metadata, root_metadata(plan, creator))
    _check_json(check, check.paths.records / "zarr.json", scalar_metadata())


def _check_json(check: _Check, path: Path, wanted: Any) -> None:
    check.expected.add(path)
    try:
        found = json.loads(read_bytes(path))
    except (StoreError, ValueError):
        check.add(path, "is missing or not JSON", _COPY)
        return
    if _without_prose(planned_part(found)) != _without_prose(wanted):
        check.add(path, "is not the metadata that the plan has", _COPY)


def _without_prose(metadata: Any) -> Any:
    """Return metadata without the arrays' descriptions, which a later version may word better."""
    if isinstance(metadata, list):
        return [_without_prose(item) for item in metadata]
    if not isinstance(metadata, dict):
        return metadata
    return {k: _without_prose(v) for k, v in metadata.items() if k != "long_name"}


def _check_metadata(
    check: _Check, plan: Plan, cohort: Cohort, arrays: dict[str, ArraySpec]
) -> None:
    group = check.paths.group(cohort.id)
    _check_json(check, group / "zarr.json", group_metadata(plan, cohort))
    for name, spec in arrays.items():
        _check_json(check, group / name / "zarr.json", spec.metadata())


def _check_columns(check: _Check, cohort: Cohort) -> None:
    """Read the columns as any other program would, and hold them against the plan."""
    import zarr

    group = check.paths.group(cohort.id)
    for name, (spec, values) in columns(cohort).items():
        check.expected.add(group.joinpath(name, "c", *["0"] * len(spec.shape)))
        try:
            found = np.asarray(zarr.open_array(group / name, mode="r")[...])
        except Exception as error:  # noqa: BLE001 - whatever zarr raises is the finding
            check.add(group / name, f"cannot be read ({error})", _COPY)
            continue
        if spec.dtype == "string":
            same = found.tolist() == values.tolist()
        else:
            same = np.array_equal(found, values, equal_nan=spec.dtype == "float64")
        if not same:
            check.add(group / name, "has other values than the plan", _COPY)


def _check_added(check: _Check, plan: Plan) -> None:
    """Decode what stages added; it stands in no record, but every chunk has its checksum."""
    tables = check.paths.tables
    check.expected |= {*tables.glob("zarr.json"), *tables.glob("*/zarr.json")}
    for folder in added_folders(check.paths, plan):
        metadata = find_added(folder)
        assert metadata is not None
        check.expected |= {folder / "zarr.json", *array_chunks(folder, metadata)}
        try:
            read_array(folder, metadata)
        except StoreError as error:
            check.problems.append(f"{error}.")


def _check_task(check: _Check, cohort: Cohort, task: Task, arrays: dict[str, ArraySpec]) -> None:
    paths = check.paths
    committed = committed_count(paths, task)
    commits: list[Commit] = []
    for k in range(committed):
        try:
            commits.append(read_commit(paths, cohort, task, k))
        except StoreError as error:
            check.problems.append(f"{error}; {_advice(task)}.")
            continue
        for name in commits[-1].files:
            spec = arrays[name]
            file = paths.shard(task, name, k, len(spec.shape))
            check.expected.add(file)
            for what in shard_problems(file, spec, cohort, task, commits[-1]):
                check.add(file, what, _advice(task))
            check.shards += 1
            check.bytes += commits[-1].files[name].bytes
    try:
        read_failures(paths, task)
        seal = read_seal(paths, task)
    except StoreError as error:
        check.problems.append(f"{error}; {_advice(task)}.")
        return
    if seal is None:
        return
    if len(commits) != cohort.checkpoints:
        what = f"is sealed with {len(commits)} of {cohort.checkpoints} commit records"
        check.add(paths.seal(task), what, _advice(task))
        return
    if seal.last.tolist() != (recorded_until(commits) - 1).tolist():
        check.add(paths.seal(task), "differs from the commit records", _advice(task))
    for file, data in outcome_chunks(paths, cohort, task, commits).items():
        check.expected.add(file)
        if not file.exists():
            check.add(file, "is missing", _advice(task))
        elif file.read_bytes() != data:
            check.add(file, "differs from the commit records", _advice(task))


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
    elif checksum(data) != wanted.crc32c:
        yield "does not match the checksum of its commit record"
    try:
        index = decode_index(form, data[-form.index_bytes :])
    except StoreCorruptError as error:
        yield str(error)
        return
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
    root, records = check.paths.root, check.paths.records
    pending = {file for cohort in plan.cohorts for file in _pending(check.paths, cohort)}
    for path in sorted(p for p in root.rglob("*") if not p.is_dir()):
        if path.name.endswith(STRAY_SUFFIX) or path in pending:
            yield check.paths.name(path)
        elif records not in path.parents and path not in check.expected:
            check.add(path, "belongs to nothing in the plan", "move it out of the store")


def _pending(paths: StorePaths, cohort: Cohort) -> Iterator[Path]:
    """Yield the files that a killed owner may have finished without committing them."""
    for task in cohort.tasks():
        if paths.seal(task).exists():
            continue
        k = committed_count(paths, task)
        for name, axes in (("weights", 3), ("probe_logits", 4)):
            yield paths.shard(task, name, k, axes)
        for name, spec in outcome_arrays(cohort).items():
            yield paths.chunk(task, name, len(spec.shape))


def first_bad_checkpoint(
    paths: StorePaths, cohort: Cohort, task: Task, arrays: dict[str, ArraySpec]
) -> int | None:
    """Return the first committed checkpoint of a task that is damaged, or None."""
    for k in range(committed_count(paths, task)):
        try:
            commit = read_commit(paths, cohort, task, k)
        except StoreCorruptError:
            return k
        for name in commit.files:
            file = paths.shard(task, name, k, len(arrays[name].shape))
            if any(True for _ in shard_problems(file, arrays[name], cohort, task, commit)):
                return k
    return None


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
    added = {*added_folders(paths, plan), paths.tables}
    groups = {paths.metadata, *(paths.group(cohort.id) / "zarr.json" for cohort in plan.cohorts)}
    digest = hashlib.sha256()
    for file in sorted(p for p in paths.root.rglob("*") if p.is_file()):
        record = paths.records in file.parents and file.name != "zarr.json"
        if record or file.name.endswith(STRAY_SUFFIX) or not added.isdisjoint(file.parents):
            continue
        data = file.read_bytes()
        if file in groups:
            data = metadata_bytes(planned_part(json.loads(data)))
        digest.update(f"{paths.name(file)}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()
