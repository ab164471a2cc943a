"""What follows from a store's plan: its Zarr metadata and columns, checked and written anew.

A damaged or missing one costs nothing: the right content is known, so :func:`rewrite_planned`
writes it. The record of what stages added and the group's metadata stand in for each other.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.errors import StoreError
from zoo.store.added import (
    FORM,
    Derived,
    array_chunks,
    ends,
    has_rows_of,
    inline_derived,
    planned_part,
    read_derived_record,
    with_derived,
)
from zoo.store.create import existing, plan_record, read_plan, read_provenance, sweep_bytes
from zoo.store.derived import alone
from zoo.store.files import read_bytes, store_errors, write_atomic
from zoo.store.groups import (
    metadata_bytes,
    planned_files,
    root_metadata,
    scalar_metadata,
    version,
)
from zoo.store.paths import StorePaths
from zoo.store.records import record_bytes
from zoo.train.plan import Cohort, Plan

__all__ = ["Damage", "check_planned", "plan_damage", "rewrite_planned"]


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not as the plan has it.

    Args:
        file: the file.
        what: what is wrong with it, a clause.
        data: its right content.
    """

    file: Path
    what: str
    data: bytes


def check_planned(paths: StorePaths, plan: Plan) -> tuple[set[Path], list[Damage]]:
    """Return every file that follows from the plan, and what is wrong with them."""
    scalar = paths.records / "zarr.json"
    files = {paths.metadata, scalar}
    found = [*_json_damage(paths.metadata, _root(paths, plan))]
    found += _json_damage(scalar, scalar_metadata())
    for cohort in plan.cohorts:
        planned = dict(planned_files(plan, cohort))
        files |= {paths.group(cohort.id) / name for name in planned}
        found += _group_damage(paths, plan, cohort, planned)
    return files, found


def plan_damage(paths: StorePaths) -> Iterator[tuple[Path, str, bytes]]:
    """Yield each file of the plan, a sweep or the provenance that is not as it was written.

    A plan and its copy stand in for each other, and have what the others say.

    Yields:
        The file, what is wrong with it as a clause, and its right content.
    """
    for part in paths.parts():
        with contextlib.suppress(StoreError):
            body = plan_record(paths, part)
            wanted = {file: record_bytes("plan", body) for file in _pair(paths, part)}
            if "part" not in body:  # of a store that keeps no copies
                del wanted[paths.plan_copy(part)]
            if "sweep" in body:
                wanted[paths.sweep(part)] = sweep_bytes(body["sweep"], part)
            if "provenance" in body:
                wanted[paths.provenance] = record_bytes("provenance", body["provenance"])
            for file, data in wanted.items():
                if not file.exists():
                    yield file, "is missing", data
                elif read_bytes(file) != data:
                    yield file, "is not as it was written", data


def _pair(paths: StorePaths, part: int) -> tuple[Path, Path]:
    return paths.plan(part), paths.plan_copy(part)


def rewrite_planned(path: str | PathLike[str]) -> tuple[str, ...]:
    """Write the metadata and columns anew that are not as the plan has them.

    Args:
        path: the store.

    Returns:
        The files that were written, as paths inside the store.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: the plan itself is damaged.
        StoreBusyError: another process changes the store's metadata and does not end.
        StoreError: a file cannot be written.
    """
    paths, plan = existing(path), read_plan(path)
    with store_errors("repair", paths.root), alone(paths):
        _, found = check_planned(paths, plan)
        wanted = [(file, data) for file, _, data in plan_damage(paths)]
        wanted += [(damage.file, damage.data) for damage in found]
        for file, data in wanted:
            paths.check_inside(file)
            write_atomic(file, data, staging=paths.records)
    return tuple(paths.name(file) for file, _ in wanted)


def _root(paths: StorePaths, plan: Plan) -> dict[str, Any]:
    """Return the root's metadata; without its provenance, it may itself say what made it."""
    creator = version()
    with contextlib.suppress(StoreError, ValueError, KeyError, TypeError, AttributeError):
        stored = json.loads(read_bytes(paths.metadata))["attributes"]["created-by"]
        creator = str(stored).removeprefix("phasezoo ")
    with contextlib.suppress(StoreError, KeyError):
        creator = read_provenance(paths.root)["created_by"]
    return root_metadata(plan, creator)


