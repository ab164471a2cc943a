"""The accuracy picture of a zoo: heat maps over load x temperature, and learning curves."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.dataset import Zoo
from zoo.report.figures import epoch_axis, literal, new_figure
from zoo.report.grid import (
    Axis,
    Curve,
    Panel,
    check_recorded,
    choose_axes,
    learning_curves,
    panel_groups,
    panels,
    pooled_in,
)
from zoo.report.picture_file import check_picture, save_figure
from zoo.report.pooling import is_diet, pooled_words
from zoo.spec.run import field_infos

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_figure", "accuracy_plot"]

#: Ordered, readable in grey, and told apart by colour-blind readers.
COLOURS = "viridis"

#: The mark of diverged runs.
CROSS = "\N{MULTIPLICATION SIGN}"

_MAX_CURVES = 8
_MAX_ANNOTATED = 100
_COLUMNS = 3
#: Letters of a line above a panel.
_TITLE_LETTERS = 44


def accuracy_plot(
    zoo: Zoo,
    path: str | os.PathLike[str],
    *,
    value: str | None = None,
    load: str | None = None,
    temperature: str | None = None,
    panel: str | Sequence[str] | None = None,
) -> Path:
    """Write a picture of a metric over the axes of a zoo, and return its path.

    For each value of ``panel`` a heat map of the mean of each run's last checkpoint, over load and
    temperature; runs that diverged are left out of the mean and counted with a cross. With it the
    metric against epoch for levels of the load axis, mean and 10-90 % band over runs. The last
    lines of the picture say which fields are pooled over.

    Args:
        zoo: the zoo.
        path: the file; its ending decides the format (``.png``, ``.pdf``, ``.svg``).
        value: the metric; None = the zoo's headline.
        load: column of the x axis; None = the sweep's load axis, or a varying field.
        temperature: column of the y axis, the same way.
        panel: column, or columns, with one panel per value; None = what else varies, as long as
            there are few panels (:func:`zoo.report.pooling.split_fields`).

    Raises:
        ImportError: matplotlib is not installed.
        QueryError: an unknown column, a metric that is not one, or a path that cannot be drawn to.
        NameTakenError: something else than a picture of ours is at the path.
    """
    check_recorded(zoo, value or zoo.headline())
    check_picture(path)
    figure = accuracy_figure(
        zoo, value or zoo.headline(), load=load, temperature=temperature, panel=panel
    )
    return save_figure(figure, path, dpi=140)


def accuracy_figure(
    zoo: Zoo,
    value: str,
    *,
    load: str | None = None,
    temperature: str | None = None,
    panel: str | Sequence[str] | None = None,
) -> Figure:
    """Return the figure of :func:`accuracy_plot`."""
    first, second, split = choose_axes(zoo, load, temperature, panel)
    x, y, maps = panels(zoo, first, second, split, value=value)
    # a curve is one of a diet too, where the map has the diets as its rows
    curve_split = (*split, second) if is_diet(second) and second not in split else split
    curves = _curve_panels(zoo, x, curve_split, value)
    figure, parts = _lay_out(len(maps), len(curves))
    _draw_maps(parts[0], maps, x, y, value)
    _draw_curves(parts[1], curves, x, value, log=zoo.plan.record.log_steps is not None)
    figure.suptitle(literal(_title(zoo)), fontsize=12)
    notes = _notes(maps, pooled_in(zoo, (x, y), split), pooled_in(zoo, (x,), curve_split), x)
    letters = int(14 * figure.get_figwidth())
    text = "\n".join(line for note in notes for line in textwrap.wrap(note, letters))
    figure.supxlabel(literal(text), fontsize=8.5, color="0.25", x=0.01, ha="left")
    return figure


def _curve_panels(
    zoo: Zoo, load: Axis, split: Sequence[str], value: str
) -> list[tuple[str, list[Curve]]]:
    """Return the title and the curves of each panel; one empty panel where nothing is recorded."""
    view = zoo.query()
    if not len(view):
        return [("", [])]
    runs = view.table(dict.fromkeys((*split, "run_id")))
    return [
        (title, learning_curves(view[np.flatnonzero(here)], load, value=value))
        for title, here in panel_groups(runs, split)
    ]


def _lay_out(maps: int, curves: int) -> tuple[Figure, Any]:
    """Return a figure, and its parts for maps and for curves: side by side if there is one each."""
    if maps == curves == 1:
        figure = new_figure(9.9, 5.6)
        return figure, figure.subfigures(1, 2, width_ratios=[3.9, 5.3])
    lines = [-(-n // _COLUMNS) for n in (maps, curves)]
    heights = [3.1 * lines[0] + 0.5, 2.7 * lines[1] + 0.4]
    figure = new_figure(2.9 * min(max(maps, curves), _COLUMNS) + 2.0, sum(heights) + 1.2)
    return figure, figure.subfigures(2, 1, height_ratios=heights)


def _notes(
    maps: list[Panel], of_cell: Mapping[str, list[Any]], of_curve: Mapping[str, list[Any]], x: Axis
) -> list[str]:
    """Return the lines below the picture: what is pooled over, and what the marks mean."""
    over = f"over {pooled_words(of_cell)}" if of_cell else "of one run"
    notes = [f"Each cell: mean {over}, at the last checkpoint of each run."]
    over = f"over {pooled_words(of_curve)}" if of_curve else "of one run"
    notes.append(
        f"Each curve: mean and 10-90 % {over}; diverged runs count up to their last checkpoint."
    )
    if len(x) > _MAX_CURVES:
        notes.append(f"Curves are drawn for {_MAX_CURVES} of {len(x)} levels of {x.name}.")
    marks = []
    if any(m.diverged.any() for m in maps):
        marks.append(f"{CROSS} n: n diverged runs, not in the mean")
    if any((np.isnan(m.mean) & (m.planned > 0)).any() for m in maps):
        marks.append("hatched: no run with a value")
    if any((m.planned == 0).any() for m in maps):
        marks.append("blank: no run in the sweep")
    return [*notes, *(["; ".join(marks).capitalize() + "."] if marks else [])]


def _title(zoo: Zoo) -> str:
    status = ", ".join(f"{n:,} {state}" for state, n in zoo.status().items() if n)
    recorded = sum(int(table.recorded.sum()) for table in zoo.tables)
    return f"{zoo.name}: {len(zoo):,} models ({status}), {recorded:,} checkpoints"


def _axis_label(axis: Axis) -> str:
    info = field_infos().get(axis.name)
    bins = f" ({len(axis)} bins of runs)" if axis.edges is not None else ""
    return literal(f"{axis.name}{bins}" + (f"\n{info.doc.split(';')[0]}" if info else ""))


def _words(value: str) -> str:
    return value.replace("_", " ").replace("r2", "R²")


def _draw_maps(figure: Any, maps: list[Panel], x: Axis, y: Axis, value: str) -> None:
    """Draw the heat map of each panel, all on one colour scale."""
    columns = min(len(maps), _COLUMNS)
    lines = -(-len(maps) // columns)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    known = np.concatenate([m.mean.ravel() for m in maps])
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    image = None
    for axes, panel in zip(grid.flat, maps, strict=False):
        image = _draw_map(axes, panel, x, y, low, high)
    for axes in list(grid.flat)[len(maps) :]:
        axes.set_visible(False)
    # a column whose lowest panel is hidden takes its labels on the panel above
    for column in range(columns):
        lowest = max(i for i in range(len(maps)) if i % columns == column)
        axes = grid.flat[lowest]
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(_axis_label(x))
    for axes in grid[:, 0]:
        axes.set_ylabel(_axis_label(y))
    if image is not None:
        bar = figure.colorbar(image, ax=grid, fraction=0.05, pad=0.02)
        bar.set_label(f"mean {_words(value)}, last checkpoint")


def _draw_map(axes: Axes, panel: Panel, x: Axis, y: Axis, low: float, high: float) -> Any:
    from matplotlib.patches import Rectangle

    image = axes.imshow(
        np.ma.masked_invalid(panel.mean),
        origin="lower",
        aspect="auto",
        cmap=COLOURS,
        vmin=low,
        vmax=high if high > low else low + 1e-6,
        interpolation="nearest",
    )
    axes.set_xticks(
        range(len(x)), [literal(t) for t in x.labels], rotation=90 if _crowded(x) else 0
    )
    axes.set_yticks(range(len(y)), [literal(t) for t in y.labels])
    axes.tick_params(length=0)
    if panel.title:
        axes.set_title(_wrapped(panel.title), fontsize=9)
    annotated = panel.mean.size <= _MAX_ANNOTATED
    decimals = int(np.clip(1 - np.floor(np.log10(max(high - low, 1e-6))), 2, 4))
    for (row, column), mean in np.ndenumerate(panel.mean):
        lost = int(panel.diverged[row, column])
        if np.isnan(mean) and panel.planned[row, column]:
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor="0.93", edgecolor="0.75", hatch="///"
                )
            )
        text = f"{mean:.{decimals}f}" if annotated and not np.isnan(mean) else ""
        if lost:
            mark = f"{CROSS} {lost}" if annotated else CROSS
            text = f"{text}\n{mark}" if text else mark
        if text:
            dark = np.isnan(mean) or (mean - low) / max(high - low, 1e-6) > 0.6
            axes.text(
                column, row, text, ha="center", va="center", fontsize=7,
                color="black" if dark else "white",
            )  # fmt: skip
    return image


def _crowded(axis: Axis) -> bool:
    return sum(len(label) + 1 for label in axis.labels) > 28


def _draw_curves(
    figure: Any, curves: list[tuple[str, list[Curve]]], load: Axis, value: str, *, log: bool
) -> None:
    """Draw the curves of each panel, on axes of one scale and with one legend."""
    from matplotlib import colormaps

    columns = min(len(curves), _COLUMNS)
    grid = figure.subplots(-(-len(curves) // columns), columns, squeeze=False, sharey=True)
    shown = list(load.labels)
    if len(shown) > _MAX_CURVES:
        at = np.linspace(0, len(shown) - 1, _MAX_CURVES).round().astype(int)
        shown = [shown[i] for i in at]
    # the pale end of the colour map cannot be seen on white
    colours = dict(zip(shown, colormaps[COLOURS](np.linspace(0, 0.85, len(shown))), strict=True))
    lines: dict[str, Any] = {}
    for axes, (title, group) in zip(grid.flat, curves, strict=False):
        for curve in (c for c in group if c.label in colours):
            colour = colours[curve.label]
            axes.fill_between(curve.epoch, curve.low, curve.high, color=colour, alpha=0.12, lw=0)
            style = {"color": colour, "lw": 1.8, "marker": "."}
            lines[curve.label] = axes.plot(curve.epoch, curve.mean, **style)[0]
        last = max((float(c.epoch.max()) for c in group), default=1.0)
        epoch_axis(axes, last, log=log)
        axes.set_xlabel("epoch")
        axes.set_title(_wrapped(title), fontsize=9)
        axes.grid(visible=True, color="0.9", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(grid.flat)[len(curves) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(_words(value))
    if lines:
        known = [label for label in shown if label in lines]
        figure.legend(
            [lines[label] for label in known], [literal(label) for label in known],
            title=literal(load.name), loc="outside right upper", fontsize=8, title_fontsize=8,
            frameon=False,
        )  # fmt: skip


def _wrapped(title: str) -> str:
    return literal(textwrap.fill(title, _TITLE_LETTERS))
