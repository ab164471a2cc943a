"""What the landscape stage publishes: columns of models, and the tables of cells and of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.landscape import CELL_METRICS, MODEL_METRICS
from zoo.landscape.base import Column
from zoo.landscape.cells import all_pairs, pair_mean, ring_pairs
from zoo.landscape.probes import probe_facts
from zoo.store import (
    DerivedColumn,
    StageFolder,
    StoreReader,
    TableColumn,
    newest_table,
    publish,
    publish_next,
    read_table,
)
from zoo.train.cells import Cell, cells_of
from zoo.train.plan import Plan
from zoo.train.task_data import TaskData, cohort_objective

__all__ = ["publish_landscape"]

_STAGE = "landscape"
_Arrays = Mapping[str, NDArray[np.float64]]
#: (metric, checkpoint from the end) → parts: models as (cohort's position, row), and their values.
_ModelParts = Mapping[tuple[str, int], Sequence[tuple[tuple[tuple[int, int], ...], _Arrays]]]
#: The same for cells: (cells, values of their pairs, in order).
_CellParts = Mapping[tuple[str, int], Sequence[tuple[tuple[Cell, ...], _Arrays]]]
#: Column of the cells' table → column of models that it is the mean of.
_FROM_MODELS = ("lambda_max", "hessian_trace")
_EVAL = "evaluation mode, with the statistics that the row holds"
_FRESH = "evaluation mode, with statistics estimated anew at every point"


def publish_landscape(
    path: Path,
    reader: StoreReader,
    folder: StageFolder,
    models: _ModelParts,
    cells: _CellParts,
    data: Mapping[str, TaskData],
) -> None:
    """Publish everything that has been computed with these options.

    Args:
        path: the store.
        reader: the same.
        folder: of the stage.
        models, cells: the parts.
        data: data set → what the probes are drawn from.

    Raises:
        StoreError: the disk refuses.
    """
    settings = folder.settings
    facts = {
        "probes": {name: probe_facts(found, settings["probes"]) for name, found in data.items()}
    }
    columns = _model_columns(reader.plan, settings, models, facts)
    if columns:
        publish(path, columns, stage=_STAGE, stage_id=folder.id)
    for from_end in sorted({key[1] for key in (*models, *cells)}):
        here = {metric: parts for (metric, e), parts in cells.items() if e == from_end}
        if from_end and not here:
            continue  # a table of means alone is worth its place for the end of training only
        suffix = f"-back-{from_end}" if from_end else ""
        pairs = _pair_columns(here, _unit(reader.plan))
        table = _cell_columns(reader, from_end, models, here, pairs)
        attributes = {
            "stage": _STAGE,
            "load": str(reader.plan.axes.get("load", "")),
            "temperature": str(reader.plan.axes.get("temperature", "")),
            "from_end": from_end,
            "batchnorm": _FRESH,
            "options": {metric: settings["options"][metric] for metric in here},
            **facts,
        }
        _publish_next(path, f"cells{suffix}", table, attributes)
        if here:
            _publish_next(path, f"pairs{suffix}", pairs, attributes)


def _publish_next(
    path: Path, stem: str, columns: Mapping[str, TableColumn], attributes: Mapping[str, Any]
) -> None:
    """Publish a table under the next number, unless the newest is the same."""

    def known() -> str | None:
        name = newest_table(path, stem)
        if name is None:
            return None
        arrays, there = read_table(path, name)
        same = arrays.keys() == columns.keys() and all(
            there.get(key) == value for key, value in attributes.items()
        )
        same = same and all(_equal(arrays[key], c.values) for key, c in columns.items())
        return name if same else None

    publish_next(path, stem, columns, attributes, known)


def _equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.shape != b.shape:
        return False
    numbers = a.dtype.kind == "f" and b.dtype.kind == "f"
    return bool(np.array_equal(a, b, equal_nan=True) if numbers else (a == b).all())


def _model_columns(
    plan: Plan, settings: Mapping[str, Any], models: _ModelParts, facts: Mapping[str, Any]
) -> list[DerivedColumn]:
    arrays: dict[tuple[str, int, str], NDArray[np.float64]] = {}
    about: dict[str, Column] = {}
    for (metric, from_end), parts in models.items():
        for column in MODEL_METRICS[metric].columns:
            about[column.name] = column
            for members, found in parts:
                if column.name not in found:  # it does not apply to these models
                    continue
                for (position, row), value in zip(members, found[column.name], strict=True):
                    cohort = plan.cohorts[position]
                    key = (metric, position, column.name)
                    if key not in arrays:
                        shape = (cohort.models, cohort.checkpoints, *value.shape)
                        arrays[key] = np.full(shape, np.nan)
                    arrays[key][row, cohort.checkpoints - 1 - from_end] = value
    columns = []
    for (metric, position, name), values in arrays.items():
        column = about[name]
        cohort = plan.cohorts[position]
        columns.append(
            DerivedColumn(
                cohort=cohort.id,
                name=name,
                dims=("model", "checkpoint", *(f"{metric}_{dim}" for dim in column.dims)),
                values=values.astype(np.float32) if column.dims else values,
                doc=column.text(cohort_objective(cohort).unit),
                attributes={
                    "metric": metric,
                    "options": dict(settings["options"][metric]),
                    "batchnorm": _EVAL,
                    "probe": facts["probes"][plan.data_key(cohort.runs[0])],
                },
            )
        )
    return columns


def _unit(plan: Plan) -> str:
    """Return the unit of every cohort's loss, empty where they differ."""
    found = {cohort_objective(cohort).unit for cohort in plan.cohorts}
    return found.pop() if len(found) == 1 else ""


