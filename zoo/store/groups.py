"""Writing a cohort's Zarr group, and the root group's metadata with everything below it.

Both groups carry their members' metadata inline (``consolidated_metadata``), so that opening a
store reads one file. It cannot go stale: no array is ever added, resized or changed. ``_zoo`` is a
scalar array whose value is the format version: no Zarr reader looks into an array's folder, so the
records in there trouble none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zoo
from zoo.store.chunks import encode_chunk
from zoo.store.schema import (
    FORMAT_VERSION,
    ArraySpec,
    cohort_attributes,
    columns,
    outcome_arrays,
    probe_size,
    slab_arrays,
)
from zoo.train.plan import Cohort, Plan

__all__ = [
    "cohort_arrays",
    "column_chunk",
    "group_metadata",
    "metadata_bytes",
    "root_metadata",
    "scalar_metadata",
    "version",
    "write_group",
]


def metadata_bytes(metadata: Mapping[str, Any]) -> bytes:
    """Return the content of a ``zarr.json``."""
    return json.dumps(metadata, indent=1, allow_nan=False).encode() + b"\n"


def cohort_arrays(plan: Plan, cohort: Cohort) -> dict[str, ArraySpec]:
    """Return every array of a cohort's group, by name."""
    arrays = slab_arrays(cohort, probe_size(plan, cohort)) | outcome_arrays(cohort)
    return arrays | {name: spec for name, (spec, _) in columns(cohort).items()}


def group_metadata(plan: Plan, cohort: Cohort, *, inline: bool = True) -> dict[str, Any]:
    """Return the metadata of a cohort's group.

    Args:
        plan: the plan.
        cohort: one of its cohorts.
        inline: whether the metadata of the arrays stand in it.
    """
    metadata: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(cohort_attributes(plan, cohort)),
    }
    if inline:
        arrays = cohort_arrays(plan, cohort)
        metadata |= _consolidated({name: spec.metadata() for name, spec in arrays.items()})
    return metadata


def _consolidated(members: Mapping[str, Any]) -> dict[str, Any]:
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
        plan: the whole plan.
        creator: version of phasezoo that made the store.
    """
    members: dict[str, Any] = {"_zoo": scalar_metadata()}
    for cohort in plan.cohorts:
        members[cohort.id] = group_metadata(plan, cohort, inline=False)
        for name, spec in cohort_arrays(plan, cohort).items():
            members[f"{cohort.id}/{name}"] = spec.metadata()
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
        **_consolidated(members),
    }


def write_group(folder: Path, plan: Plan, cohort: Cohort) -> None:
    """Write a cohort's group into a new folder: metadata, and the columns that the plan decides.

    Nothing is synced here; the caller does that once, for the whole folder.
    """
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_bytes(metadata_bytes(group_metadata(plan, cohort)))
    for name, spec in cohort_arrays(plan, cohort).items():
        (folder / name).mkdir()
        (folder / name / "zarr.json").write_bytes(metadata_bytes(spec.metadata()))
    for name, (spec, values) in columns(cohort).items():
        data = column_chunk(spec, values)
        if data is not None:
            chunk = folder.joinpath(name, "c", *["0"] * values.ndim)
            chunk.parent.mkdir(parents=True)
            chunk.write_bytes(data)


def column_chunk(spec: ArraySpec, values: Any) -> bytes | None:
    """Return the only chunk of a column, or None where its fill value says all."""
    fill = spec.fill
    same = (values != values).all() if _is_nan(fill) else (values == fill).all()
    return None if same else encode_chunk(values, dtype=spec.dtype)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def version() -> str:
    """Return the version of phasezoo that runs."""
    return zoo.__version__
