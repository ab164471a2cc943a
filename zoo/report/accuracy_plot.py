"""The accuracy picture of a zoo: heat maps over load x temperature, and learning curves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.dataset import Zoo
from zoo.report.grid import (
    Axis,
    Curve,
    Panel,
    check_value,
    choose_axes,
    learning_curves,
    panels,
)
from zoo.spec.run import field_infos

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["accuracy_plot"]

#: Ordered, readable in grey, and told apart by colour-blind readers.
COLOURS = "viridis"

#: The mark of diverged runs.
CROSS = "\N{MULTIPLICATION SIGN}"

_MAX_CURVES = 8
_MAX_ANNOTATED = 100
_COLUMNS = 3


def accuracy_plot(
    zoo: Zoo,
    path: str | os.PathLike[str],
    *,
    value: str = "test_accuracy",
    load: str | None = None,
    temperature: str | None = None,
    panel: str | None = None,
) -> Path:
    """Write a picture of a metric over the axes of a zoo, and return its path.

    Left: for each level of ``panel`` a heat map of the mean of each run's last checkpoint, over
    load and temperature; runs that diverged are left out of the mean and counted with a cross.
    Right: the metric against epoch for levels of the load axis, mean and 10-90 % band over runs.

    Args:
        zoo: the zoo.
        path: the file; its ending decides the format (``.png``, ``.pdf``, ``.svg``).
        value: the metric.
        load: column of the x axis; None = the sweep's load axis, or a varying field.
        temperature: column of the y axis, the same way.
        panel: column with one heat map a value; None = the norm, or another field of few values.

    Raises:
        ImportError: matplotlib is not installed.
        QueryError: an unknown column, or a metric that is not one.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "accuracy_plot needs matplotlib: pip install 'phasezoo[plot]'"
        raise ImportError(msg) from error
    check_value(zoo, value)
    names = choose_axes(zoo, load, temperature, panel)
    x, y, maps = panels(zoo, *names, value=value)
    curves = learning_curves(zoo.query(), x, value=value)
    columns = min(len(maps), _COLUMNS)
    lines = -(-len(maps) // columns)
    figure = Figure(
        figsize=(2.9 * columns + 6.3, max(4.6, 3.0 * lines + 1.2)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(1, 2, width_ratios=[2.9 * columns + 1.0, 5.3])
    left, right = parts
    _draw_maps(left, maps, x, y, value, columns)
    _draw_curves(right.subplots(), curves, x, value, log=zoo.plan.record.log_steps is not None)
    figure.suptitle(_title(zoo), fontsize=12)
    if any(m.diverged.any() for m in maps):
        left.supxlabel(f"{CROSS} n: n diverged runs, not in the mean", fontsize=8, color="0.3")
    target = Path(path)
    figure.savefig(target, dpi=140)
    return target


def _title(zoo: Zoo) -> str:
    status = ", ".join(f"{n:,} {state}" for state, n in zoo.status().items() if n)
    recorded = sum(int(table.recorded.sum()) for table in zoo.tables)
    return f"{zoo.name}: {len(zoo):,} models ({status}), {recorded:,} checkpoints"


def _axis_label(name: str, role: str) -> str:
    info = field_infos().get(name)
    doc = f"\n{info.doc.split(';')[0]}" if info else ""
    return f"{role}: {name}{doc}" if role else f"{name}{doc}"


def _words(value: str) -> str:
    return value.replace("_", " ")


def _draw_maps(figure: Any, maps: list[Panel], x: Axis, y: Axis, value: str, columns: int) -> None:
    """Draw one heat map a panel, all on one colour scale."""
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
    for axes in grid[-1]:
        axes.set_xlabel(_axis_label(x.name, ""))
    # a column whose lowest panel is hidden takes its labels on the panel above
    for column in range(columns):
        lowest = max(i for i in range(len(maps)) if i % columns == column)
        axes = grid.flat[lowest]
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(_axis_label(x.name, ""))
    for axes in grid[:, 0]:
        axes.set_ylabel(_axis_label(y.name, ""))
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
    axes.set_xticks(range(len(x)), x.labels, rotation=90 if _crowded(x) else 0)
    axes.set_yticks(range(len(y)), y.labels)
    axes.tick_params(length=0)
    if panel.title:
        axes.set_title(panel.title, fontsize=10)
    annotated = panel.mean.size <= _MAX_ANNOTATED
    decimals = int(np.clip(1 - np.floor(np.log10(max(high - low, 1e-6))), 2, 4))
    for (row, column), mean in np.ndenumerate(panel.mean):
        lost = int(panel.diverged[row, column])
        if np.isnan(mean):
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


def _draw_curves(axes: Axes, curves: list[Curve], load: Axis, value: str, *, log: bool) -> None:
    from matplotlib import colormaps

    if len(curves) > _MAX_CURVES:
        at = np.linspace(0, len(curves) - 1, _MAX_CURVES).round().astype(int)
        curves = [curves[i] for i in at]
    # the pale end of the colour map cannot be seen on white
    colours = colormaps[COLOURS](np.linspace(0.0, 0.85, max(len(curves), 2)))
    for colour, curve in zip(colours, curves, strict=False):
        axes.fill_between(curve.epoch, curve.low, curve.high, color=colour, alpha=0.12, lw=0)
        axes.plot(curve.epoch, curve.mean, color=colour, lw=1.8, marker=".", label=curve.label)
    if log:
        axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(_words(value))
    axes.set_title(
        "mean and 10-90 % of runs, diverged runs up to their last checkpoint", fontsize=9
    )
    axes.grid(visible=True, color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.legend(title=_axis_label(load.name, ""), fontsize=8, title_fontsize=8, frameon=False)