def _pair_columns(parts: Mapping[str, Sequence[Any]], unit: str) -> dict[str, TableColumn]:
    """Return the table of pairs: all that any metric looked at, NaN where another did not."""
    index: dict[tuple[str, str, str], int] = {}
    values: dict[str, list[tuple[list[int], NDArray[np.float64]]]] = {}
    about: dict[str, Column] = {}
    for metric, blocks in parts.items():
        entry = CELL_METRICS[metric]
        choose = ring_pairs if entry.ring else all_pairs
        for cells, arrays in blocks:
            places = [
                index.setdefault((cell.id, cell.run_ids[a], cell.run_ids[b]), len(index))
                for cell in cells
                for a, b in choose(len(cell.members))
            ]
            for column in entry.columns:
                if column.name in arrays:
                    about[column.name] = column
                    values.setdefault(column.name, []).append((places, arrays[column.name]))
    keys = np.array(list(index), dtype=np.str_).reshape(-1, 3)
    docs = ("id of the cell", "run id of the first model", "run id of the second model")
    found = {
        name: TableColumn(("pair",), keys[:, i], docs[i])
        for i, name in enumerate(("cell", "a", "b"))
    }
    for name, filled in values.items():
        width = max((array.shape[1:] for _, array in filled), default=())
        whole = np.full((len(index), *width), np.nan)
        for places, array in filled:
            part = np.full((len(places), *width), np.nan)
            part[tuple(slice(0, n) for n in array.shape)] = array
            whole[places] = part
        column = about[name]
        found[name] = TableColumn(("pair", *column.dims), whole, column.text(unit))
    return found


def _cell_columns(
    reader: StoreReader,
    from_end: int,
    models: _ModelParts,
    parts: Mapping[str, Sequence[Any]],
    pairs: Mapping[str, TableColumn],
) -> dict[str, TableColumn]:
    plan = reader.plan
    cells = [c for c in cells_of(plan) if from_end < plan.cohorts[c.members[0][0]].checkpoints]
    found = _identity(plan, cells)
    found |= _member_means(reader, cells, from_end, models)
    owner = pairs["cell"].values
    place = {cell.id: {run: i for i, run in enumerate(cell.run_ids)} for cell in cells}
    a = np.array([place[c][r] for c, r in zip(owner, pairs["a"].values, strict=True)], dtype=int)
    b = np.array([place[c][r] for c, r in zip(owner, pairs["b"].values, strict=True)], dtype=int)
    rows = {cell.id: np.flatnonzero(owner == cell.id) for cell in cells}
    for metric in parts:
        for column in CELL_METRICS[metric].columns:
            if column.dims or column.name not in pairs:
                continue
            values = pairs[column.name].values
            means = [
                pair_mean(values[at], a[at], b[at]) for at in (rows[cell.id] for cell in cells)
            ]
            mean, error, count = (np.array(part) for part in zip(*means, strict=True))
            name = column.name
            doc = f"{column.text(_unit(plan))}; mean over pairs"
            found[name] = TableColumn(("cell",), mean, doc)
            doc = "its standard error, jackknife over members"
            found[f"{name}_se"] = TableColumn(("cell",), error, doc)
            doc = f"pairs that {name} is the mean of"
            found[f"{name}_pairs"] = TableColumn(("cell",), count.astype(np.int64), doc)
    return found


