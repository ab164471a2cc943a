"""Cells from a store: the newest table of cells, and the seeds behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreError
from zoo.phases.cells import Cells, CellSample
from zoo.spec.run import SEED_FIELDS
from zoo.store import StoreReader, newest_table, read_table
from zoo.train.plan import Plan
from zoo.train.task_data import cohort_objective

__all__ = ["StoreCells", "store_cells"]

#: Input of the rule → column of the table.
_COLUMNS = {
    "train_loss": "train_loss",
    "train_error": "train_error",
    "lambda_max": "lambda_max",
    "trace": "hessian_trace",
    "mode_connectivity": "mode_connectivity",
    "cka": "cka",
}
_PAIRED = ("mode_connectivity", "cka")
#: Fields that do not tell cells apart: they are the seeds of one, or follow from others.
_WITHIN = ("seed", *SEED_FIELDS, "steps")

_F64 = NDArray[np.float64]
_Table = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class StoreCells:
    """The cells of a store.

    Args:
        cells: the numbers that the rule reads.
        table: every column of the table of cells, ``[cell, ...]``.
        names: the tables that they come from.
        axes: ``{"load": field, "temperature": field}``; empty where the sweep names none.
        rest: ``[cell]`` what else tells a cell from others, as text (``"norm = batch"``).
        members: ``[cell, member]`` run ids, ``""`` where a cell has fewer.
    """

    cells: Cells
    table: _Table
    names: tuple[str, ...]
    axes: Mapping[str, str]
    rest: NDArray[np.str_]
    members: NDArray[np.str_]


def store_cells(
    path: str | PathLike[str], *, table: str | None = None, collapse: float = 0.9,
    floats: bool = False,
) -> StoreCells:  # fmt: skip
    """Return the cells of a store.

    Args:
        path: the store.
        table: name of a table of cells; None = the newest.
        collapse: share of the loss of guessing; a model above it is bad, as is one that diverged
            or that landscape metrics found constant.
        floats: whether cells of models that fit floats are wanted; they have no training error.

    Raises:
        StoreMissingError: no store is there.
        StoreError: it has no cells yet, or models of floats alone, and these are not wanted.
        UnknownNameError: it has no such table.
    """
    reader = StoreReader(path)
    judged = _every_run(reader.plan) if floats else _classifying(reader.plan)
    name = table or newest_table(path, "cells")
    if name is None:
        msg = f"{path} has no cells yet; run `zoo landscape {path}` first"
        raise StoreError(msg)
    columns, attributes = read_table(path, name)
    n = len(columns["cell"])
    errors = {k: columns[f"{c}_se"] for k, c in _COLUMNS.items() if f"{c}_se" in columns}
    members = np.asarray(columns["members"], dtype=np.str_).reshape(n, -1)
    pairs_name = name.replace("cells", "pairs", 1)
    try:
        pairs, _ = read_table(path, pairs_name)
    except KeyError:
        pairs = {}
    first = _first_runs(reader.plan, members)
    axes = {k: str(attributes[k]) for k in ("load", "temperature") if attributes.get(k)}
    axes = axes or dict(reader.plan.axes)
    known = np.array([row[0] in judged for row in members], dtype=np.bool_)
    samples = _samples(reader, members, columns, pairs, collapse, judged)
    empty = np.full(n, "")
    cells = Cells(
        load=np.asarray(columns.get("load", empty), dtype=np.str_),
        temperature=np.asarray(columns.get("temperature", empty), dtype=np.str_),
        values={
            **_numbers(columns),
            **{k: np.where(known, columns[c], np.nan) for k, c in _COLUMNS.items() if c in columns},
        },
        errors={k: _float(v) for k, v in errors.items()},
        chance_loss=_float(columns["chance_loss"]),
        bad_share=np.array([sample.bad.mean() for sample in samples], dtype=np.float64),
        ids=np.asarray(columns["cell"], dtype=np.str_),
        pool=np.array([str(run.get("data", "")) for run in first], dtype=np.str_),
        samples=samples,
    )
    names = (name, pairs_name) if pairs else (name,)
    return StoreCells(cells, columns, names, axes, _rest(first, axes), members)


def _numbers(columns: _Table) -> dict[str, _F64]:
    """Return every column of numbers, one a cell: what rules of plug-ins may read."""
    return {k: _float(v) for k, v in columns.items() if v.ndim == 1 and v.dtype.kind in "fiu"}


def _every_run(plan: Plan) -> frozenset[str]:
    return frozenset(run_id for cohort in plan.cohorts for run_id in cohort.run_ids)


def _classifying(plan: Plan) -> frozenset[str]:
    """Return the run ids of models whose predictions are right or wrong.

    Raises:
        StoreError: there are none.
    """
    found = [cohort for cohort in plan.cohorts if cohort_objective(cohort).classifies]
    if not found:
        cohort = plan.cohorts[0]
        msg = (
            "phases need a training error, and these models have none: objective ="
            f" {cohort.runs[0].objective!r} fits floats; its cells are in the table of cells"
        )
        raise StoreError(msg)
    return frozenset(run_id for cohort in found for run_id in cohort.run_ids)


def _float(values: NDArray[Any]) -> _F64:
    return np.asarray(values, dtype=np.float64)


def _first_runs(plan: Plan, members: NDArray[np.str_]) -> list[dict[str, Any]]:
    """Return the spec of each cell's first member."""
    specs = {i: r for c in plan.cohorts for i, r in zip(c.run_ids, c.runs, strict=True)}
    return [specs[row[0]].to_dict() if row[0] in specs else {} for row in members]


