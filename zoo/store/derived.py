"""Derived arrays: what stages add to a store after training, beside the weights and never in them.

A *derived column* is an array of a cohort's group that starts with the model axis; for arrays with
axes of their own see :mod:`zoo.store.tables`. It is plain Zarr: chunks, the group's metadata, and
last the record with which it exists.
"""

from __future__ import annotations

import itertools
import math
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreBusyError, StoreCorruptError, StoreError, UnknownNameError
from zoo.store.added import FORM, Derived, ends, read_array, read_derived_record, with_derived
from zoo.store.chunks import encode_chunk
from zoo.store.create import existing, read_plan
from zoo.store.files import STRAY_SUFFIX, store_errors, write_atomic
from zoo.store.groups import metadata_bytes
from zoo.store.locks import hold, hold_patiently
from zoo.store.paths import StorePaths, chunk_file
from zoo.store.schema import ArraySpec, array_names
from zoo.train.plan import Cohort, Plan

__all__ = [
    "DerivedColumn",
    "alone",
    "array_form",
    "chunks_of",
    "clear_staged",
    "derived_columns",
    "problems_of",
    "publish",
    "read_derived",
    "read_published",
    "unknown",
    "withdraw",
]

#: Names that mean something else in a query.
_RESERVED = frozenset(
    ("cohort", "row", "params", "wall_s", "checkpoint", "from_end", "load", "temperature", "tables")
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_DTYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "bool")
#: Bytes of a chunk; a column is cut along its first axis.
_CHUNK_BYTES = 16 << 20
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class DerivedColumn:
    """One array that a stage adds to a cohort.

    Args:
        cohort: id of the cohort.
        name: of the array; letters, digits and underscores.
        dims: names of its axes: ``("model",)``, ``("model", "checkpoint")``, or these followed by
            others. With the first two it is a column that can be asked for in queries.
        values: ``[M]``, ``[M, K]`` or ``[M, K, ...]``.
        doc: one line, with the unit.
        attributes: further JSON-ready facts, kept with the array.
    """

    cohort: str
    name: str
    dims: tuple[str, ...]
    values: NDArray[Any]
    doc: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


