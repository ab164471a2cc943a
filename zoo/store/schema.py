"""What is in a cohort's Zarr group: every array, its shape, chunks, codecs and fill value.

The metadata is written from here and not by a library, so that a store's bytes do not depend on
which version of it is installed. Three kinds of arrays: *slabs* (sharded, written at checkpoints),
*outcomes* (one chunk per task, written when the task is sealed) and *columns* (known from the
plan). A chunk whose values are all the fill value is not written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.fields import Field
from zoo.registry import reserve
from zoo.spec.origin import ORIGIN_COLUMNS, TrainedOrigin, origin_columns
from zoo.spec.run import RunSpec, field_infos
from zoo.store.shard import ShardSpec
from zoo.train.plan import UNDECLARED, Cohort, Plan

__all__ = [
    "ALWAYS_WRITTEN",
    "FORMAT_VERSION",
    "SLABS",
    "ArraySpec",
    "array_names",
    "cohort_attributes",
    "columns",
    "is_fill",
    "metric_names",
    "outcome_arrays",
    "probe_size",
    "slab_arrays",
    "spec_column",
]

#: Version of the whole format; a reader refuses any other.
FORMAT_VERSION = 2

#: The sharded arrays, the only ones with a ``zarr.json`` of their own.
SLABS = ("weights", "probe_logits")

#: The outcome arrays that have a chunk for every task; ``reason`` and ``diverged_step`` have one
#: where a model diverged, and their fill values are those of a healthy one.
ALWAYS_WRITTEN = ("metrics", "status", "last")

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}


#: Columns that stand beside the fields of a run, besides what objectives and stages record.
_COLUMNS = (
    "run_id", "cohort", "row", "cell", "load", "temperature", "status", "reason", "diverged_step",
    "params", "flops", "wall_s", "checkpoint", "step", "epoch", "from_end", "last", "metric",
    "metrics", "step_lr", "grad_norm", "update_norm", "weight_norm", "init_distance", "phase",
)  # fmt: skip
reserve("a store", (*SLABS, *ORIGIN_COLUMNS, *_COLUMNS))


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
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
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
        raw = {"name": "bytes"} if np.dtype(self.dtype).itemsize == 1 else _BYTES
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
            "index_codecs": [_BYTES, _CRC],
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
    facts = plan.data.get(plan.data_key(cohort.runs[0]), {})
    if "probe_indices" in facts:
        return len(facts["probe_indices"])
    return plan.record.probe_size


def slab_arrays(cohort: Cohort, probe: int) -> dict[str, ArraySpec]:
    """Return the sharded arrays: ``weights [M, K, P]`` and, for Q > 0, ``probe_logits``."""
    M, K, P, C = cohort.models, cohort.checkpoints, cohort.params, cohort.data_shape.total
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
            fill=form.fill_value,
            doc="parameters and buffers, in the order of the layout",
            shard=form,
        )
    }
    if probe:
        outputs = ShardSpec(rows, probe * C, "float16", split=False)
        arrays["probe_logits"] = ArraySpec(
            name="probe_logits",
            kind="slab",
            shape=(M, K, probe, C),
            dims=("model", "checkpoint", "probe", "class"),
            dtype="float16",
            chunk=(rows, 1, probe, C),
            fill=outputs.fill_value,
            doc="logits of the probe examples, eval mode",
            shard=outputs,
        )
    return arrays


def outcome_arrays(cohort: Cohort) -> dict[str, ArraySpec]:
    """Return the arrays that are written when a task is sealed, one chunk per task."""
    M, K, rows, V = cohort.models, cohort.checkpoints, cohort.task_rows, len(cohort.metrics)
    arrays = {
        "metrics": ArraySpec(
            name="metrics",
            kind="outcome",
            shape=(M, K, V),
            dims=("model", "checkpoint", "metric"),
            dtype=max(metric.dtype for metric in cohort.metrics),  # float64 holds float32
            chunk=(rows, K, V),
            fill=math.nan,
            doc="; ".join(f"{metric.name}: {metric.doc}" for metric in cohort.metrics),
        )
    }
    for name, dtype, fill, doc in (
        ("status", "string", "missing", "done or diverged; missing until the task is complete"),
        ("reason", "string", "", "why a model diverged"),
        ("diverged_step", "int64", -1, "step whose loss was not finite; -1 = none"),
        ("last", "int64", -1, "index of the last recorded checkpoint; -1 = none"),
    ):
        arrays[name] = ArraySpec(name, "outcome", (M,), ("model",), dtype, (rows,), fill, doc)
    return arrays


def spec_column(
    runs: tuple[RunSpec, ...], name: str, fields: Mapping[str, Field] | None = None
) -> NDArray[Any]:
    """Return one spec field of every run, ``[M]``.

    A column of numbers or truth values with a None in it is float64, and None is NaN there; None
    in a column of text is empty.

    Args:
        runs: of a cohort.
        name: of the field.
        fields: every field of the plan, by which a column has one type in all cohorts, also where
            the plug-in that declares it is not loaded.
    """
    values = [getattr(run, name, None) for run in runs]
    kinds = {type(value) for value in values} - {type(None)}
    info = (fields or field_infos()).get(name)
    if kinds == {str} or (not kinds and info is not None and info.kind == "str"):
        return np.array(["" if v is None else v for v in values], dtype=np.str_)
    if kinds == {bool} and None not in values:
        return np.array(values, dtype=np.bool_)
    if kinds == {int} and None not in values:
        return np.array(values, dtype=np.int64)
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def columns(cohort: Cohort) -> dict[str, tuple[ArraySpec, NDArray[Any]]]:
    """Return every column that the plan decides, with its values.

    A column whose values are all the same has them as its fill value, and no chunk.
    """
    found: dict[str, tuple[NDArray[Any], str]] = {
        "metric": (np.array(metric_names(cohort)), "names along the last axis of metrics"),
        "run_id": (np.array(cohort.run_ids, dtype=np.str_), "hash of the spec"),
        "flops": (cohort.train_flops.astype(np.float64), "operations of the whole training run"),
        "step": (cohort.steps, "optimizer steps taken"),
        "epoch": (cohort.epochs, "passes over the training set"),
    }
    plain = all(isinstance(origin, TrainedOrigin) for origin in cohort.origins)
    for name, values in origin_columns(cohort.origins).items():
        if name == "origin" or not plain:
            found[name] = values, ORIGIN_COLUMNS[name]
    for name in cohort.fields:
        found[name] = spec_column(cohort.runs, name), _doc(name)
    return {name: (_column(name, *entry), entry[0]) for name, entry in found.items()}


def _doc(name: str) -> str:
    info = field_infos().get(name)
    return info.doc if info is not None else UNDECLARED


def _column(name: str, values: NDArray[Any], doc: str) -> ArraySpec:
    dtype = "string" if values.dtype.kind == "U" else str(values.dtype)
    empty = {"string": "", "float64": math.nan, "bool": False, "int64": 0}[dtype]
    first = values.reshape(-1)[:1]
    fill = first[0] if is_fill(values, first[0]) else empty
    dims = ("metric",) if name == "metric" else ("model", "checkpoint")[: values.ndim]
    return ArraySpec(name, "column", values.shape, dims, dtype, values.shape, fill, doc)


def is_fill(values: NDArray[Any], fill: Any) -> bool:
    """Return whether every value is the fill value, so that no chunk is needed."""
    nan = isinstance(fill, float) and math.isnan(fill)
    return bool(((values != values) if nan else (values == fill)).all())


def array_names(cohort: Cohort) -> frozenset[str]:
    """Return the names of the arrays that the plan and the training give a cohort."""
    outcomes = ("metrics", "status", "reason", "diverged_step", "last")
    planned = ("metric", "run_id", "flops", "step", "epoch", *ORIGIN_COLUMNS)
    return frozenset((*SLABS, *outcomes, *planned, *metric_names(cohort), *cohort.fields))


def metric_names(cohort: Cohort) -> list[str]:
    """Return the names of what is recorded at every checkpoint, in the order of the store."""
    return [metric.name for metric in cohort.metrics]


def cohort_attributes(plan: Plan, cohort: Cohort) -> Mapping[str, Any]:
    """Return the attributes of a cohort's group: all that is needed to use its rows."""
    key = plan.data_key(cohort.runs[0])
    return {
        "encoding-type": "phasezoo-cohort",
        "encoding-version": FORMAT_VERSION,
        "cohort": cohort.id,
        "key": dict(cohort.key),
        "layout": cohort.layout.to_json(),
        "architecture": dict(cohort.architecture),
        "data_shape": cohort.data_shape.to_json(),
        "data": {key: dict(plan.data.get(key, {}))},
        "task_rows": cohort.task_rows,
        "group_rows": cohort.group_rows,
        "backend": cohort.backend,
        "device": cohort.device,
    }
