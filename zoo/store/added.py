"""What stands in a store besides the plan's arrays: finding it, reading it, and its metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError
from zoo.store.chunks import decode_numbers, decode_strings
from zoo.store.files import read_bytes
from zoo.store.groups import root_metadata
from zoo.store.paths import StorePaths
from zoo.store.records import read_record
from zoo.train.plan import Plan

__all__ = [
    "DERIVED",
    "added_folders",
    "array_chunks",
    "derived_members",
    "find_added",
    "inline_metadata",
    "planned_part",
    "read_array",
    "refreshed_root",
]

#: Encoding type of every array that a stage added.
DERIVED = "phasezoo-derived"
_TABLES = ("phasezoo-table", "phasezoo-tables")


def _kind(metadata: Any) -> str:
    attributes = metadata.get("attributes", {}) if isinstance(metadata, dict) else {}
    return str(attributes.get("encoding-type", ""))


def find_added(folder: Path, *, kind: str = DERIVED) -> dict[str, Any] | None:
    """Return the metadata of what a stage added at ``folder``, or None if it is nothing of that."""
    file = folder / "zarr.json"
    if not file.exists():
        return None
    try:
        metadata: dict[str, Any] = json.loads(read_bytes(file))
    except ValueError as error:
        msg = f"{file} is not JSON; run `zoo verify`"
        raise StoreCorruptError(msg) from error
    return metadata if _kind(metadata) == kind else None


def derived_members(paths: StorePaths, cohort: str) -> dict[str, dict[str, Any]]:
    """Return the metadata of a cohort's derived arrays, by name, as its group has them inline."""
    file = paths.group(cohort) / "zarr.json"
    try:
        members = json.loads(read_bytes(file))["consolidated_metadata"]["metadata"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{file} is not the metadata of a cohort; run `zoo verify`"
        raise StoreCorruptError(msg) from error
    return {name: m for name, m in members.items() if _kind(m) == DERIVED}


def inline_metadata(file: Path, members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a group's ``zarr.json`` with members added or replaced."""
    metadata: dict[str, Any] = json.loads(read_bytes(file))
    inline = metadata["consolidated_metadata"]["metadata"] | dict(members)
    ordered = {name: inline[name] for name in sorted(inline)}
    metadata["consolidated_metadata"]["metadata"] = ordered
    return metadata


def planned_part(metadata: Any) -> Any:
    """Return a group's metadata without what stages added: what the plan alone decides."""
    try:
        members = metadata["consolidated_metadata"]["metadata"]
        kept = {k: m for k, m in members.items() if _kind(m) not in (DERIVED, *_TABLES)}
    except (KeyError, TypeError, AttributeError):
        return metadata
    inline = {**metadata["consolidated_metadata"], "metadata": kept}
    return {**metadata, "consolidated_metadata": inline}


def refreshed_root(paths: StorePaths, plan: Plan) -> dict[str, Any]:
    """Return the root group's metadata with everything that stages added.

    Args:
        paths: the store.
        plan: its whole plan.
    """
    creator = read_record(paths.provenance, "provenance")["created_by"]
    metadata = root_metadata(plan, creator)
    added: dict[str, Any] = {}
    for cohort in plan.cohorts:
        members = derived_members(paths, cohort.id)
        added |= {f"{cohort.id}/{name}": member for name, member in members.items()}
    for file in (*paths.tables.glob("zarr.json"), *paths.tables.rglob("*/zarr.json")):
        added[paths.name(file.parent)] = json.loads(read_bytes(file))
    members = metadata["consolidated_metadata"]["metadata"] | added
    ordered = {name: members[name] for name in sorted(members)}
    metadata["consolidated_metadata"]["metadata"] = ordered
    return metadata


def added_folders(paths: StorePaths, plan: Plan) -> list[Path]:
    """Return the folders of every derived array, whether its group knows it yet or not."""
    groups = [paths.group(cohort.id) for cohort in plan.cohorts]
    tables = [file.parent for file in paths.tables.glob("*/zarr.json")]
    files = [file for group in (*groups, *tables) for file in group.glob("*/zarr.json")]
    return [file.parent for file in sorted(files) if find_added(file.parent) is not None]


def array_chunks(folder: Path, metadata: Mapping[str, Any]) -> list[Path]:
    """Return the chunk files of a derived array, along its first axis."""
    shape = metadata["shape"]
    size = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
    rest = ["0"] * (len(shape) - 1)
    return [folder.joinpath("c", str(i), *rest) for i in range(math.ceil(shape[0] / size))]


def read_array(folder: Path, metadata: Mapping[str, Any]) -> NDArray[Any]:
    """Return the values of a derived array.

    Raises:
        StoreCorruptError: a chunk is missing or does not match its checksum.
    """
    shape = tuple(metadata["shape"])
    chunk = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    dtype = metadata["data_type"]
    parts: list[NDArray[Any]] = []
    for file in array_chunks(folder, metadata):
        data = read_bytes(file)
        try:
            if dtype == "string":
                parts.append(np.array(decode_strings(data), dtype=np.str_).reshape(chunk))
            else:
                parts.append(decode_numbers(data, dtype=dtype, shape=chunk))
        except (StoreCorruptError, ValueError) as error:
            msg = f"{file}: {error}; run the stage that made it again"
            raise StoreCorruptError(msg) from error
    if not parts:
        return np.empty(shape, dtype=np.str_ if dtype == "string" else np.dtype(dtype))
    values = np.concatenate(parts)[: shape[0]]
    return values if dtype == "string" else values.astype(values.dtype.newbyteorder("="))
