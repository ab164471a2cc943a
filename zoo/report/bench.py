"""The benchmark's table and picture: what weights say, beside what is known without them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.dataset.benchmark import CONTROLS, BenchRow
from zoo.report.figures import literal, new_figure
from zoo.report.picture_file import check_picture, save_figure
from zoo.report.tables import format_table

__all__ = ["bench_plot", "bench_table"]

_CONTROL, _WEIGHTS = "#b0722d", "#2c6fa6"
_COLUMNS = 3
#: Far below the mean's own R² = 0 there is nothing to tell apart.
_LOWEST = -0.55


def bench_table(rows: Sequence[BenchRow], *, style: str = "plain") -> str:
    """Return one line for each input and model, one column for each task.

    A cell is R² (numbers) or accuracy (classes) with its 95 % interval. Kendall's τ is in
    :meth:`BenchRow.to_json`.

    Args:
        rows: from :func:`zoo.dataset.benchmark.benchmark`.
        style: ``"plain"`` or ``"markdown"``.
    """
    tasks = list(dict.fromkeys(row.task for row in rows))
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        kind = "control" if row.control else "weights"
        line = lines.setdefault(
            (row.inputs, row.model), {"": kind, "inputs": row.inputs, "model": row.model}
        )
        line[_heading(row)] = f"{row.score.value:.3f} ({row.score.low:.2f} to {row.score.high:.2f})"
    headings = [_heading(next(r for r in rows if r.task == task)) for task in tasks]
    return format_table(list(lines.values()), ["", "inputs", "model", *headings], style=style)


def _heading(row: BenchRow) -> str:
    if row.metric == "r2":
        return f"{row.task} R²"
    return f"{row.task} acc (chance {row.chance:.2f})"


def bench_plot(rows: Sequence[BenchRow], path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Write a picture: a panel for each task, a dot with its interval for each input and model.

    Args:
        rows: from :func:`zoo.dataset.benchmark.benchmark`.
        path: the file; its ending decides the format.
        title: above the panels.

    Raises:
        ImportError: matplotlib is not installed.
        QueryError: a path that cannot be drawn to.
        NameTakenError: something else than a picture of ours is at the path.
    """
    check_picture(path)
    tasks = list(dict.fromkeys(row.task for row in rows))
    labels = list(dict.fromkeys((row.inputs, row.model) for row in rows))
    columns = min(_COLUMNS, len(tasks))
    lines = -(-len(tasks) // columns)
    height = 0.24 * len(labels) + 1.1
    figure = new_figure(3.1 * columns + 2.4, height * lines + 0.7)
    grid: Any = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(tasks) :]:
        axes.set_visible(False)
    for axes, task in zip(grid.flat, tasks, strict=False):
        _draw(axes, [row for row in rows if row.task == task], labels)
    for line in grid:
        line[0].set_yticks(range(len(labels)), [f"{i}, {m}" for i, m in labels], fontsize=8)
        for tick, (inputs, _) in zip(line[0].get_yticklabels(), labels, strict=True):
            tick.set_color(_CONTROL if inputs in CONTROLS else _WEIGHTS)
    grid[0][0].invert_yaxis()  # for all: they share the axis
    figure.suptitle(literal(title), fontsize=11)
    figure.supxlabel(
        "controls (no weights) in brown, weights in blue; bars: 95 %, resampled configurations; "
        "shaded: up to the best control; dotted: chance",
        fontsize=8,
    )
    return save_figure(figure, path, dpi=140)


def _draw(axes: Any, rows: Sequence[BenchRow], labels: Sequence[tuple[str, str]]) -> None:
    is_class = rows[0].metric == "accuracy"
    floor = 0.0 if is_class else _LOWEST
    axes.axvline(rows[0].chance if is_class else 0.0, color="0.6", linewidth=0.8, linestyle=":")
    for row in rows:
        y = labels.index((row.inputs, row.model))
        colour = _CONTROL if row.control else _WEIGHTS
        if row.score.value < floor:
            axes.plot(floor + 0.02, y, marker="<", color=colour, markersize=6)
            text = f"{row.score.value:.1f}"
            axes.annotate(text, (floor + 0.08, y), fontsize=7, va="center", color=colour)
            continue
        low, high = max(row.score.low, floor), row.score.high
        axes.plot([low, high], [y, y], color=colour, linewidth=1.6)
        axes.plot(row.score.value, y, "o", color=colour, markersize=4.5)
    best = max(r.score.value for r in rows if r.control) if any(r.control for r in rows) else None
    if best is not None:
        axes.axvspan(floor, max(best, floor), color=_CONTROL, alpha=0.08, linewidth=0)
    axes.set_xlim(floor, 1.03)
    axes.set_title(f"{rows[0].task}: {'accuracy' if is_class else 'R²'}", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
