"""What stands in a cohort's Zarr group: every array, its shape, chunks, codecs and fill value.

The metadata is written from here and not by a library, so that a store's bytes do not depend on
which version of it is installed. Three kinds of arrays: *slabs* (sharded, written at checkpoints),
*outcomes* (one chunk a task, written when the task is sealed) and *columns* (known from the plan).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.spec.run import RunSpec, field_infos
from zoo.store.shard import ShardSpec
from zoo.train.checkpoint import METRICS
from zoo.train.plan import Cohort, Plan

__all__ = [
    "FORMAT_VERSION",
    "METRIC_ARRAYS",
    "ArraySpec",
    "cohort_attributes",
    "columns",
    "outcome_arrays",
    "probe_size",
    "slab_arrays",
    "spec_column",
]

#: Version of the whole format; a reader refuses a later one.
FORMAT_VERSION = 1

#: Metric → array. ``lr`` is the run's peak learning rate, as everywhere; the recorded one is
#: ``step_lr``.
METRIC_ARRAYS = {name: "step_lr" if name == "lr" else name for name in METRICS}

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a cohort's group.

    Args:
        name: of the array.
        kind: ``"slab"``, ``"outcome"`` or ``"column"``.
        shape, dims: of the array, and the names of its axes.
        dtype: Zarr name of the data type.
        chunk: shape of a chunk; of a shard where ``shard`` is given.
        fill: value of what is not there.
        doc: one line, with the unit.
        shard: the form of the shards, or None.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    chunk: tuple[int, ...]
    fill: Any
    doc: str
    shard: ShardSpec | None = None

    def metadata(self) -> dict[str, Any]:
        """Return the content of the array's ``zarr.json``."""
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunk)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": _fill_json(self.fill),
            "codecs": self._codecs(),
            "attributes": {
                "encoding-type": f"phasezoo-{self.kind}",
                "encoding-version": FORMAT_VERSION,
                "long_name": self.doc,
            },
            "dimension_names": list(self.dims),
            "storage_transformers": [],
        }

    def _codecs(self) -> list[dict[str, Any]]:
        if self.dtype == "string":
            return [{"name": "vlen-utf8", "configuration": {}}, _CRC]
        raw = {"name": "bytes"} if self.dtype == "bool" else _BYTES
        if self.shard is None:
            return [raw, _CRC]
        blosc = {
            "typesize": self.shard.itemsize,
            "cname": "zstd",
            "clevel": 1,
            "shuffle": "bitshuffle",
            "blocksize": 0,
        }
        inner = [1, 1, *self.chunk[2:]]
        inner[-1] //= self.shard.splits
        configuration = {
            "chunk_shape": inner,
            "codecs": [raw, {"name": "blosc", "configuration": blosc}, _CRC],
            "index_codecs": [raw, _CRC],
            "index_location": "end",
        }
        return [{"name": "sharding_indexed", "configuration": configuration}]


def _fill_json(fill: Any) -> Any:
    value = fill.item() if isinstance(fill, np.generic) else fill
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return value


def probe_size(plan: Plan, cohort: Cohort) -> int:
    """Return Q: how many test examples the logits of a cohort are recorded for."""
    facts = plan.data.get(cohort.runs[0].data, {})
    if "probe_indices" in facts:
        return len(facts["probe_indices"])
    return plan.record.probe_size


def slab_arrays(cohort: Cohort, probe: int) -> dict[str, ArraySpec]:
    """Return the sharded arrays: ``weights [M, K, P]`` and, for Q > 0, ``probe_logits``."""
    M, K, P, C = cohort.models, cohort.checkpoints, cohort.params, cohort.classes
    rows = cohort.task_rows
    form = ShardSpec(rows, P, "float32")
    arrays = {
        "weights": ArraySpec(
            name="weights",
            kind="slab",
            shape=(M, K, P),
            dims=("model", "checkpoint", "param"),
            dtype="float32",
            chunk=(rows, 1, form.chunk_values * form.splits),
            fill=math.nan,
            doc="parameters and buffers, in the order of the layout",
            shard=form,
        )
    }
    if probe:
        arrays["probe_logits"] = ArraySpec(
            name="probe_logits",
            kind="slab",
            shape=(M, K, probe, C),
            dims=("model", "checkpoint", "probe", "class"),
            dtype="float16",
            chunk=(rows, 1, probe, C),
            fill=math.nan,
            doc="logits of the probe examples, eval mode",
            shard=ShardSpec(rows, probe * C, "float16", split=False),
        )
    return arrays


