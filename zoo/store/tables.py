"""Derived tables: groups ``tables/<name>`` of arrays with axes of their own, never changed.

A table exists with the rename of its folder.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from zoo.errors import NameTakenError, StoreError
from zoo.paths import is_clutter
from zoo.store.added import (
    Table,
    array_chunks,
    ends,
    read_array,
    read_table_record,
    remake_advice,
    table_members,
)
from zoo.store.create import existing
from zoo.store.derived import alone, array_form, chunks_of, problems_of, unknown
from zoo.store.files import (
    STRAY_SUFFIX,
    fsync_folder,
    fsync_tree,
    read_bytes,
    store_errors,
    write_atomic,
)
from zoo.store.groups import inline, metadata_bytes
from zoo.store.paths import StorePaths, chunk_file, is_name
from zoo.store.schema import FORMAT_VERSION, ArraySpec

__all__ = [
    "TableColumn",
    "TableDamage",
    "newest_table",
    "publish_next",
    "publish_table",
    "read_table",
    "table_damage",
    "table_names",
    "withdraw_table",
]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


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
        NameTakenError: another table has the name.
        StoreError: a name or type that cannot be, or the disk refuses.
        StoreBusyError: another process changes the store's metadata and does not end.
    """
    paths = existing(path)
    found = [p for key, c in columns.items() for p in problems_of(key, c.dims, c.values)]
    found += [f"{key!r}: not a name" for key in columns if not _NAME.fullmatch(key)]
    if not is_name(name):
        found.append(f"table {name!r}: allowed are letters, digits, dot, hyphen and underscore")
    if found:
        msg = "cannot publish: " + "; ".join(found)
        raise StoreError(msg)
    forms = {key: array_form(key, c.dims, c.values, c.doc) for key, c in columns.items()}
    head = {"encoding-type": "phasezoo-table", "encoding-version": FORMAT_VERSION}
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {**attributes, **head},
        **inline({key: spec.metadata() for key, (spec, _) in forms.items()}),
    }
    target = paths.tables / name
    with store_errors("publish in", paths.root), alone(paths):
        if target.exists():
            _check_same_table(target, group, forms)
        else:
            paths.check_inside(target, paths.table_record(name))
            checks = {
                key: [[ends(data)] for _, data in chunks_of(*form)] for key, form in forms.items()
            }
            staged = paths.records / f"table.{uuid.uuid4().hex}{STRAY_SUFFIX}"
            try:
                _write_table(staged, group, forms)
                _write_parent(paths)
                record = Table(group, checks).to_bytes(name)
                write_atomic(paths.table_record(name), record, staging=paths.records)
                staged.replace(target)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
            fsync_folder(paths.tables)


def _write_parent(paths: StorePaths) -> None:
    """Write the metadata of the group of all tables, unless it is there."""
    file = paths.tables / "zarr.json"
    if _differs(file, _parent_bytes()):
        write_atomic(file, _parent_bytes(), staging=paths.records)