def array_form(
    name: str, dims: tuple[str, ...], values: NDArray[Any], doc: str
) -> tuple[ArraySpec, NDArray[Any]]:
    """Return the form of an array, and its values in that form."""
    values = np.asarray(values)
    text = values.dtype.kind in "UT"
    dtype = "string" if text else values.dtype.newbyteorder("=").name
    itemsize = 16 if text else values.dtype.itemsize
    fill: Any = {"U": "", "T": "", "f": math.nan, "b": False, "u": 0}.get(values.dtype.kind, -1)
    rows = max(1, _CHUNK_BYTES // max(1, itemsize * math.prod(values.shape[1:])))
    chunk = tuple(max(1, n) for n in (min(values.shape[0], rows), *values.shape[1:]))
    return ArraySpec(name, "derived", values.shape, dims, dtype, chunk, fill, doc), values


def chunks_of(spec: ArraySpec, values: NDArray[Any]) -> Iterator[tuple[int, bytes]]:
    """Yield the number along the first axis and the content of each chunk."""
    size = spec.chunk[0]
    for index in range(math.ceil(values.shape[0] / size)):
        part = values[index * size : (index + 1) * size]
        if len(part) < size:
            padded = np.full(spec.chunk, spec.fill, dtype=values.dtype)
            padded[: len(part)] = part
            part = padded
        yield index, encode_chunk(part, dtype=spec.dtype)


def problems_of(name: str, dims: tuple[str, ...], values: NDArray[Any]) -> Iterator[str]:
    """Yield why an array cannot be stored."""
    values = np.asarray(values)
    if values.dtype.kind not in "UT" and values.dtype.newbyteorder("=").name not in _DTYPES:
        yield f"{name}: cannot store {values.dtype}; allowed: text, {', '.join(_DTYPES)}"
    if values.ndim != len(dims) or not values.ndim:
        yield f"{name}: {values.ndim} axes of values with {len(dims)} names {dims}; at least one"


def _check(known: Mapping[str, Cohort], columns: Sequence[DerivedColumn]) -> None:
    """Refuse what cannot be stored; every problem at once.

    Raises:
        StoreError: there is any.
    """
    found: list[str] = []
    taken = {name: array_names(known[name]) for name in {c.cohort for c in columns} & known.keys()}
    seen: set[tuple[str, str]] = set()
    for column in columns:
        name = column.name
        if (column.cohort, name) in seen:
            found.append(f"{name}: given twice for cohort {column.cohort}")
        seen.add((column.cohort, name))
        if not _NAME.fullmatch(name):
            found.append(f"{name!r}: not a name; allowed: letters, digits and underscores")
        found += problems_of(name, column.dims, column.values)
        if column.cohort not in known:
            found.append(f"{name}: no cohort {column.cohort!r} in the plan")
            continue
        cohort = known[column.cohort]
        if name in _RESERVED or name in taken[cohort.id]:
            found.append(f"{name}: the name belongs to the training; choose another")
        sizes = {"model": cohort.models, "checkpoint": cohort.checkpoints}
        if column.dims[:1] != ("model",):
            found.append(f"{name}: dims {column.dims}; the first must be 'model'")
        for dim, size in zip(column.dims, np.shape(column.values), strict=False):
            if dim in sizes and sizes[dim] != size:
                found.append(f"{name}: {size} along {dim!r}, the cohort has {sizes[dim]}")
    if found:
        msg = "cannot publish: " + "; ".join(dict.fromkeys(found))
        raise StoreError(msg)


@contextmanager
def alone(paths: StorePaths) -> Iterator[None]:
    """Be the only one who changes groups' metadata or names something, for the block.

    What others staged and did not finish when they were killed is removed first.

    Raises:
        StoreBusyError: another process does so, and does not end.
    """
    with hold_patiently(paths.extend_lock, patience_s=_PATIENCE_S) as owned:
        if not owned:
            msg = (
                f"another process has been changing {paths.root} for {_PATIENCE_S:.0f} s; wait"
                " for it and run again"
            )
            raise StoreBusyError(msg)
        remove_staged(paths)
        yield


def clear_staged(path: str | PathLike[str]) -> None:
    """Remove what killed extensions and publications left, unless somebody is at work on the store.

    Raises:
        StoreMissingError: no store is there.
        StoreError: the lock file cannot be written.
    """
    paths = existing(path)
    if any(stray.exists() for stray in _staged(paths)):
        with hold(paths.extend_lock) as owned:
            if owned:
                remove_staged(paths)


def _staged(paths: StorePaths) -> Iterator[Path]:
    yield paths.staging
    yield from paths.records.glob(f"*{STRAY_SUFFIX}")


def remove_staged(paths: StorePaths) -> None:
    """Remove the unfinished files and folders right below the records; who holds the lock may."""
    for stray in list(_staged(paths)):
        if stray.is_dir():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            with suppress(OSError):
                stray.unlink()


def publish(
    path: str | PathLike[str],
    columns: Iterable[DerivedColumn],
    *,
    stage: str,
    stage_id: str,
) -> None:
    """Add arrays to the cohorts of a store, or replace those of the same name.

    Values are replaced chunk by chunk, each by a rename, where form and type stay; otherwise the
    array is replaced. No weight, metric or outcome is touched. A kill leaves the old or the new
    array, and publishing again mends the rest.

    Call it once for all cohorts: it reads the whole plan. Columns that are too much for memory can
    come from an iterator, cohort after cohort; those of one cohort are checked before the first of
    them is written.

    Args:
        path: the store.
        columns: the arrays; those of a sequence are all checked before anything is written.
        stage: what made them, kept with each (``"landscape"``).
        stage_id: id of its settings, kept with each.

    Raises:
        StoreMissingError: no store is there.
        StoreError: a name, type or shape that cannot be; all of them at once. Or the disk refuses.
        StoreBusyError: another process changes the store's metadata and does not end.
    """
    paths = existing(path)
    plan = read_plan(path)
    known = {cohort.id: cohort for cohort in plan.cohorts}
    if isinstance(columns, Sequence):
        _check(known, columns)
        columns = sorted(columns, key=lambda column: column.cohort)
    stamp = {"stage": stage, "stage-id": stage_id}
    for name, group in itertools.groupby(columns, key=lambda column: column.cohort):
        together = tuple(group)
        _check(known, together)
        with store_errors("publish in", paths.root), alone(paths):
            facts = {**stamp, "rows": known[name].rows_hash()}
            _publish(paths, plan, known[name], together, facts)


def _publish(
    paths: StorePaths,
    plan: Plan,
    cohort: Cohort,
    columns: Sequence[DerivedColumn],
    facts: Mapping[str, Any],
) -> None:
    """Write columns of one cohort, then the group's metadata, then the record of them.

    Before the first chunk the record says which names are on their way. An array of another form
    is taken away by then, so that nobody reads new chunks in the old form.
    """
    record = paths.derived(cohort.id)
    paths.check_inside(paths.group(cohort.id), record)
    before = read_derived_record(paths, cohort)
    members = before.members
    new: dict[str, dict[str, Any]] = {}
    forms = {}
    for column in columns:
        spec, values = array_form(column.name, column.dims, column.values, column.doc)
        metadata = spec.metadata()
        metadata["attributes"] |= {**column.attributes, **facts}
        new[column.name], forms[column.name] = metadata, (spec, values)
    kept = {
        name: member
        for name, member in members.items()
        if name not in new or all(member[key] == new[name][key] for key in FORM)
    }
    pending = tuple(new.keys() - kept.keys())
    checks = {n: [[ends(data)] for _, data in chunks_of(*form)] for n, form in forms.items()}
    both = dict(before.checks)  # of the names that stay, old and new chunks may be there meanwhile
    for name in before.checks.keys() & checks.keys() & kept.keys():
        pairs = zip(before.checks[name], checks[name], strict=True)
        both[name] = [list(dict.fromkeys((*old, *now))) for old, now in pairs]
    _replace(paths, record, Derived(kept, pending, both).to_bytes(cohort.id))
    if len(kept) < len(members):
        _write_group(paths, plan, cohort, kept)
    for name, (spec, values) in forms.items():
        folder = paths.group(cohort.id) / name
        paths.check_inside(folder)
        if name in pending and folder.exists():
            away = paths.records / f"{name}.{uuid.uuid4().hex}{STRAY_SUFFIX}"
            folder.replace(away)
            shutil.rmtree(away, ignore_errors=True)
        for index, data in chunks_of(spec, values):
            _replace(paths, folder / chunk_file(index, values.ndim), data)
    _write_group(paths, plan, cohort, kept | new)
    now = Derived(kept | new, checks={**before.checks, **checks})
    _replace(paths, record, now.to_bytes(cohort.id))


def withdraw(paths: StorePaths, plan: Plan, cohort: Cohort, names: Iterable[str]) -> None:
    """Take arrays that a stage added away again, and what a killed writer left.

    The caller is the only one who changes metadata; see :func:`alone`.

    Args:
        paths: the store.
        plan: its plan.
        cohort: the cohort.
        names: of arrays that are damaged.
    """
    before, gone = read_derived_record(paths, cohort), set(names)
    gone |= set(before.pending)
    if not gone:
        return
    kept = {name: member for name, member in before.members.items() if name not in gone}
    record, group = paths.derived(cohort.id), paths.group(cohort.id)
    paths.check_inside(group, record, *(group / name for name in gone))
    _replace(paths, record, Derived(kept, tuple(gone), before.checks).to_bytes(cohort.id))
    _write_group(paths, plan, cohort, kept)
    for name in gone:
        shutil.rmtree(group / name, ignore_errors=True)
    _replace(paths, record, Derived(kept, (), before.checks).to_bytes(cohort.id))


def _write_group(paths: StorePaths, plan: Plan, cohort: Cohort, members: Mapping[str, Any]) -> None:
    metadata = metadata_bytes(with_derived(paths, plan, cohort, members))
    _replace(paths, paths.group(cohort.id) / "zarr.json", metadata)


def _replace(paths: StorePaths, file: Path, data: bytes) -> None:
    """Write a file unless it is there with the same content."""
    if not (file.exists() and file.read_bytes() == data):
        write_atomic(file, data, staging=paths.records)


def unknown(name: str, known: tuple[str, ...]) -> UnknownNameError:
    """Return the error of a name that is not there, with the names that are."""
    listed = ", ".join(known) if known else "none yet"
    return UnknownNameError(f"{name!r} is not there; there are: {listed}")


def derived_columns(path: str | PathLike[str], cohort: str | Cohort) -> dict[str, dict[str, Any]]:
    """Return the Zarr metadata of each derived array of a cohort, by name.

    Args:
        path: the store.
        cohort: the cohort, or its id; then the whole plan is read.

    Raises:
        StoreMissingError: no store is there.
        UnknownNameError: it has no such cohort.
        StoreCorruptError: the record of them is damaged.
    """
    members = read_derived_record(existing(path), _planned(path, cohort)).members
    return {name: dict(member) for name, member in members.items()}


def read_derived(path: str | PathLike[str], cohort: str | Cohort, name: str) -> NDArray[Any]:
    """Return the values of a derived array.

    Args:
        path: the store.
        cohort: the cohort, or its id; then the whole plan is read.
        name: of the array.

    Raises:
        StoreMissingError: no store is there.
        UnknownNameError: there is no such cohort, or it has no such array.
        StoreCorruptError: it does not match its checksum.
    """
    return read_published(existing(path), _planned(path, cohort), name)


def _planned(path: str | PathLike[str], cohort: str | Cohort) -> Cohort:
    return read_plan(path).cohort(cohort) if isinstance(cohort, str) else cohort


def read_published(paths: StorePaths, cohort: Cohort, name: str) -> NDArray[Any]:
    """Return the values of a derived array, also while it is published again.

    Raises:
        UnknownNameError: the cohort has no such array.
        StoreCorruptError: it does not match its checksum.
    """
    record = read_derived_record(paths, cohort)
    while True:
        if name not in record.members:
            raise unknown(name, tuple(record.members))
        try:
            folder = paths.group(cohort.id) / name
            return read_array(folder, record.members[name], record.checks.get(name))
        except StoreCorruptError:
            before, record = record, read_derived_record(paths, cohort)
            if record == before:
                raise
