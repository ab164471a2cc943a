"""Derived arrays: what stages add to a store after training, beside the weights and never in them.

A *derived column* is an array of a cohort's group that starts with the model axis; for arrays with
axes of their own see :mod:`zoo.store.tables`. It is plain Zarr, and exists with the group's
metadata, which is replaced last.
"""

from __future__ import annotations

import math
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreBusyError, StoreError, UnknownNameError
from zoo.store.added import (
    derived_members,
    find_added,
    inline_metadata,
    read_array,
    refreshed_root,
)
from zoo.store.chunks import encode_chunk
from zoo.store.create import existing, read_plan
from zoo.store.files import STRAY_SUFFIX, store_errors, write_atomic
from zoo.store.groups import cohort_arrays, metadata_bytes
from zoo.store.locks import hold
from zoo.store.paths import StorePaths
from zoo.store.schema import ArraySpec
from zoo.train.plan import Plan

__all__ = [
    "DerivedColumn",
    "alone",
    "array_form",
    "chunks_of",
    "derived_columns",
    "problems_of",
    "publish",
    "read_derived",
    "unknown",
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


def _check(plan: Plan, columns: Sequence[DerivedColumn]) -> None:
    """Refuse what cannot be stored; every problem at once.

    Raises:
        StoreError: there is any.
    """
    found: list[str] = []
    known = {cohort.id: cohort for cohort in plan.cohorts}
    taken = {
        name: cohort_arrays(plan, known[name])
        for name in {column.cohort for column in columns} & known.keys()
    }
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
    """Be the only one who changes groups' metadata, for the block."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        with hold(paths.extend_lock) as owned:
            if owned:
                yield
                return
        if time.monotonic() > end:
            msg = (
                f"another process has been changing {paths.root} for {_PATIENCE_S:.0f} s; wait"
                " for it and run again"
            )
            raise StoreBusyError(msg)
        time.sleep(0.05)


def publish(
    path: str | PathLike[str],
    columns: Sequence[DerivedColumn],
    *,
    stage: str,
    stage_id: str,
) -> None:
    """Add arrays to the cohorts of a store, or replace those of the same name.

    Values are replaced chunk by chunk, each by a rename, where form and type stay; otherwise the
    array is replaced. No weight, metric or outcome is touched. A kill leaves the old or the new
    array, and publishing again mends the rest.

    Args:
        path: the store.
        columns: the arrays.
        stage: what made them, kept with each (``"landscape"``).
        stage_id: id of its settings, kept with each.

    Raises:
        StoreMissingError: no store is there.
        StoreError: a name, type or shape that cannot be; all of them at once. Or the disk refuses.
        StoreBusyError: another process changes the store's metadata and does not end.
    """
    paths = existing(path)
    plan = read_plan(path)
    _check(plan, columns)
    with store_errors("publish in", paths.root), alone(paths):
        for name in dict.fromkeys(column.cohort for column in columns):
            group = paths.group(name)
            members = derived_members(paths, name)
            for column in columns:
                if column.cohort == name:
                    facts = {**column.attributes, "stage": stage, "stage-id": stage_id}
                    members[column.name] = _write_column(paths, group, column, facts)
            metadata = inline_metadata(group / "zarr.json", members)
            write_atomic(group / "zarr.json", metadata_bytes(metadata), staging=paths.records)
        write_atomic(
            paths.metadata, metadata_bytes(refreshed_root(paths, plan)), staging=paths.records
        )


def _write_column(
    paths: StorePaths, group: Path, column: DerivedColumn, facts: Mapping[str, Any]
) -> dict[str, Any]:
    spec, values = array_form(column.name, column.dims, column.values, column.doc)
    metadata = spec.metadata()
    metadata["attributes"] |= facts
    folder = group / spec.name
    rest = ["0"] * (values.ndim - 1)
    if folder.exists() and not _same_form(folder, metadata):
        away = paths.records / f"{spec.name}.{uuid.uuid4().hex}{STRAY_SUFFIX}"
        folder.replace(away)
        shutil.rmtree(away, ignore_errors=True)
    for index, data in chunks_of(spec, values):
        target = folder.joinpath("c", str(index), *rest)
        if not (target.exists() and target.read_bytes() == data):
            write_atomic(target, data, staging=paths.records)
    write_atomic(folder / "zarr.json", metadata_bytes(metadata), staging=paths.records)
    return metadata


def _same_form(folder: Path, metadata: Mapping[str, Any]) -> bool:
    old = find_added(folder)
    keys = ("shape", "data_type", "chunk_grid", "codecs", "fill_value", "dimension_names")
    return old is not None and all(old[key] == metadata[key] for key in keys)


def unknown(name: str, known: tuple[str, ...]) -> UnknownNameError:
    """Return the error of a name that is not there, with the names that are."""
    listed = ", ".join(known) if known else "none yet"
    return UnknownNameError(f"{name!r} is not there; there are: {listed}")


def derived_columns(path: str | PathLike[str], cohort: str) -> dict[str, dict[str, Any]]:
    """Return the Zarr metadata of each derived array of a cohort, by name.

    Raises:
        StoreMissingError: no store is there.
    """
    return derived_members(existing(path), cohort)


def read_derived(path: str | PathLike[str], cohort: str, name: str) -> NDArray[Any]:
    """Return the values of a derived array.

    Raises:
        StoreMissingError: no store is there.
        UnknownNameError: the cohort has no such array.
        StoreCorruptError: it does not match its checksum.
    """
    members = derived_columns(path, cohort)
    if name not in members:
        raise unknown(name, tuple(members))
    return read_array(existing(path).group(cohort) / name, members[name])