def _rest(first: list[dict[str, Any]], axes: Mapping[str, str]) -> NDArray[np.str_]:
    """Return what tells cells apart beside the axes; what follows from an axis is left out."""
    keys = [k for k in (first[0] if first else {}) if k not in (*_WITHIN, *axes.values())]
    at = [json.dumps([run.get(name) for name in axes.values()]) for run in first]
    told = []
    for key in keys:
        values = [run.get(key) for run in first]
        seen: dict[str, set[str]] = {}
        for place, value in zip(at, values, strict=True):
            seen.setdefault(place, set()).add(json.dumps(value))
        # one value at each point of the grid: it moves with the axes, so it is no third axis
        if len(set(map(json.dumps, values))) > 1 and any(len(v) > 1 for v in seen.values()):
            told.append(key)
    return np.array([", ".join(f"{k} = {run[k]}" for k in told) for run in first], dtype=np.str_)


def _samples(
    reader: StoreReader,
    members: NDArray[np.str_],
    columns: _Table,
    pairs: _Table,
    collapse: float,
    judged: frozenset[str],
) -> tuple[CellSample, ...]:
    """Return the seeds of each cell."""
    known = _models(reader, judged)
    limit = _float(columns["chance_loss"]) * collapse
    of_cell: dict[str, list[int]] = {}
    for index, cell in enumerate(pairs["cell"].tolist() if pairs else []):
        of_cell.setdefault(str(cell), []).append(index)
    found = []
    for n, row in enumerate(members):
        ids = [i for i in row.tolist() if i]
        place = {run_id: index for index, run_id in enumerate(ids)}
        values = {k: np.array([known[i][k] for i in ids]) for k in _COLUMNS if k not in _PAIRED}
        bad = ~np.isfinite(values["train_loss"]) | (values["train_loss"] > limit[n])
        bad |= np.array([bool(known[i]["bad"]) for i in ids])
        at = np.array(of_cell.get(str(columns["cell"][n]), []), dtype=np.int64)
        found.append(CellSample(values, bad, _pairs_of(pairs, at, place)))
    return tuple(found)


def _pairs_of(
    pairs: _Table, at: NDArray[np.int64], place: Mapping[str, int]
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64], _F64]]:
    """Return the pair inputs of one cell, whose pairs are the rows ``at``."""
    if not len(at):
        return {}
    ends = [np.array([place[str(i)] for i in pairs[k][at].tolist()]) for k in ("a", "b")]
    return {k: (ends[0], ends[1], _float(pairs[k][at])) for k in _PAIRED if k in pairs}


def _models(reader: StoreReader, judged: frozenset[str]) -> dict[str, dict[str, float]]:
    """Return for each run the inputs at its last checkpoint, and whether it went bad."""
    found: dict[str, dict[str, float]] = {}
    for source in reader.cohorts:
        rows, last = np.arange(source.cohort.models), np.maximum(source.last, 0)
        classifies = cohort_objective(source.cohort).classifies
        if source.cohort.run_ids[0] not in judged:
            nothing = {**dict.fromkeys(_COLUMNS, np.nan), "bad": 0.0}
            found |= {run_id: dict(nothing) for run_id in source.cohort.run_ids}
            continue
        inputs = {
            "train_loss": _float(source.metric("train_loss"))[rows, last],
            "train_error": (
                100.0 * (1.0 - _float(source.metric("train_accuracy"))[rows, last])
                if classifies
                else np.full(len(rows), np.nan)
            ),
            "bad": (source.status == "diverged").astype(np.float64),
        }
        for name, column in (("lambda_max", "lambda_max"), ("trace", "hessian_trace")):
            there = column in source.derived
            inputs[name] = (
                _float(source.read_derived(column))[rows, last]
                if there
                else np.full(len(rows), np.nan)
            )
        if "collapsed" in source.derived:
            inputs["bad"] += _float(source.read_derived("collapsed"))[rows, last] == 1
        for index, run_id in enumerate(source.cohort.run_ids):
            found[run_id] = {k: float(v[index]) for k, v in inputs.items()}
    return found