def _identity(plan: Plan, cells: Sequence[Cell]) -> dict[str, TableColumn]:
    most = max((len(cell.run_ids) for cell in cells), default=0)
    members = [[*cell.run_ids, *[""] * (most - len(cell.run_ids))] for cell in cells]
    first = [plan.cohorts[cell.members[0][0]] for cell in cells]
    runs = [c.runs[cell.members[0][1]] for c, cell in zip(first, cells, strict=True)]
    found = {
        "cell": TableColumn(("cell",), _text([c.id for c in cells]), "id of the cell"),
        "cohort": TableColumn(("cell",), _text([c.id for c in first]), "of the first member"),
        "members": TableColumn(("cell", "member"), _text(members), "run ids, padded with nothing"),
        "chance_loss": TableColumn(
            ("cell",), np.array([c.guessing for c in first]), "loss of guessing"
        ),
    }
    for axis, name in plan.axes.items():
        texts = [_shown(getattr(run, name, None)) for run in runs]
        found[axis] = TableColumn(("cell",), _text(texts), f"value of {name}")
    return found


def _shown(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _text(values: Any) -> NDArray[np.str_]:
    return np.array(values, dtype=np.str_)


def _member_means(
    reader: StoreReader, cells: Sequence[Cell], from_end: int, models: _ModelParts
) -> dict[str, TableColumn]:
    """Return means over members of what training recorded, and of what was computed."""
    values: dict[str, tuple[list[list[float]], str]] = {}

    def gather(name: str, columns: Sequence[NDArray[Any]], doc: str) -> None:
        rows = [[float(columns[c][r]) for c, r in cell.members] for cell in cells]
        values[name] = (rows, doc)

    for name, unit in _measures(reader.plan).items():
        gather(
            name,
            [_recorded(c, name, from_end) for c in reader.cohorts],
            f"{name.replace('_', ' ')} as training recorded it{unit}; mean over members",
        )
    for metric, wanted in (("curvature", _FROM_MODELS), ("behaviour", ("collapsed",))):
        if (metric, from_end) in models:
            for name in wanted:
                columns = [np.full(c.cohort.models, np.nan) for c in reader.cohorts]
                for members, arrays in models[metric, from_end]:
                    for (position, row), value in zip(members, arrays[name], strict=True):
                        columns[position][row] = value
                gather(name, columns, f"{name} of the members, mean")
    found: dict[str, TableColumn] = {}
    count = np.array([len(cell.members) for cell in cells], dtype=np.int64)
    found["models"] = TableColumn(("cell",), count, "members")
    fine = np.array([np.isfinite(row).sum() for row in values["train_loss"][0]], dtype=np.int64)
    found["finite_models"] = TableColumn(("cell",), fine, "members that did not diverge")
    if "collapsed" in values:
        rows = values.pop("collapsed")[0]
        flags = np.array([np.nansum(row) for row in rows]).astype(np.int64)
        doc = "members that predict the same throughout"
        found["collapsed_models"] = TableColumn(("cell",), flags, doc)
    for name, (of_cells, doc) in values.items():
        pairs = [_mean_and_error(np.array(row)) for row in of_cells]
        found[name] = TableColumn(("cell",), np.array([m for m, _ in pairs]), doc)
        found[f"{name}_se"] = TableColumn(
            ("cell",), np.array([e for _, e in pairs]), "its standard error, over members"
        )
    return found


def _measures(plan: Plan) -> dict[str, str]:
    """Return what cells have the means of: name -> unit, with a comma."""
    objectives = [cohort_objective(cohort) for cohort in plan.cohorts]
    unit = _unit(plan)
    found = {"loss": f", {unit}" if unit else ""}
    if any(objective.classifies for objective in objectives):
        found["error"] = ", percent"
    if not all(objective.classifies for objective in objectives):
        found["r2"] = ""
    return {f"{part}_{name}": u for part in ("train", "test") for name, u in found.items()}


def _recorded(source: Any, name: str, from_end: int) -> NDArray[np.float64]:
    k = source.cohort.checkpoints - 1 - from_end
    if k < 0:
        return np.full(source.cohort.models, np.nan)
    stem, _, what = name.partition("_")
    kept = f"{stem}_accuracy" if what == "error" else name
    if what != "loss" and kept.partition("_")[2] not in cohort_objective(source.cohort).measures:
        return np.full(source.cohort.models, np.nan)
    values = source.metric(kept)[:, k].astype(np.float64)
    return np.asarray(100 * (1 - values) if what == "error" else values)


def _mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    fine = values[np.isfinite(values)]
    if not len(fine):
        return math.nan, math.nan
    error = float(fine.std(ddof=1) / math.sqrt(len(fine))) if len(fine) > 1 else math.nan
    return float(fine.mean()), error
