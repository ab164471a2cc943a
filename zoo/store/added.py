"""What is in a store besides the plan's arrays: finding it, reading it, and its metadata.

What stages added to a cohort is listed in a record, ``_zoo/derived/<cohort>.json``. The group's
``zarr.json`` has the same inline, for other programs; either can be made again from the other. The
record also names what is being added right now, which is how a kill is told from damage.
"""

from __future__ import annotations

import contextlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError, StoreError
from zoo.store.chunks import decode_numbers, decode_strings
from zoo.store.files import read_bytes
from zoo.store.groups import group_metadata, inline
from zoo.store.paths import StorePaths, chunk_file, is_name
from zoo.store.records import read_record, record_bytes
from zoo.train.plan import Cohort, Plan

__all__ = [
    "DERIVED",
    "FORM",
    "Checks",
    "Derived",
    "Table",
    "array_chunks",
    "ends",
    "has_rows_of",
    "inline_derived",
    "planned_part",
    "read_array",
    "read_derived_record",
    "read_table_record",
    "remake_advice",
    "table_members",
    "with_derived",
]

#: For each chunk of an array the checksums that it may end with.
Checks = Sequence[Sequence[int]]

#: Stage → what runs it.
_COMMANDS = {
    "scoring": "`zoo score` with the same options",
    "diet-metrics": "`zoo run`",
    "landscape": "`zoo landscape` with the same options",
    "label": "`zoo label` with the same options",
}

#: Encoding type of every array that a stage added.
DERIVED = "phasezoo-derived"
#: The parts of an array's metadata that say what its chunks are like.
FORM = ("shape", "data_type", "chunk_grid", "codecs", "fill_value", "dimension_names")


def _kind(metadata: Any) -> str:
    attributes = metadata.get("attributes", {}) if isinstance(metadata, dict) else {}
    return str(attributes.get("encoding-type", "")) if isinstance(attributes, dict) else ""


@dataclass(frozen=True, slots=True)
class Derived:
    """What stages added to a cohort.

    Args:
        members: Zarr metadata of each array, by name.
        pending: names of arrays that are being written, or were when their writer was killed.
        checks: for each array the checksums that each of its chunks may end with: one, or the old
            and the new one while it is replaced.
    """

    members: Mapping[str, Mapping[str, Any]]
    pending: tuple[str, ...] = ()
    checks: Mapping[str, Checks] = field(default_factory=dict)

    def to_bytes(self, cohort: str) -> bytes:
        """Return the content of the record."""
        ordered = {name: self.members[name] for name in sorted(self.members)}
        checks = {n: [list(c) for c in self.checks[n]] for n in ordered if n in self.checks}
        body = {
            "cohort": cohort,
            "members": ordered,
            "pending": sorted(self.pending),
            "checks": checks,
        }
        return record_bytes("derived", body)


def read_derived_record(paths: StorePaths, cohort: Cohort) -> Derived:
    """Return what stages added to a cohort.

    Raises:
        StoreCorruptError: the record of it is damaged, or of other runs than the cohort has.
    """
    file = paths.derived(cohort.id)
    if not file.exists():
        return Derived({})
    body = read_record(file, "derived")
    try:
        members, pending = dict(body["members"]), tuple(body["pending"])
        named = body["cohort"] == cohort.id and all(map(is_name, (*members, *pending)))
        found = Derived(members, pending, dict(body["checks"])) if named else None
    except (KeyError, TypeError, ValueError):
        found = None
    if found is None:
        msg = f"{file} is not the record of cohort {cohort.id}; run `zoo repair`"
        raise StoreCorruptError(msg)
    if not all(has_rows_of(cohort, member) for member in members.values()):
        msg = f"{file} is of other runs than the plan has in cohort {cohort.id}; run `zoo repair`"
        raise StoreCorruptError(msg)
    return found


def has_rows_of(cohort: Cohort, metadata: Any) -> bool:
    """Return whether a derived array was made of the runs that the plan has in a cohort."""
    attributes = metadata.get("attributes", {}) if isinstance(metadata, dict) else {}
    return isinstance(attributes, dict) and attributes.get("rows") == cohort.rows_hash()


def inline_derived(metadata: Any) -> dict[str, dict[str, Any]]:
    """Return the derived arrays that a group's metadata has inline, by name; none if it is odd."""
    try:
        members = metadata["consolidated_metadata"]["metadata"].items()
    except (KeyError, TypeError, AttributeError):
        return {}
    return {name: member for name, member in members if _kind(member) == DERIVED}


def planned_part(metadata: Any) -> Any:
    """Return a group's metadata without what stages added: what the plan alone decides."""
    try:
        members = metadata["consolidated_metadata"]["metadata"]
        kept = {name: m for name, m in members.items() if _kind(m) != DERIVED}
    except (KeyError, TypeError, AttributeError):
        return metadata
    return {**metadata, **inline(kept)}


