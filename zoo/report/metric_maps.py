"""Heat maps of the numbers behind a phase diagram, with the borders of the phases on them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.report.cells import Grid
from zoo.report.colours import INK
from zoo.report.figures import NARROW, literal, new_figure
from zoo.report.phase_data import PhaseData
from zoo.report.phase_plot import axis_words, draw_borders, label_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MAPS", "MetricMap", "metric_figure", "shared_norm"]

_COLUMNS = 3
_MOST_WRITTEN = 110


@dataclass(frozen=True, slots=True)
class MetricMap:
    """How a number is drawn.

    Args:
        column: of the table of cells or labels.
        title: with the unit.
        scale: ``"linear"``, ``"log"`` or ``"signed"`` (two colours around zero, compressed).
        colours: name of a colour map.
        unit: maps of one unit share their scale; empty: the map has its own.
    """

    column: str
    title: str
    scale: str
    colours: str
    unit: str = ""


MAPS = (
    MetricMap("train_loss", "training loss (nats)", "log", "magma"),
    MetricMap("train_error", "training error (%)", "linear", "magma", "error"),
    MetricMap("test_error", "test error (%)", "linear", "magma", "error"),
    MetricMap("lambda_max", "sharpness: largest Hessian eigenvalue", "log", "cividis"),
    MetricMap("hessian_trace", "Hessian trace", "log", "cividis"),
    MetricMap("mode_connectivity", "mode connectivity (% error; red: barrier)", "signed", "RdBu"),
    MetricMap("cka", "similarity of outputs (CKA)", "linear", "viridis"),
    MetricMap("linear_barrier", "linear barrier (nats)", "linear", "viridis_r", "barrier"),
    MetricMap("linear_barrier_matched", "linear barrier, neurons matched (nats)", "linear",
              "viridis_r", "barrier"),
    MetricMap("disagreement", "disagreement of predictions (share)", "linear", "viridis_r"),
    MetricMap("l2_distance", "distance of weights (L2)", "linear", "viridis_r"),
    MetricMap("confidence", "confidence of the phase", "linear", "Greys"),
)  # fmt: skip


def metric_figure(data: PhaseData, grid: Grid, *, columns: int = 3) -> Figure | None:
    """Return the heat maps of one diagram, or None where no number is known.

    The colours of a number mean the same in every diagram, and in every map of its unit.

    Args:
        data: the labelled cells.
        grid: the diagram.
        columns: maps side by side at most.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = [m for m in MAPS if np.isfinite(grid.take(data.number(m.column))).any()]
    if not shown:
        return None
    wide, high = len(grid.load), len(grid.temperature)
    height = max(0.36 * high + 0.8, 2.4)
    if columns > 1:
        columns = min(columns, len(shown))
        lines = -(-len(shown) // columns)
        figure = new_figure(columns * max(0.42 * wide + 1.0, 3.4), lines * height + 0.8)
    else:
        lines = len(shown)
        figure = new_figure(NARROW, lines * height + 0.8)
    places = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, metric in zip(places, shown, strict=False):
        _draw(figure, axes, data, grid, metric)
    for axes in places[len(shown) :]:
        axes.set_visible(False)
    load, temperature = axis_words(data)
    figure.supxlabel(load, fontsize=10.5, color=INK)
    figure.supylabel(temperature, fontsize=10.5, color=INK)
    if grid.title:
        title = literal(textwrap.fill(grid.title, 30 * columns))
        figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left", weight="bold")
    return figure


def shared_norm(data: PhaseData, metric: MetricMap) -> Any:
    """Return the colour scale of a map: over every cell, and every map of its unit."""
    columns = [m.column for m in MAPS if m is metric or (m.unit and m.unit == metric.unit)]
    return _norm(np.concatenate([data.number(column) for column in columns]), metric.scale)


def _norm(values: NDArray[np.float64], scale: str) -> Any:
    from matplotlib.colors import LogNorm, Normalize, SymLogNorm

    known = values[np.isfinite(values)]
    low, top = float(known.min()), float(known.max())
    if scale == "log" and (known > 0).any():
        low = max(float(known[known > 0].min()), top * 1e-6)
        return LogNorm(low, max(top, low * 1.01))
    if scale == "signed":
        reach = max(abs(low), abs(top), 1e-3)
        return SymLogNorm(linthresh=max(reach / 20, 1e-3), vmin=-reach, vmax=reach)
    return Normalize(low, top if top > low else low + 1e-9)


def _draw(figure: Figure, axes: Axes, data: PhaseData, grid: Grid, metric: MetricMap) -> None:
    from matplotlib import colormaps

    values = grid.take(data.number(metric.column))
    norm = shared_norm(data, metric)
    if metric.scale == "log":
        values = np.where(values > 0, np.maximum(values, norm.vmin), values)
    image = axes.imshow(
        np.ma.masked_invalid(values), cmap=metric.colours, norm=norm, aspect="auto",
        origin="lower", interpolation="nearest",
    )  # fmt: skip
    label_axes(axes, data, grid, small=True)
    axes.set_title(metric.title, fontsize=9.5, color=INK, loc="left")
    _mark_missing(axes, grid, values)
    if values.size <= _MOST_WRITTEN:
        colours = colormaps[metric.colours]
        for (y, x), value in np.ndenumerate(values):
            if np.isfinite(value):
                r, g, b, _ = colours(float(norm(value)))
                ink = INK if 0.299 * r + 0.587 * g + 0.114 * b > 0.55 else "white"
                text = _short(float(value))
                axes.text(x, y, text, ha="center", va="center", fontsize=5.6, color=ink)
    draw_borders(axes, grid, data.phases, colour="white", width=2.6)
    draw_borders(axes, grid, data.phases, colour=INK, width=1.1)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.ax.tick_params(labelsize=7, length=2)
    if metric.scale != "linear":
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.yaxis.set_minor_formatter("")
    bar.outline.set_visible(False)


def _mark_missing(axes: Axes, grid: Grid, values: NDArray[np.float64]) -> None:
    """Hatch cells that are there but have no value."""
    from matplotlib.patches import Rectangle

    for y, x in np.argwhere((grid.index >= 0) & ~np.isfinite(values)):
        corner = (float(x) - 0.5, float(y) - 0.5)
        axes.add_patch(
            Rectangle(corner, 1, 1, facecolor="#e8e8e6", edgecolor="#bdbdb9", hatch="////", lw=0)
        )


def _short(value: float) -> str:
    """Return a number in at most five characters or so."""
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 100:
        return (
            f"{value:.0f}" if size < 1e4 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
        )
    if size >= 10:
        return f"{value:.0f}"
    if size >= 0.095:
        return f"{value:.2g}"
    text = f"{value:.1g}"
    return text.replace("0.0", ".0") if "e" not in text else text.replace("e-0", "e-")
