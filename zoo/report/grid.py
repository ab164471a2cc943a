"""What the accuracy picture shows, as arrays: cells of a load x temperature grid, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import View, Zoo
from zoo.dataset.table import group_codes
from zoo.errors import QueryError
from zoo.report.pooling import is_seed, pooled_values, split_fields

__all__ = [
    "Axis", "Curve", "Panel", "check_recorded", "choose_axes", "learning_curves", "level_text",
    "make_axis", "panel_groups", "panels", "pooled_in",
]  # fmt: skip

_MAX_LEVELS = 24
_BINS = 12
_LOST = ("diverged", "failed")


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """The levels of one axis of the picture.

    Args:
        name: the column.
        labels: one per level, in order.
        edges: upper edges of all bins but the last, for a numeric axis with many values.
        values: the value of each level where every value is a level.
    """

    name: str
    labels: tuple[str, ...]
    values: NDArray[Any]
    edges: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def codes(self, column: NDArray[Any]) -> NDArray[np.intp]:
        """Return the level of each value, from 0."""
        if self.edges is not None:
            return np.searchsorted(self.edges, column, side="left")
        return np.searchsorted(self.values, column)


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One heat map, temperature levels by load levels.

    Args:
        title: what tells its runs from those of other panels; empty where nothing does.
        mean: ``[T, L]`` mean over the runs that did not diverge or fail; NaN where there is none.
        n: ``[T, L]`` number of those runs.
        diverged: ``[T, L]`` number of diverged runs.
        planned: ``[T, L]`` number of runs of any kind.
    """

    title: str
    mean: NDArray[np.float64]
    n: NDArray[np.int64]
    diverged: NDArray[np.int64]
    planned: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The learning curve of one level of the load axis.

    Args:
        label: the level.
        epoch: ``[E]``.
        mean, low, high: ``[E]`` mean, and 10th and 90th percentile over runs.
    """

    label: str
    epoch: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def choose_axes(
    zoo: Zoo,
    load: str | None = None,
    temperature: str | None = None,
    panel: str | Sequence[str] | None = None,
) -> tuple[str, str, tuple[str, ...]]:
    """Return the columns for load and temperature, and those that panels are made by.

    What is not given is the sweep's own axis, or else a varying field: numbers first, seeds last.
    The panels are by :func:`zoo.report.pooling.split_fields`.

    Raises:
        QueryError: a column that is unknown, or has one value per checkpoint rather than per run.
    """
    given = (panel,) if isinstance(panel, str) else None if panel is None else tuple(panel)
    for name in (load, temperature, *(given or ())):
        if name is not None and (name not in zoo.columns or zoo.column_info[name].per != "run"):
            zoo.runs(columns=[name])
    varying = [name for name in zoo.varying if not is_seed(name)]
    numbers = [name for name in varying if zoo.plan.run_fields[name].kind in ("int", "float")]
    # width and batch size are what every zoo has, so they stand for an axis that does not vary
    spare = [*numbers, *varying, "width", "batch_size", "lr"]
    first = load or zoo.axes.get("load") or next(n for n in spare if n != temperature)
    second = temperature or zoo.axes.get("temperature") or next(n for n in spare if n != first)
    if given is None:
        left = [name for name in varying if name not in (first, second)]
        table = zoo.runs(columns=list(dict.fromkeys((first, second, *left))))
        columns = {name: table[name] for name in table.dtype.names or ()}
        given = split_fields(columns, (first, second), left)
    return first, second, given


def make_axis(name: str, column: NDArray[Any]) -> Axis:
    """Return the levels of a column: its values, or twelve quantile bins where they are many."""
    values = np.unique(column)
    if len(values) <= _MAX_LEVELS or values.dtype.kind not in "iuf":
        return Axis(name, tuple(level_text(v) for v in values.tolist()), values)
    edges = np.unique(np.quantile(column, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, column, side="left")
    middles = [float(np.median(column[bins == b])) for b in np.unique(bins)]
    return Axis(name, tuple(f"~{m:.3g}" for m in middles), np.array(middles), edges)


def panels(
    zoo: Zoo, load: str, temperature: str, split: Sequence[str], *, value: str = "test_accuracy"
) -> tuple[Axis, Axis, list[Panel]]:
    """Return the load axis, the temperature axis and a heat map for each value of ``split``."""
    names = list(dict.fromkeys(("run_id", "status", load, temperature, *split)))
    runs = zoo.runs(columns=names)
    x, y = make_axis(load, runs[load]), make_axis(temperature, runs[temperature])
    last = zoo.query("epoch == -1")
    order = np.argsort(runs["run_id"])
    at = order[np.searchsorted(runs["run_id"], last.column("run_id"), sorter=order)]
    score = np.full(len(runs), np.nan)
    score[at] = last.column(value)
    lost = np.isin(runs["status"], _LOST)
    cell = y.codes(runs[temperature]) * len(x) + x.codes(runs[load])
    found = []
    for title, here in panel_groups(runs, split):
        used = here & ~lost & np.isfinite(score)
        n = _count(cell[used], y, x)
        total = np.bincount(cell[used], score[used], minlength=len(x) * len(y)).reshape(n.shape)
        mean = np.where(n > 0, total / np.maximum(n, 1), np.nan)
        diverged = _count(cell[here & (runs["status"] == "diverged")], y, x)
        found.append(Panel(title, mean, n, diverged, _count(cell[here], y, x)))
    return x, y, found


def panel_groups(runs: NDArray[Any], split: Sequence[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return the title of each panel, and which rows of a table are in it."""
    codes, first = group_codes([np.zeros(len(runs), np.int64), *(runs[name] for name in split)])
    told = [name for name in split if len(group_codes([runs[name]])[1]) > 1] or list(split)
    return [
        (", ".join(f"{n} = {level_text(runs[n][at].item())}" for n in told), codes == group)
        for group, at in enumerate(first.tolist())
    ]


