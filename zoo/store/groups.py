"""A cohort's Zarr group and the root group: their metadata, and the files that the plan decides.

A cohort's ``zarr.json`` carries the metadata of its arrays inline (``consolidated_metadata``), and
only the sharded arrays have a ``zarr.json`` of their own besides: a hundred small arrays would
otherwise be a hundred small files in a hundred folders. The root's ``zarr.json`` lists nothing: it
never changes, and whoever opens one cohort does not read about all others. ``_zoo`` is a scalar
array whose value is the format version: no Zarr reader looks into an array's folder, so the records
in there trouble none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.store.chunks import encode_chunk
from zoo.store.paths import chunk_file
from zoo.store.schema import (
    FORMAT_VERSION,
    ArraySpec,
    cohort_attributes,
    columns,
    is_fill,
    outcome_arrays,
    probe_size,
    slab_arrays,
)
from zoo.train.plan import Cohort, Plan
from zoo.version import __version__

__all__ = [
    "cohort_arrays",
    "group_metadata",
    "inline",
    "metadata_bytes",
    "planned_files",
    "root_metadata",
    "scalar_metadata",
    "version",
    "write_group",
]


def metadata_bytes(metadata: Mapping[str, Any]) -> bytes:
    """Return the content of a ``zarr.json``."""
    return json.dumps(metadata, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def cohort_arrays(plan: Plan, cohort: Cohort) -> dict[str, ArraySpec]:
    """Return every array of a cohort's group, by name."""
    arrays = slab_arrays(cohort, probe_size(plan, cohort)) | outcome_arrays(cohort)
    return arrays | {name: spec for name, (spec, _) in columns(cohort).items()}


def group_metadata(plan: Plan, cohort: Cohort) -> dict[str, Any]:
    """Return the metadata of a cohort's group, as far as the plan decides it."""
    return _group(plan, cohort, cohort_arrays(plan, cohort))


def _group(plan: Plan, cohort: Cohort, arrays: Mapping[str, ArraySpec]) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(cohort_attributes(plan, cohort)),
        **inline({name: spec.metadata() for name, spec in arrays.items()}),
    }


def inline(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a group's metadata that has its members' metadata, by name."""
    ordered = {name: members[name] for name in sorted(members)}
    return {
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": ordered}
    }


def scalar_metadata() -> dict[str, Any]:
    """Return the metadata of ``_zoo``, a scalar array whose value is the format version."""
    doc = "format version; this folder also holds the records that are not Zarr data"
    metadata = ArraySpec("_zoo", "records", (), (), "int64", (), FORMAT_VERSION, doc).metadata()
    return {**metadata, "dimension_names": []}


def root_metadata(plan: Plan, creator: str) -> dict[str, Any]:
    """Return the metadata of the root group.

    Args:
        plan: the plan.
        creator: version of phasezoo that made the store.
    """
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "encoding-type": "phasezoo",
            "encoding-version": FORMAT_VERSION,
            "name": plan.name,
            "axes": dict(plan.axes),
            "created-by": f"phasezoo {creator}",
        },
    }


def planned_files(plan: Plan, cohort: Cohort) -> Iterator[tuple[str, bytes]]:
    """Yield the path inside the group, and the content, of each file that the plan decides."""
    slabs, decided = slab_arrays(cohort, probe_size(plan, cohort)), columns(cohort)
    arrays = slabs | outcome_arrays(cohort) | {name: spec for name, (spec, _) in decided.items()}
    yield "zarr.json", metadata_bytes(_group(plan, cohort, arrays))
    for name, spec in slabs.items():
        yield f"{name}/zarr.json", metadata_bytes(spec.metadata())
    for name, (spec, values) in decided.items():
        if not is_fill(values, spec.fill):
            data = encode_chunk(values, dtype=spec.dtype)
            yield f"{name}/{chunk_file(0, values.ndim)}", data


def write_group(folder: Path, plan: Plan, cohort: Cohort) -> None:
    """Write a cohort's group into a new folder: metadata, and the columns that the plan decides.

    Nothing is synced here; the caller does that once, for the whole folder.
    """
    folder.mkdir(parents=True)
    for name, data in planned_files(plan, cohort):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)


def version() -> str:
    """Return the version of phasezoo that runs."""
    return __version__