def _parent_bytes() -> bytes:
    attributes = {"encoding-type": "phasezoo-tables", "encoding-version": FORMAT_VERSION}
    return metadata_bytes({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _table_files(
    group: Mapping[str, Any], forms: Mapping[str, tuple[ArraySpec, NDArray[Any]]]
) -> Iterator[tuple[str, bytes]]:
    """Yield the path inside the table, and the content, of each of its files."""
    yield "zarr.json", metadata_bytes(group)
    for key, (spec, values) in forms.items():
        for index, data in chunks_of(spec, values):
            yield f"{key}/{chunk_file(index, values.ndim)}", data


def _write_table(
    folder: Path,
    group: Mapping[str, Any],
    forms: Mapping[str, tuple[ArraySpec, NDArray[Any]]],
) -> None:
    folder.mkdir()
    for name, data in _table_files(group, forms):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    fsync_tree(folder)


def _check_same_table(
    folder: Path, group: Mapping[str, Any], forms: Mapping[str, tuple[ArraySpec, NDArray[Any]]]
) -> None:
    wanted = dict(_table_files(group, forms))
    files = (p for p in folder.rglob("*") if p.is_file() and not is_clutter(p))
    there = {p.relative_to(folder).as_posix(): p for p in files}
    if there.keys() != wanted.keys() or any(
        there[name].read_bytes() != data for name, data in wanted.items()
    ):
        msg = (
            f"table {folder.name!r} is there with other content, and tables are never changed;"
            " choose another name"
        )
        raise NameTakenError(msg)


def publish_next(
    path: str | PathLike[str],
    stem: str,
    columns: Mapping[str, TableColumn],
    attributes: Mapping[str, Any],
    known: Callable[[], str | None],
) -> tuple[str, bool]:
    """Add a table ``<stem>-v<N>`` under the next free number, unless it is there already.

    Of several processes that do this at once, each gets a number of its own.

    Args:
        path: the store.
        stem: of the name.
        columns, attributes: as in :func:`publish_table`.
        known: returns the name of the table that has all this already, or None; asked again
            whenever another process has taken the number.

    Returns:
        The name, and whether this call made the table.

    Raises:
        StoreMissingError, StoreError, StoreBusyError: as :func:`publish_table`.
    """
    while True:
        name = known()
        if name is not None:
            return name, False
        # folders count, not only tables that can be read: their numbers are taken too
        folders = existing(path).tables.glob(f"{stem}-v*")
        name = f"{stem}-v{1 + max(_numbers(stem, (f.name for f in folders)), default=0)}"
        try:
            publish_table(path, name, columns, attributes)
        except NameTakenError:
            continue
        return name, True


def _numbers(stem: str, names: Iterable[str]) -> list[int]:
    """Return N of each name ``<stem>-v<N>``."""
    pattern = re.compile(rf"{re.escape(stem)}-v([0-9]+)")
    return [int(match[1]) for match in map(pattern.fullmatch, names) if match]


def table_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """Return the names of the derived tables of a store, sorted.

    Raises:
        StoreMissingError: no store is there.
    """
    paths = existing(path)
    there = {p.parent.name for p in paths.tables.glob("*/zarr.json")}
    there |= {p.stem for p in paths.table_record("*").parent.glob("*.json") if _has(paths, p.stem)}
    return tuple(sorted(filter(is_name, there)))


def _has(paths: StorePaths, name: str) -> bool:
    """Whether a table that has a record is there: its folder comes after the record."""
    return (paths.tables / name).is_dir()


@dataclass(frozen=True, slots=True)
class TableDamage:
    """A file of a derived table that is not as it was published.

    Args:
        table: name of the table; empty for the group of all tables.
        file: the file.
        what: what is wrong, a clause.
        advice: what mends it, a clause.
        data: its right content, where something else has it.
    """

    table: str
    file: Path
    what: str
    advice: str
    data: bytes | None


def table_damage(paths: StorePaths) -> Iterator[TableDamage]:
    """Yield what is wrong with the tables; the record and the metadata stand in for each other."""
    names = table_names(paths.root)
    if names and (parent := paths.tables / "zarr.json") and _differs(parent, _parent_bytes()):
        yield TableDamage("", parent, "is not as it was written", _ANEW, _parent_bytes())
    for name in names:
        yield from _damage_of(paths, name)


_ANEW = "`zoo repair` writes it anew"


def _damage_of(paths: StorePaths, name: str) -> Iterator[TableDamage]:
    folder, file = paths.tables / name, paths.table_record(name)
    inline_file = folder / "zarr.json"
    try:
        table = read_table_record(paths, name)
    except StoreError:
        yield from _bad_record(paths, name)
        return
    stage = {"attributes": {"stage": table.attributes.get("stage", _stage_of(name))}}
    if file.exists() and _differs(inline_file, metadata_bytes(table.group)):
        right = metadata_bytes(table.group)
        yield TableDamage(name, inline_file, "is not as it was published", _ANEW, right)
    elif not file.exists():
        yield TableDamage(name, file, "is missing", _ANEW, _made_record(paths, name))
    for key, member in table.members.items():
        try:
            read_array(folder / key, member, table.checks.get(key))
        except StoreError as error:
            what = str(error).partition("; ")[0].removeprefix(f"{folder / key}/")
            yield TableDamage(name, folder / key, what, remake_advice(stage), None)


def _bad_record(paths: StorePaths, name: str) -> Iterator[TableDamage]:
    data = _made_record(paths, name)
    advice = _ANEW if data else remake_advice({"attributes": {"stage": _stage_of(name)}})
    yield TableDamage(name, paths.table_record(name), "is damaged", advice, data)


def _stage_of(name: str) -> str:
    """Return the stage that makes tables of such names."""
    first = name.partition("-")[0]
    return {"scores": "scoring", "phases": "label"}.get(first, "landscape")


def _differs(file: Path, data: bytes) -> bool:
    return not (file.exists() and file.read_bytes() == data)


def _made_record(paths: StorePaths, name: str) -> bytes | None:
    """Return the record of a table as its metadata and chunks have it; None where they do not."""
    folder = paths.tables / name
    try:
        group = json.loads(read_bytes(folder / "zarr.json"))
        _, members = table_members(folder)
        checks = {}
        for key, member in members.items():
            read_array(folder / key, member)
            files = array_chunks(folder / key, member)
            checks[key] = [[ends(read_bytes(file))] for file in files]
    except (StoreError, ValueError, KeyError, TypeError):
        return None
    return Table(group, checks).to_bytes(name)


def withdraw_table(paths: StorePaths, name: str) -> None:
    """Take a table away; the caller is the only one who changes metadata."""
    record, folder = paths.table_record(name), paths.tables / name
    paths.check_inside(record, folder)
    if folder.exists():
        away = paths.records / f"table.{uuid.uuid4().hex}{STRAY_SUFFIX}"
        folder.replace(away)
        fsync_folder(paths.tables)
        shutil.rmtree(away, ignore_errors=True)
    if record.exists():
        record.unlink()
        fsync_folder(record.parent)


def newest_table(path: str | PathLike[str], prefix: str) -> str | None:
    """Return the name ``<prefix>-v<N>`` of the highest N that is there, or None.

    Raises:
        StoreMissingError: no store is there.
    """
    found = _numbers(prefix, table_names(path))
    return f"{prefix}-v{max(found)}" if found else None


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
    paths = existing(path)
    table, folder = read_table_record(paths, name), paths.tables / name
    arrays = {
        key: read_array(folder / key, member, table.checks.get(key))
        for key, member in sorted(table.members.items())
    }
    return arrays, table.attributes
