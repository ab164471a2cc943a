"""Derived tables: groups ``tables/<name>`` of arrays with axes of their own, never changed.

A table exists with the rename of its folder.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from zoo.errors import StoreError
from zoo.store.added import find_added, read_array, refreshed_root
from zoo.store.create import existing, read_plan
from zoo.store.derived import alone, array_form, chunks_of, problems_of, unknown
from zoo.store.files import STRAY_SUFFIX, fsync_folder, fsync_tree, store_errors, write_atomic
from zoo.store.groups import metadata_bytes
from zoo.store.schema import FORMAT_VERSION, ArraySpec

__all__ = ["TableColumn", "newest_table", "publish_table", "read_table", "table_names"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, eq=False)
class TableColumn:
    """One array of a derived table.

    Args:
        dims: names of its axes.
        values: numbers, truth values or text.
        doc: one line, with the unit.
    """

    dims: tuple[str, ...]
    values: NDArray[Any]
    doc: str


def publish_table(
    path: str | PathLike[str],
    name: str,
    columns: Mapping[str, TableColumn],
    attributes: Mapping[str, Any],
) -> None:
    """Add a table, a group of arrays; whole or not at all, and never changed.

    Doing the same again does nothing.

    Args:
        path: the store.
        name: of the table; with a version where there may be others (``"phases-v2"``).
        columns: its arrays.
        attributes: JSON-ready: what it was made from, with which settings.

    Raises:
        StoreMissingError: no store is there.
        StoreError: another table has the name, a name or type that cannot be, or the disk refuses.
        StoreBusyError: another process changes the store's metadata and does not end.
    """
    paths = existing(path)
    found = [p for key, c in columns.items() for p in problems_of(key, c.dims, c.values)]
    found += [f"{key!r}: not a name" for key in columns if not _NAME.fullmatch(key)]
    if not _TABLE_NAME.fullmatch(name):
        found.append(f"table {name!r}: allowed are letters, digits, dot, hyphen and underscore")
    if found:
        msg = "cannot publish: " + "; ".join(found)
        raise StoreError(msg)
    forms = {key: array_form(key, c.dims, c.values, c.doc) for key, c in columns.items()}
    head = {"encoding-type": "phasezoo-table", "encoding-version": FORMAT_VERSION}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {**attributes, **head}}
    target = paths.tables / name
    with store_errors("publish in", paths.root), alone(paths):
        if target.exists():
            _check_same_table(target, group, forms)
        else:
            staged = paths.records / f"table.{uuid.uuid4().hex}{STRAY_SUFFIX}"
            try:
                _write_table(staged, group, forms)
                paths.tables.mkdir(exist_ok=True)
                staged.replace(target)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
            fsync_folder(paths.tables)
        tables = {"encoding-type": "phasezoo-tables", "encoding-version": FORMAT_VERSION}
        parent = {"zarr_format": 3, "node_type": "group", "attributes": tables}
        write_atomic(paths.tables / "zarr.json", metadata_bytes(parent), staging=paths.records)
        root = refreshed_root(paths, read_plan(path))
        write_atomic(paths.metadata, metadata_bytes(root), staging=paths.records)


def _write_table(
    folder: Path,
    group: Mapping[str, Any],
    forms: Mapping[str, tuple[ArraySpec, NDArray[Any]]],
) -> None:
    folder.mkdir()
    for key, (spec, values) in forms.items():
        for index, data in chunks_of(spec, values):
            chunk = folder.joinpath(key, "c", str(index), *["0"] * (values.ndim - 1))
            chunk.parent.mkdir(parents=True, exist_ok=True)
            chunk.write_bytes(data)
        (folder / key).mkdir(exist_ok=True)
        (folder / key / "zarr.json").write_bytes(metadata_bytes(spec.metadata()))
    (folder / "zarr.json").write_bytes(metadata_bytes(group))
    fsync_tree(folder)


def _check_same_table(
    folder: Path, group: Mapping[str, Any], forms: Mapping[str, tuple[ArraySpec, NDArray[Any]]]
) -> None:
    wanted = {"zarr.json": metadata_bytes(group)}
    for key, (spec, values) in forms.items():
        wanted[f"{key}/zarr.json"] = metadata_bytes(spec.metadata())
        for index, data in chunks_of(spec, values):
            wanted["/".join([key, "c", str(index), *["0"] * (values.ndim - 1)])] = data
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    if there.keys() != wanted.keys() or any(
        there[name].read_bytes() != data for name, data in wanted.items()
    ):
        msg = (
            f"table {folder.name!r} is there with other content, and tables are never changed;"
            " choose another name"
        )
        raise StoreError(msg)


def table_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """Return the names of the derived tables of a store, sorted.

    Raises:
        StoreMissingError: no store is there.
    """
    folder = existing(path).tables
    return tuple(sorted(p.parent.name for p in folder.glob("*/zarr.json")))


def newest_table(path: str | PathLike[str], prefix: str) -> str | None:
    """Return the name ``<prefix>-v<N>`` of the highest N that is there, or None.

    Raises:
        StoreMissingError: no store is there.
    """
    pattern = re.compile(rf"{re.escape(prefix)}-v([0-9]+)")
    found = [(int(m[1]), m[0]) for m in map(pattern.fullmatch, table_names(path)) if m]
    return max(found)[1] if found else None


def read_table(
    path: str | PathLike[str], name: str
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays of a derived table and its attributes.

    Raises:
        StoreMissingError: no store is there.
        UnknownNameError: there is no such table.
        StoreCorruptError: an array does not match its checksum.
    """
    known = table_names(path)
    if name not in known:
        raise unknown(name, known)
    folder = existing(path).tables / name
    arrays = {}
    for file in sorted(folder.glob("*/zarr.json")):
        metadata = find_added(file.parent)
        if metadata is not None:
            arrays[file.parent.name] = read_array(file.parent, metadata)
    group = find_added(folder, kind="phasezoo-table")
    return arrays, {} if group is None else dict(group["attributes"])
