"""What a plan's JSON must be before anything is built from it: types, sizes, shapes.

A checksum keeps out accidents, not a plan that somebody or something else wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.shape import DataShape

__all__ = ["FLOATS", "check_plan"]

_TEXTS = ("id", "backend", "device")
_COUNTS = ("task_rows", "group_rows")
_SEGMENT = {"name", "shape", "offset", "role", "fan_in"}
_MOST = 2**48
#: What a metric may be recorded in.
FLOATS = ("float32", "float64")


def check_plan(raw: Any) -> None:
    """Make sure that a plan can be built from ``raw`` and means what a plan means.

    Raises:
        ValueError: it cannot; a clause that names the place.
    """
    _need(isinstance(raw, Mapping), "the plan is no table")
    _need(isinstance(raw.get("name"), str), "'name' is not text")
    for key in ("axes", "record", "data", "paths", "options"):
        _need(isinstance(raw.get(key), Mapping), f"{key!r} is no table")
    axes = raw["axes"]
    _need(all(isinstance(v, str) for kv in axes.items() for v in kv), "'axes' names no fields")
    for name, facts in raw["data"].items():
        place = f"data.{name}"
        _need(isinstance(facts, Mapping), f"{place} is no table")
        _need(isinstance(facts.get("fingerprint", ""), str), f"{place}.fingerprint is not text")
        probe = facts.get("probe_indices", [])
        _need(isinstance(probe, list) and all(map(_is_count, probe)), f"{place}.probe_indices")
    texts = (text for pair in raw["paths"].items() for text in pair)
    _need(all(isinstance(text, str) for text in texts), "'paths' has one that is not text")
    _need(_is_text_table(raw.get("plugins", {})), "'plugins' is no table of texts")
    _check_record(raw["record"])
    cohorts = raw.get("cohorts")
    _need(isinstance(cohorts, list) and len(cohorts) > 0, "'cohorts' is no list")
    for number, cohort in enumerate(cohorts):
        _check_cohort(cohort, f"cohorts[{number}]", raw["data"])


def _check_cohort(raw: Any, place: str, data: Mapping[str, Any]) -> None:
    _need(isinstance(raw, Mapping), f"{place} is no table")
    for key in _TEXTS:
        _need(isinstance(raw.get(key), str), f"{place}.{key} is not text")
    for key in _COUNTS:
        found = raw.get(key)
        _need(_is_count(found) and found > 0, f"{place}.{key} is not a number of at least 1")
    for key in ("key", "architecture"):
        _need(isinstance(raw.get(key), Mapping), f"{place}.{key} is no table")
    _need(_is_text_table(raw.get("plugins", {})), f"{place}.plugins is no table of texts")
    flops = [v for k, v in raw["architecture"].items() if k.endswith("_flops_per_example")]
    _need(all(map(_is_number, flops)), f"{place}.architecture has FLOPs that are no numbers")
    _need("train_flops_per_example" in raw["architecture"], f"{place}.architecture has no FLOPs")
    guessing = raw.get("guessing")
    _need(guessing is None or _is_number(guessing), f"{place}.guessing is no loss")
    shape = raw.get("data_shape")
    _need(isinstance(shape, Mapping), f"{place}.data_shape is no table")
    DataShape.from_json(shape)
    runs = raw.get("runs")
    _need(isinstance(runs, list) and len(runs) > 0, f"{place}.runs is no list of runs")
    specs = [run.get("spec") if isinstance(run, Mapping) else None for run in runs]
    sets = {s["data"] for s in specs if isinstance(s, Mapping) and isinstance(s.get("data"), str)}
    known = {facts.get("name", key) for key, facts in data.items() if isinstance(facts, Mapping)}
    _need(sets <= known, f"{place}.runs use a data set that 'data' lacks")
    steps, epochs = (_table(raw.get(key), f"{place}.{key}") for key in ("steps", "epochs"))
    _need(steps.dtype.kind == "i", f"{place}.steps are no whole numbers")
    _need(steps.shape == epochs.shape, f"{place}.steps and epochs have different shapes")
    _need(len(steps) == len(runs) and steps.size > 0, f"{place}.steps is not one row per run")
    _check_layout(raw.get("layout"), f"{place}.layout")
    _check_metrics(raw.get("metrics"), f"{place}.metrics")


def _check_record(raw: Mapping[str, Any]) -> None:
    for key, value in raw.items():
        values = value if isinstance(value, list) else [value]
        _need(all(map(_is_number, values)), f"record.{key} is no number")
    _need(_is_count(raw.get("probe_size")), "record.probe_size is not a number")


def _check_metrics(rows: Any, place: str) -> None:
    _need(isinstance(rows, list) and len(rows) > 0, f"{place} is no list of metrics")
    for row in rows:
        _need(isinstance(row, Mapping), f"{place} has one that is no table")
        name, doc = row.get("name"), row.get("doc")
        _need(isinstance(name, str) and name.isidentifier(), f"{place} has one without a name")
        _need(isinstance(doc, str), f"{place}.{name} is not described")
        _need(row.get("dtype") in FLOATS, f"{place}.{name} is of no type that metrics have")
    names = [row["name"] for row in rows]
    _need(len(set(names)) == len(names), f"{place} has a name twice")


def _check_layout(rows: Any, place: str) -> None:
    _need(isinstance(rows, list) and len(rows) > 0, f"{place} is no list of tensors")
    column = 0
    for row in rows:
        _need(isinstance(row, Mapping) and row.keys() <= _SEGMENT, f"{place} has no such facts")
        shape = row.get("shape")
        _need(isinstance(shape, list) and all(map(_is_count, shape)), f"{place} has a bad shape")
        names = isinstance(row.get("name"), str) and isinstance(row.get("role"), str)
        _need(names and _is_count(row.get("fan_in", 0)), f"{place} has a tensor without a name")
        _need(row.get("offset") == column, f"{place} has holes")
        column += math.prod(shape)
        _need(column < _MOST, f"{place} has {column:,} columns")


def _table(rows: Any, place: str) -> Any:
    try:
        found = np.asarray(rows)
    except (ValueError, TypeError, OverflowError):
        found = np.empty(0, dtype=object)
    _need(found.ndim == 2 and found.dtype.kind in "if", f"{place} is no table of numbers")
    return found


def _need(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise ValueError(what)


def _is_text_table(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(v, str) for kv in value.items() for v in kv
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf and math.isfinite(float(value))
