"""Creating and extending a store: whole or not at all, without touching what is there."""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.errors import StoreBusyError, StoreCorruptError, StoreError, StoreMissingError
from zoo.store.added import refreshed_root
from zoo.store.files import (
    STRAY_SUFFIX,
    ensure_folder,
    fsync_folder,
    fsync_tree,
    read_bytes,
    store_errors,
    write_atomic,
)
from zoo.store.groups import (
    metadata_bytes,
    root_metadata,
    scalar_metadata,
    version,
    write_group,
)
from zoo.store.locks import hold
from zoo.store.paths import StorePaths
from zoo.store.records import read_record, record_bytes
from zoo.train.plan import Cohort, Plan

__all__ = [
    "create_store",
    "extend_store",
    "is_store",
    "read_plan",
    "read_provenance",
    "read_sweep",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_store(path: str | PathLike[str]) -> bool:
    """Return whether a phasezoo store is at ``path``."""
    return StorePaths(Path(path)).plan().is_file()


def existing(path: str | PathLike[str]) -> StorePaths:
    """Return the paths of a store.

    Raises:
        StoreMissingError: there is none.
    """
    if not is_store(path):
        msg = f"{path} is not a phasezoo store; `zoo run SWEEP --out {path}` makes one"
        raise StoreMissingError(msg)
    return StorePaths(Path(path))


def create_store(
    path: str | PathLike[str], plan: Plan, *, sweep_toml: str, provenance: Mapping[str, Any]
) -> None:
    """Create the store of a plan; all sizes are fixed here, for good.

    It is built in a temporary folder beside ``path`` and renamed when it is whole and durable.

    Args:
        path: where; must not exist.
        plan: the plan.
        sweep_toml: the text of the sweep file.
        provenance: JSON-ready: software, hardware, command.

    Raises:
        StoreError: something is at ``path`` already, the plan's cohorts have unusable names, or
            the disk refuses.
    """
    target = Path(path)
    _check_names(plan)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        what = "a store" if is_store(target) else "something else"
        msg = f"cannot create a store at {target}: {what} is there; choose another path"
        raise StoreError(msg)
    target = target.resolve()
    with store_errors("create the store", target):
        ensure_folder(target.parent)
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}{STRAY_SUFFIX}"
        try:
            with _keep_alive(temporary):
                _remove_dead_siblings(target)
                _write_store(StorePaths(temporary), plan, sweep_toml, provenance)
                fsync_tree(temporary)
                temporary.replace(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_folder(target.parent)


def _check_names(plan: Plan) -> None:
    names = [cohort.id for cohort in plan.cohorts]
    bad = [name for name in names if not _NAME.fullmatch(name) or names.count(name) > 1]
    if bad or not names:
        msg = (
            f"the plan's cohorts cannot be stored: {sorted(set(bad)) or 'there are none'}; allowed:"
            " different names of letters, digits, dot, hyphen and underscore"
        )
        raise StoreError(msg)


@contextlib.contextmanager
def _keep_alive(temporary: Path) -> Iterator[None]:
    """Make the temporary folder, and keep its lock, by which others see that it is in use."""
    lock = StorePaths(temporary).extend_lock
    lock.parent.mkdir(parents=True)
    with hold(lock):
        yield


def _remove_dead_siblings(target: Path) -> None:
    """Delete what killed creations of the same store left."""
    for folder in target.parent.glob(f".{target.name}.*{STRAY_SUFFIX}"):
        lock = StorePaths(folder).extend_lock
        if lock.exists():
            with hold(lock) as free:
                if free:
                    shutil.rmtree(folder, ignore_errors=True)


def _write_store(
    paths: StorePaths, plan: Plan, sweep_toml: str, provenance: Mapping[str, Any]
) -> None:
    creator = version()
    for cohort in plan.cohorts:
        write_group(paths.group(cohort.id), plan, cohort)
    paths.metadata.write_bytes(metadata_bytes(root_metadata(plan, creator)))
    (paths.records / "zarr.json").write_bytes(metadata_bytes(scalar_metadata()))
    paths.sweep().write_text(sweep_toml, encoding="utf-8")
    facts = {"created_by": creator, "provenance": dict(provenance)}
    paths.provenance.write_bytes(record_bytes("provenance", facts))
    paths.plan().write_bytes(record_bytes("plan", {"plan": plan.to_json()}))


def extend_store(path: str | PathLike[str], plan: Plan, *, sweep_toml: str | None = None) -> None:
    """Add the cohorts of ``plan`` that the store lacks; nothing else that is there changes.

    New groups are renamed into place, then the root group's metadata is replaced, then the new
    part of the plan is written: only with it do the new cohorts exist. Doing it again does nothing.

    Args:
        path: the store.
        plan: a plan that has every cohort of the store, and perhaps more.
        sweep_toml: the text of the new sweep file, kept beside the old one.

    Raises:
        StoreMissingError: no store is there.
        StoreBusyError: another process is extending it.
        StoreError: a cohort of the plan is in the store with other runs, or the disk refuses.
    """
    paths = existing(path)
    _check_names(plan)
    with store_errors("extend the store", paths.root), hold(paths.extend_lock) as owned:
        if not owned:
            msg = f"another process is extending {paths.root}; wait for it and run again"
            raise StoreBusyError(msg)
        old = read_plan(path)
        new = _new_cohorts(old, plan, paths.root)
        if not new:
            return
        whole = Plan(
            old.name, old.axes, old.record, {**plan.data, **old.data}, (*old.cohorts, *new)
        )
        shutil.rmtree(paths.staging, ignore_errors=True)
        for cohort in new:
            write_group(paths.staging / cohort.id, whole, cohort)
        fsync_tree(paths.staging)
        for cohort in new:
            # An orphan of a killed extension: no plan has it, so nobody has written to it.
            shutil.rmtree(paths.group(cohort.id), ignore_errors=True)
            (paths.staging / cohort.id).replace(paths.group(cohort.id))
        fsync_folder(paths.root)
        metadata = metadata_bytes(refreshed_root(paths, whole))
        write_atomic(paths.metadata, metadata, staging=paths.records)
        part = len(list(paths.parts()))
        if sweep_toml is not None:
            write_atomic(paths.sweep(part), sweep_toml.encode())
        added = Plan(plan.name, plan.axes, plan.record, plan.data, new)
        write_atomic(paths.plan(part), record_bytes("plan", {"plan": added.to_json()}))
        paths.staging.rmdir()


def _new_cohorts(old: Plan, plan: Plan, root: Path) -> tuple[Cohort, ...]:
    known = {cohort.id: cohort for cohort in old.cohorts}
    clashes = [
        cohort.id
        for cohort in plan.cohorts
        if cohort.id in known
        and (
            cohort.run_ids != known[cohort.id].run_ids
            or cohort.layout != known[cohort.id].layout
            or cohort.steps.tolist() != known[cohort.id].steps.tolist()
        )
    ]
    if plan.record != old.record:
        clashes.append("the checkpoint plan")
    if clashes:
        msg = (
            f"cannot extend {root}: {', '.join(clashes)} would change; plan with the store's own"
            " plan as the base, or choose another path"
        )
        raise StoreError(msg)
    return tuple(cohort for cohort in plan.cohorts if cohort.id not in known)


def read_plan(path: str | PathLike[str]) -> Plan:
    """Return the plan of a store, with everything that extensions added.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: the plan does not match its checksum.
    """
    paths = existing(path)
    parts = [_plan_part(paths.plan(part)) for part in paths.parts()]
    first = parts[0]
    data: dict[str, Mapping[str, Any]] = {}
    for part in reversed(parts):
        data |= part.data
    cohorts = tuple(cohort for part in parts for cohort in part.cohorts)
    return Plan(first.name, first.axes, first.record, data, cohorts)


def _plan_part(path: Path) -> Plan:
    body = read_record(path, "plan")
    try:
        return Plan.from_json(body["plan"])
    except (KeyError, TypeError) as error:
        msg = f"{path} is not a plan: {error!r}"
        raise StoreCorruptError(msg) from error


def read_sweep(path: str | PathLike[str]) -> str:
    """Return the text of the newest sweep file of a store.

    Raises:
        StoreMissingError: no store is there.
    """
    paths = existing(path)
    there = [part for part in paths.parts() if paths.sweep(part).exists()]
    return read_bytes(paths.sweep(there[-1] if there else 0)).decode()


def read_provenance(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what was said about the making of a store when it was created.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: the record does not match its checksum.
    """
    record = read_record(existing(path).provenance, "provenance")
    return {**record["provenance"], "created_by": record["created_by"]}