def with_derived(
    paths: StorePaths,
    plan: Plan,
    cohort: Cohort,
    members: Mapping[str, Any],
    *,
    keep: bool = True,
) -> dict[str, Any]:
    """Return the metadata of a cohort's group with the derived arrays ``members``, and no others.

    Args:
        paths: the store.
        plan: its plan.
        cohort: the cohort.
        members: metadata of each derived array, by name.
        keep: whether what the plan decides stays word for word as it is on disk, if that can be
            read; otherwise it is made from the plan.
    """
    if keep:
        with contextlib.suppress(StoreError, ValueError, KeyError, TypeError):
            found = json.loads(read_bytes(paths.group(cohort.id) / "zarr.json"))
            planned = planned_part(found)["consolidated_metadata"]["metadata"]
            return {**found, **inline({**planned, **members})}
    found = group_metadata(plan, cohort)
    return {**found, **inline({**found["consolidated_metadata"]["metadata"], **members})}


def table_members(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the attributes of a table, and the metadata of its arrays by name.

    Raises:
        StoreCorruptError: the table's metadata is damaged.
    """
    file = folder / "zarr.json"
    try:
        metadata = json.loads(read_bytes(file))
        return _table_parts(metadata)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{file} is not the metadata of a table; run `zoo repair`"
        raise StoreCorruptError(msg) from error


def _table_parts(metadata: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    members = metadata["consolidated_metadata"]["metadata"]
    if not all(is_name(name) and isinstance(m, dict) for name, m in members.items()):
        raise ValueError(sorted(members))
    return dict(metadata["attributes"]), members


@dataclass(frozen=True, slots=True)
class Table:
    """A derived table.

    Args:
        group: content of its ``zarr.json``.
        checks: for each array the checksums that its chunks end with; none in a table of an
            earlier version.
    """

    group: Mapping[str, Any]
    checks: Mapping[str, Checks]

    @property
    def attributes(self) -> dict[str, Any]:
        """Its attributes."""
        return _table_parts(self.group)[0]

    @property
    def members(self) -> dict[str, dict[str, Any]]:
        """The metadata of each of its arrays, by name."""
        return _table_parts(self.group)[1]

    def to_bytes(self, name: str) -> bytes:
        """Return the content of the table's record."""
        checks = {key: [list(c) for c in found] for key, found in self.checks.items()}
        return record_bytes("table", {"table": name, "group": dict(self.group), "checks": checks})


def read_table_record(paths: StorePaths, name: str) -> Table:
    """Return what is known of a table, from its metadata where it has no record.

    Raises:
        StoreCorruptError: the record is damaged, or another table's.
    """
    file = paths.table_record(name)
    if not file.exists():
        attributes, members = table_members(paths.tables / name)
        return Table({"attributes": attributes, **inline(members)}, {})
    body = read_record(file, "table")
    try:
        found = Table(body["group"], body["checks"])
        _table_parts(found.group)
        if body["table"] == name:
            return found
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    msg = f"{file} is not the record of table {name}; run `zoo repair`"
    raise StoreCorruptError(msg)


def remake_advice(metadata: Mapping[str, Any]) -> str:
    """Return how a damaged array, or the table that it is in, is made again."""
    attributes = metadata.get("attributes", {})
    stage = str(attributes.get("stage", "")) if isinstance(attributes, dict) else ""
    command = _COMMANDS.get(stage)
    again = f"{command} makes it again" if command else "whatever made it can do so again"
    return f"`zoo repair` takes it away, and {again}"


def array_chunks(folder: Path, metadata: Mapping[str, Any]) -> list[Path]:
    """Return the chunk files of a derived array, along its first axis."""
    shape = metadata["shape"]
    size = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
    return [folder / chunk_file(i, len(shape)) for i in range(math.ceil(shape[0] / size))]


def ends(data: bytes) -> int:
    """Return the checksum that a chunk ends with."""
    return int.from_bytes(data[-4:], "little")


def read_array(
    folder: Path, metadata: Mapping[str, Any], checks: Checks | None = None
) -> NDArray[Any]:
    """Return the values of a derived array.

    Args:
        folder: of the array.
        metadata: of the array.
        checks: for each chunk the checksums that it may end with; None = any that is its own.

    Raises:
        StoreCorruptError: a chunk is missing, does not match its checksum, or is not the one that
            was published.
    """
    shape = tuple(metadata["shape"])
    chunk = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    dtype = metadata["data_type"]
    parts: list[NDArray[Any]] = []
    for number, file in enumerate(array_chunks(folder, metadata)):
        if not file.exists():
            msg = f"{file} is missing, though it was published; {remake_advice(metadata)}"
            raise StoreCorruptError(msg)
        data = read_bytes(file)
        try:
            if checks is not None and ends(data) not in checks[number]:
                msg = "the chunk is not the one that was published"
                raise StoreCorruptError(msg)
            if dtype == "string":
                parts.append(np.array(decode_strings(data), dtype=np.str_).reshape(chunk))
            else:
                parts.append(decode_numbers(data, dtype=dtype, shape=chunk))
        except (StoreCorruptError, ValueError, IndexError, struct.error) as error:
            msg = f"{file}: {error}; {remake_advice(metadata)}"
            raise StoreCorruptError(msg) from error
    if not parts:
        return np.empty(shape, dtype=np.str_ if dtype == "string" else np.dtype(dtype))
    values = np.concatenate(parts)[: shape[0]]
    return values if dtype == "string" else values.astype(values.dtype.newbyteorder("="))
