"""Creating and extending a store: whole or not at all, without touching what is there."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.errors import StoreBusyError, StoreCorruptError, StoreError, StoreMissingError
from zoo.paths import absolute, is_clutter, unpack_advice
from zoo.store.files import (
    STRAY_SUFFIX,
    checksum,
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
from zoo.store.half_made import keep_alive, remove_dead_siblings
from zoo.store.locks import hold_patiently
from zoo.store.paths import StorePaths, is_name
from zoo.store.records import read_record, record_bytes
from zoo.store.schema import FORMAT_VERSION
from zoo.train.plan import Cohort, Plan

__all__ = [
    "create_store",
    "existing",
    "extend_store",
    "is_store",
    "plan_record",
    "read_plan",
    "read_provenance",
    "read_sweep_text",
    "sweep_bytes",
    "sweep_texts",
]


def is_store(path: str | PathLike[str]) -> bool:
    """Return whether a phasezoo store is at ``path``."""
    paths = StorePaths(Path(path))
    return paths.plan().is_file() or paths.plan_copy().is_file()


def existing(path: str | PathLike[str]) -> StorePaths:
    """Return the paths of a store.

    Raises:
        StoreMissingError: there is none.
    """
    if not is_store(path):
        msg = unpack_advice(path) or (
            f"{path} is not a phasezoo store; `zoo run SWEEP --out {path}` makes one"
        )
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
    target = absolute(path)
    _check_names(plan)
    if target.exists() and not (target.is_dir() and all(map(is_clutter, target.iterdir()))):
        what = "a store" if is_store(target) else "something else"
        msg = f"cannot create a store at {target}: {what} is there; choose another path"
        raise StoreError(msg)
    target = target.resolve()
    with store_errors("create the store", target):
        ensure_folder(target.parent)
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}{STRAY_SUFFIX}"
        try:
            with keep_alive(temporary):
                remove_dead_siblings(target)
                _write_store(StorePaths(temporary), plan, sweep_toml, provenance)
                fsync_tree(temporary)
                for left in filter(is_clutter, target.glob("*")):  # in an empty folder
                    left.unlink()
                temporary.replace(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_folder(target.parent)


def _check_names(plan: Plan) -> None:
    names = [cohort.id for cohort in plan.cohorts]
    bad = [name for name in names if not is_name(name) or names.count(name) > 1]
    if bad or not names:
        msg = (
            f"the plan's cohorts cannot be stored: {sorted(set(bad)) or 'there are none'}; allowed:"
            " different names of letters, digits, dot, hyphen and underscore"
        )
        raise StoreError(msg)


def _write_store(
    paths: StorePaths, plan: Plan, sweep_toml: str, provenance: Mapping[str, Any]
) -> None:
    creator = version()
    for cohort in plan.cohorts:
        write_group(paths.group(cohort.id), plan, cohort)
    paths.metadata.write_bytes(metadata_bytes(root_metadata(plan, creator)))
    (paths.records / "zarr.json").write_bytes(metadata_bytes(scalar_metadata()))
    paths.sweep().write_bytes(sweep_bytes(sweep_toml, 0))
    facts = {"created_by": creator, "provenance": dict(provenance)}
    paths.provenance.write_bytes(record_bytes("provenance", facts))
    data = _plan_bytes(plan, 0, sweep_toml, facts)
    paths.plan_copy().write_bytes(data)
    paths.plan().write_bytes(data)


def _plan_bytes(
    plan: Plan, part: int, sweep_toml: str | None, provenance: Mapping[str, Any] | None = None
) -> bytes:
    """Return a part of the plan, with what the files beside it say: they can be made again."""
    body: dict[str, Any] = {"format": FORMAT_VERSION, "part": part, "plan": plan.to_json()}
    if sweep_toml is not None:
        body["sweep"] = sweep_toml
    if provenance is not None:
        body["provenance"] = provenance
    return record_bytes("plan", body)


def extend_store(path: str | PathLike[str], plan: Plan, *, sweep_toml: str | None = None) -> None:
    """Add the cohorts of ``plan`` that the store lacks; nothing else that is there changes.

    New groups are renamed into place, then the new part of the plan is written: only with it do
    the new cohorts exist. Doing it again does nothing.

    Args:
        path: the store.
        plan: a plan that has every cohort of the store, and perhaps more.
        sweep_toml: the text of the new sweep file, kept beside the old one.

    Raises:
        StoreMissingError: no store is there.
        StoreBusyError: another process is extending it, or has since ``plan`` was made.
        StoreError: a cohort of the plan is in the store with other runs, or the disk refuses.
    """
    paths = existing(path)
    _check_names(plan)
    with store_errors("extend the store", paths.root), hold_patiently(paths.extend_lock) as owned:
        if not owned:
            msg = f"another process is extending {paths.root}; wait for it and run again"
            raise StoreBusyError(msg)
        shutil.rmtree(paths.staging, ignore_errors=True)  # of one that was killed
        old = read_plan(path)
        _check_base(old, plan, paths.root)
        new = _new_cohorts(old, plan, paths.root)
        if not new:
            return
        whole = replace(old, data={**plan.data, **old.data}, cohorts=(*old.cohorts, *new))
        for cohort in new:
            write_group(paths.staging / cohort.id, whole, cohort)
        fsync_tree(paths.staging)
        for cohort in new:
            # An orphan of a killed extension: no plan has it, so nobody has written to it.
            if paths.group(cohort.id).exists():
                paths.group(cohort.id).replace(paths.staging / f"{cohort.id}{STRAY_SUFFIX}")
            (paths.staging / cohort.id).replace(paths.group(cohort.id))
        fsync_folder(paths.root)
        part = len(list(paths.parts()))
        if sweep_toml is not None:
            write_atomic(paths.sweep(part), sweep_bytes(sweep_toml, part))
        data = _plan_bytes(replace(plan, cohorts=new), part, sweep_toml)
        write_atomic(paths.plan(part), data)
        write_atomic(paths.plan_copy(part), data)
        shutil.rmtree(paths.staging, ignore_errors=True)


def _check_base(old: Plan, plan: Plan, root: Path) -> None:
    """Refuse a plan that was made before another extension: both may have planned the same runs.

    Raises:
        StoreBusyError: the plan lacks cohorts of the store.
    """
    planned = {cohort.id for cohort in plan.cohorts}
    if any(cohort.id not in planned for cohort in old.cohorts):
        msg = f"another process has extended {root} since this extension was planned; run again"
        raise StoreBusyError(msg)


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
        StoreError: the store has another format than this phasezoo reads.
    """
    paths = existing(path)
    parts = [_plan_part(paths, part) for part in paths.parts()]
    first = parts[0]
    data: dict[str, Mapping[str, Any]] = {}
    for part in reversed(parts):
        data |= part.data
    plan = replace(
        first,
        data=data,
        cohorts=tuple(cohort for part in parts for cohort in part.cohorts),
        paths={name: place for part in parts for name, place in part.paths.items()},
        options=parts[-1].options,
    )
    try:
        _check_names(plan)
    except StoreError as error:
        msg = f"{paths.plan()} cannot be used: {error}"
        raise StoreCorruptError(msg) from None
    return plan