def outcome_arrays(cohort: Cohort) -> dict[str, ArraySpec]:
    """Return the arrays that are written when a task is sealed, one chunk a task."""
    M, K, rows = cohort.models, cohort.checkpoints, cohort.task_rows
    arrays = {}
    for metric, name in METRIC_ARRAYS.items():
        dims = ("model", "checkpoint")
        arrays[name] = ArraySpec(
            name, "outcome", (M, K), dims, "float32", (rows, K), math.nan, METRICS[metric]
        )
    for name, dtype, fill, doc in (
        ("status", "string", "missing", "done or diverged; missing until the task is complete"),
        ("reason", "string", "", "why a model diverged"),
        ("diverged_step", "int64", -1, "step whose loss was not finite; -1 = none"),
        ("last", "int64", -1, "index of the last recorded checkpoint; -1 = none"),
    ):
        arrays[name] = ArraySpec(name, "outcome", (M,), ("model",), dtype, (rows,), fill, doc)
    return arrays


def spec_column(runs: tuple[RunSpec, ...], name: str) -> NDArray[Any]:
    """Return one spec field of every run, ``[M]``.

    A column of numbers or truth values with a None in it is float64, and None is NaN there; None
    in a column of text is empty.
    """
    kind = field_infos()[name].kind
    values = [getattr(run, name) for run in runs]
    if kind == "str":
        return np.array(["" if v is None else v for v in values], dtype=np.str_)
    if kind == "float" or any(v is None for v in values):
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return np.array(values, dtype=np.bool_ if kind == "bool" else np.int64)


def columns(cohort: Cohort) -> dict[str, tuple[ArraySpec, NDArray[Any]]]:
    """Return every column that the plan decides, with its values.

    A column whose values are all the same has them as its fill value, and no chunk.
    """
    found: dict[str, tuple[NDArray[Any], str]] = {
        "run_id": (np.array(cohort.run_ids, dtype=np.str_), "hash of the spec"),
        "flops": (cohort.train_flops.astype(np.float64), "operations of the whole training run"),
        "step": (cohort.steps, "optimizer steps taken"),
        "epoch": (cohort.epochs, "passes over the training set"),
    }
    for name in cohort.fields:
        found[name] = spec_column(cohort.runs, name), field_infos()[name].doc
    return {name: (_column(name, *entry), entry[0]) for name, entry in found.items()}


def _column(name: str, values: NDArray[Any], doc: str) -> ArraySpec:
    dtype = "string" if values.dtype.kind == "U" else str(values.dtype)
    empty = {"string": "", "float64": math.nan, "bool": False, "int64": 0}[dtype]
    first = values.reshape(-1)[:1]
    same = np.array_equal(values.reshape(-1), np.repeat(first, values.size), equal_nan=_nans(dtype))
    fill = first[0] if same else empty
    dims = ("model", "checkpoint")[: values.ndim]
    return ArraySpec(name, "column", values.shape, dims, dtype, values.shape, fill, doc)


def _nans(dtype: str) -> bool:
    return dtype == "float64"


def cohort_attributes(plan: Plan, cohort: Cohort) -> Mapping[str, Any]:
    """Return the attributes of a cohort's group: all that is needed to use its rows."""
    names = sorted({run.data for run in cohort.runs})
    return {
        "encoding-type": "phasezoo-cohort",
        "encoding-version": FORMAT_VERSION,
        "cohort": cohort.id,
        "key": dict(cohort.key),
        "layout": cohort.layout.to_json(),
        "architecture": dict(cohort.architecture),
        "classes": cohort.classes,
        "example_shape": list(cohort.example_shape),
        "data": {name: dict(plan.data.get(name, {})) for name in names},
        "task_rows": cohort.task_rows,
        "group_rows": cohort.group_rows,
        "backend": cohort.backend,
        "device": cohort.device,
    }
