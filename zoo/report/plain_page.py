"""The page of a zoo that has no phases: what was recorded, over its axes and over the epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import Zoo
from zoo.report.accuracy_plot import accuracy_figure
from zoo.report.grid import choose_axes
from zoo.report.groups import group_table
from zoo.report.markup import Html, element
from zoo.report.page_html import Picture, document, facts_list, figure, number, table
from zoo.report.picture_file import png_bytes
from zoo.report.tables import json_rows
from zoo.store import newest_table, read_table
from zoo.train.task_data import cohort_objective

__all__ = ["has_phases", "plain_page", "plain_pictures"]

_DPI = 150
#: Of a table of cells, where landscape metrics have been computed.
_LISTED = (
    "load", "temperature", "models", "train_loss", "test_loss", "train_r2", "test_r2", "lambda_max",
    "hessian_trace", "mode_connectivity_loss", "linear_barrier", "cka",
)  # fmt: skip


def has_phases(zoo: Zoo) -> bool:
    """Return whether any model of a zoo predicts what is right or wrong, as phases need it."""
    return any(cohort_objective(cohort).classifies for cohort in zoo.plan.cohorts)


def plain_pictures(zoo: Zoo, tell: Callable[[str], None]) -> list[Picture]:
    """Return a picture of the headline and one of each loss: maps over the axes, and curves."""
    found = []
    for value in dict.fromkeys((zoo.headline(), "test_loss", "train_loss")):
        words = _words(value)
        tell(words)
        png = png_bytes(accuracy_figure(zoo, value), _DPI)
        found.append(
            Picture(value, words[:1].upper() + words[1:], zoo.column_info[value].doc, png, png)
        )
    return found


def _words(name: str) -> str:
    return name.replace("_", " ").replace("r2", "R²")


def plain_page(zoo: Zoo, pictures: list[Picture]) -> str:
    """Return the whole page as text."""
    states = ", ".join(f"{n:,} {state}" for state, n in zoo.status().items() if n)
    recorded = sum(int(table.recorded.sum()) for table in zoo.tables)
    objectives = dict.fromkeys(cohort.runs[0].objective for cohort in zoo.plan.cohorts)
    first, second, _ = choose_axes(zoo)
    facts = {
        "models": f"{len(zoo):,} ({states})",
        "checkpoints": f"{recorded:,}",
        "load by temperature": f"{first} by {second}".replace("_", " "),
        "data": ", ".join(zoo.plan.data),
        "objective": ", ".join(objectives),
    }
    body = [facts_list(zoo.name, facts), _groups(zoo, [first, second])]
    for picture in pictures:
        body += [element("h2", picture.title), figure(picture)]
    return document(zoo.name, [*body, *_cells(zoo.path)])


def _groups(zoo: Zoo, by: list[str]) -> Html:
    """Return the means of what is recorded, of each run's last checkpoint."""
    view = zoo.query("epoch == -1")
    names = dict.fromkeys((zoo.headline(), "train_loss", "test_loss"))
    tables = {name: group_table(view, by, name) for name in names}
    rows = []
    for index, row in enumerate(json_rows(next(iter(tables.values())))):
        means = [float(found["mean"][index]) for found in tables.values()]
        rows.append([*(number(row[n]) for n in by), row["n"], *(number(m) for m in means)])
    heads = [_words(n) for n in (*by, "models", *names)]
    return table(heads, rows)


def _cells(path: Path | None) -> list[Html]:
    """Return the newest table of cells, where there is one."""
    name = None if path is None else newest_table(path, "cells")
    if path is None or name is None:
        return []
    columns, _ = read_table(path, name)
    names = [n for n in _LISTED if n in columns and not _empty(columns[n])]
    rows = _rows({n: columns[n] for n in names})
    heads = [_words(n) for n in names]
    summary = element("summary", f"All {len(rows):,} cells, means over their models and pairs")
    return [element("details", summary, table(heads, rows))]


def _rows(columns: Mapping[str, NDArray[Any]]) -> list[list[str]]:
    values = [column.tolist() for column in columns.values()]
    return [[number(value) for value in row] for row in zip(*values, strict=True)]


def _empty(column: NDArray[Any]) -> bool:
    if column.dtype.kind == "f":
        return not bool(np.isfinite(column).any())
    return column.dtype.kind in "UT" and not any(column.tolist())