def _json_damage(file: Path, wanted: Any) -> Iterator[Damage]:
    found = _read_json(file)
    if found is None:
        yield Damage(file, "is missing or not JSON", metadata_bytes(wanted))
    elif _without_prose(found) != _without_prose(wanted):
        yield Damage(file, "is not the metadata that the plan has", metadata_bytes(wanted))


def _read_json(file: Path) -> Any:
    """Return the content of a JSON file, None if it is not there or none."""
    try:
        return json.loads(read_bytes(file))
    except (StoreError, ValueError, RecursionError):
        return None


def _without_prose(metadata: Any) -> Any:
    """Return metadata without the arrays' descriptions, which a later version may word better."""
    if isinstance(metadata, list):
        return [_without_prose(item) for item in metadata]
    if not isinstance(metadata, dict):
        return metadata
    return {k: _without_prose(v) for k, v in metadata.items() if k != "long_name"}


def _group_damage(
    paths: StorePaths, plan: Plan, cohort: Cohort, planned: Mapping[str, bytes]
) -> Iterator[Damage]:
    group = paths.group(cohort.id)
    wanted = _without_prose(json.loads(planned["zarr.json"]))
    while True:  # until nothing was published while we looked
        before = _content(paths.derived(cohort.id))
        stored = _read_json(group / "zarr.json")
        sound = _without_prose(planned_part(stored)) == wanted
        seen = inline_derived(stored) if sound else {}
        record, what = _derived(paths, cohort, seen)
        if _content(paths.derived(cohort.id)) == before:
            break
    if what:
        yield Damage(paths.derived(cohort.id), what, record.to_bytes(cohort.id))
    if not sound or not _agree(record, seen):
        clause = "is missing or not JSON" if stored is None else "is not the metadata that the plan"
        clause += "" if stored is None else " and the record of derived columns have"
        whole = with_derived(paths, plan, cohort, record.members, keep=sound)
        yield Damage(group / "zarr.json", clause, metadata_bytes(whole))
    for name, data in planned.items():
        file = group / name
        if name == "zarr.json":
            continue
        if file.name == "zarr.json":
            yield from _json_damage(file, json.loads(data))
        elif not file.exists() or file.read_bytes() != data:
            what = "has other values than the plan" if file.exists() else "is missing"
            yield Damage(file, what, data)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _derived(paths: StorePaths, cohort: Cohort, seen: Any) -> tuple[Derived, str]:
    """Return what stages added, and what is wrong with the record of it."""
    try:
        record = read_derived_record(paths, cohort)
    except StoreError:
        return _remade(paths, cohort, seen), "is damaged, or of other runs than the plan has"
    if seen and not paths.derived(cohort.id).exists():
        return _remade(paths, cohort, seen), "is missing"
    return record, ""


def _remade(paths: StorePaths, cohort: Cohort, seen: Any) -> Derived:
    """Return the record as the group's metadata has it; arrays of other runs are to be removed."""
    own = {name: member for name, member in seen.items() if has_rows_of(cohort, member)}
    return Derived(own, tuple(seen.keys() - own.keys()), _checks(paths, cohort, own))


def _checks(paths: StorePaths, cohort: Cohort, seen: Any) -> dict[str, list[list[int]]]:
    """Return what the chunks of derived arrays end with, for a record that was lost."""
    found = {}
    for name, member in seen.items():
        with contextlib.suppress(OSError, KeyError, TypeError):
            files = array_chunks(paths.group(cohort.id) / name, member)
            found[name] = [[ends(file.read_bytes())] for file in files]
    return found


def _agree(record: Derived, seen: Any) -> bool:
    """Return whether a group's metadata has the derived arrays of the record, and no others.

    Attributes may be newer than the record's, and arrays on their way may be there already.
    """
    known = all(
        name in seen and all(seen[name].get(key) == member[key] for key in FORM)
        for name, member in record.members.items()
    )
    return known and not seen.keys() - record.members.keys() - set(record.pending)
