"""What a plan keeps about a data set, so that nobody has to read it again to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data import Dataset, prepare
from zoo.seeds import Stream, permutation
from zoo.spec import RecordSpec, RunSpec

__all__ = ["data_facts"]


def _form(dataset: Dataset) -> dict[str, Any]:
    """Return shapes and kinds, JSON-ready; what most data sets lack is absent."""
    shape = dataset.shape
    found: dict[str, Any] = {
        "example_shape": list(shape.example), "classes": shape.outputs, "target": shape.target,
    }  # fmt: skip
    if shape.positions:
        found["positions"] = list(shape.positions)
    if shape.tokens is not None:
        found["tokens"] = shape.tokens
    if shape.masked:
        found["masked"] = True
    if dataset.splits["train"].weight is not None:
        found["weighted"] = True
    return found


def data_facts(
    dataset: Dataset,
    runs: Sequence[RunSpec],
    record: RecordSpec,
    known: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what a store keeps about a data set, JSON-ready.

    Args:
        dataset: the data set.
        runs: the runs that use it.
        record: for the size of the probe.
        known: what the store already keeps about it, if it is being extended.
    """
    count = len(dataset.test_y)
    probes = np.sort(permutation(0, Stream.PROBE, 0, count)[: record.probe_size])
    used = {run.normalization for run in runs}
    normalizations = dict(known["normalization"]) if known else {}
    for name in sorted(used - set(normalizations)):
        prepared = prepare(dataset, name)
        normalizations[name] = {
            "mean": np.asarray(prepared.mean, dtype=np.float64).reshape(-1).tolist(),
            "scale": np.asarray(prepared.scale, dtype=np.float64).reshape(-1).tolist(),
        }
    return {
        "name": dataset.name,
        "options": runs[0].options_of("data") if runs else dict((known or {}).get("options", {})),
        "fingerprint": dataset.fingerprint,
        "train_examples": len(dataset.train_y),
        "test_examples": count,
        "splits": {name: len(split) for name, split in dataset.splits.items()},
        **_form(dataset),
        "source": dataset.source,
        "licence": dataset.licence,
        "probe_indices": probes.tolist(),
        "normalization": normalizations,
    }