def learning_curves(view: View, load: Axis, *, value: str = "test_accuracy") -> list[Curve]:
    """Return one curve per level of the load axis, over the checkpoints of a view.

    Checkpoints are pooled by epoch; where the runs share few epochs (checkpoint plans in steps),
    by checkpoint index, at the mean epoch.
    """
    score = view.column(value).astype(np.float64)
    epoch, index = view.column("epoch"), view.column("checkpoint")
    level = load.codes(view.column(load.name))
    shared = len(np.unique(epoch)) <= 3 * len(np.unique(index))
    curves = []
    for code in range(len(load)):
        at = np.flatnonzero((level == code) & np.isfinite(score))
        if not len(at):
            continue
        groups, first = group_codes([(epoch if shared else index)[at]])
        parts = [at[groups == g] for g in range(len(first))]
        low, high = np.array([np.quantile(score[p], [0.1, 0.9]) for p in parts]).T
        x = np.array([epoch[p].mean() for p in parts])
        mean = np.array([score[p].mean() for p in parts])
        curves.append(Curve(load.labels[code], x, mean, low, high))
    return curves


def pooled_in(zoo: Zoo, axes: Sequence[Axis], split: Sequence[str]) -> dict[str, list[Any]]:
    """Return the fields that differ among runs of one level of each axis, in one panel."""
    names = [name for name in zoo.varying if name not in (*split, *(a.name for a in axes))]
    runs = zoo.runs(columns=list(dict.fromkeys((*(a.name for a in axes), *split, *names))))
    columns: dict[str, NDArray[Any]] = {name: runs[name] for name in (*split, *names)}
    columns |= {axis.name: axis.codes(runs[axis.name]) for axis in axes}
    return pooled_values(columns, [*(a.name for a in axes), *split], names)


def check_recorded(zoo: Zoo, value: str) -> None:
    """Raise unless ``value`` is a recorded metric.

    Raises:
        QueryError: it is not.
    """
    if value not in zoo.columns or zoo.column_info[value].per != "checkpoint":
        metrics = [c.name for c in zoo.column_info.values() if c.per == "checkpoint"]
        msg = f"{value!r} is not recorded at checkpoints; allowed: {', '.join(metrics)}"
        raise QueryError(msg)


def _count(cells: NDArray[np.intp], y: Axis, x: Axis) -> NDArray[np.int64]:
    counts = np.bincount(cells, minlength=len(x) * len(y))
    return counts.reshape(len(y), len(x)).astype(np.int64)


def level_text(value: Any) -> str:
    """Return a value of a column as a label."""
    if isinstance(value, float):
        return "none" if value != value else f"{value:.4g}"
    return str(value) or "none"