def plan_record(paths: StorePaths, part: int) -> dict[str, Any]:
    """Return the record of a part of the plan, from its copy where the file itself is damaged.

    Raises:
        StoreCorruptError: neither of the two is whole.
    """
    try:
        return _plan_record(paths.plan(part), part)
    except StoreCorruptError as error:
        with contextlib.suppress(StoreError):
            return _plan_record(paths.plan_copy(part), part)
        raise error from None


def _plan_record(path: Path, part: int) -> dict[str, Any]:
    body = read_record(path, "plan")
    if body.get("part", part) != part:
        msg = f"{path} is part {body['part']!r} of the plan, not part {part}"
        raise StoreCorruptError(msg)
    for key, kind in (("sweep", str), ("provenance", dict)):
        if not isinstance(body.get(key, kind()), kind):
            msg = f"{path} is not a plan: its {key} is none"
            raise StoreCorruptError(msg)
    return body


def _plan_part(paths: StorePaths, part: int) -> Plan:
    path, body = paths.plan(part), plan_record(paths, part)
    found = body.get("format", 1)
    if found != FORMAT_VERSION:
        later = isinstance(found, int) and found > FORMAT_VERSION
        advice = "update phasezoo" if later else (
            "read it with the phasezoo that made it, or run its sweep again into a new store"
        )  # fmt: skip
        msg = (
            f"{path.parent.parent} is a store of format {found}, and this phasezoo"
            f" ({version()}) reads format {FORMAT_VERSION}: {advice}"
        )
        raise StoreError(msg)
    try:
        return Plan.from_json(body["plan"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        msg = f"{path} is not a plan: {error!r}"
        raise StoreCorruptError(msg) from error


def read_sweep_text(path: str | PathLike[str]) -> str:
    """Return the text of the newest sweep of a store.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: it is not readable, or there is none.
    """
    paths = existing(path)
    found = sweep_texts(paths)
    if not found:
        msg = f"{paths.sweep()} is missing; restore it from a copy"
        raise StoreCorruptError(msg)
    return found[-1]


def sweep_texts(paths: StorePaths) -> list[str]:
    """Return the text of each sweep of a store, the oldest first.

    A damaged one is taken from the plan, which has them all.

    Raises:
        StoreCorruptError: one is not readable, and not in the plan.
    """
    return [text for part in paths.parts() if (text := _sweep_text(paths, part)) is not None]


def _sweep_text(paths: StorePaths, part: int) -> str | None:
    data = b""
    with contextlib.suppress(StoreCorruptError):
        data = read_bytes(paths.sweep(part))
    body = data.rstrip(b"\n").rpartition(b"\n")[0]
    if data and data == sweep_bytes(text := (body + b"\n").decode(errors="replace"), part):
        return text
    record = plan_record(paths, part)
    if "part" in record:
        return record.get("sweep")
    try:  # of a store whose plan does not have it
        return data.decode() if data else None
    except UnicodeDecodeError as error:
        msg = f"{paths.sweep(part)} is damaged ({error}); restore it from a copy"
        raise StoreCorruptError(msg) from None


def sweep_bytes(text: str, part: int) -> bytes:
    """Return the content of a sweep file: its text, and a comment with the checksum of it."""
    data = text.encode()
    data += b"" if data.endswith(b"\n") else b"\n"
    return data + b"# part %d; crc32c of the lines above: %d\n" % (part, checksum(data))


def read_provenance(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what was said about the making of a store when it was created.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: the record does not match its checksum.
    """
    paths = existing(path)
    try:
        record = read_record(paths.provenance, "provenance")
    except StoreCorruptError:
        found = plan_record(paths, 0).get("provenance")
        if found is None:
            raise
        record = found
    try:
        return {**record["provenance"], "created_by": str(record["created_by"])}
    except (KeyError, TypeError) as error:
        msg = f"{paths.provenance} is not what a provenance is ({error!r}); run `zoo repair`"
        raise StoreCorruptError(msg) from None
