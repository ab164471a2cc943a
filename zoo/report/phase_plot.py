"""The phase diagram: cells of load × temperature in the colour of their phase."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.report.cells import Grid, cold_first
from zoo.report.colours import INK, PAPER, PHASE_STYLES, blend, ink_on, style_of
from zoo.report.figures import NARROW, literal, new_figure
from zoo.report.phase_data import PhaseData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MOST_GRIDS", "axis_words", "draw_borders", "label_axes", "phase_figure"]

#: Diagrams that pictures show at most.
MOST_GRIDS = 6
#: Letters of a line above a panel.
_TITLE_LETTERS = 36
#: A cell whose label never survives a resampling keeps so much of its colour.
_PALEST = 0.45


def phase_figure(data: PhaseData, title: str, *, columns: int = 2) -> Figure:
    """Return the phase diagram, one panel for each value of what varies beside the axes.

    The strength of a cell's colour is its confidence; a dot in the corner marks a cell on a
    boundary (margin below the threshold); lines part the phases. Hot is at the top.

    Args:
        data: the labelled cells.
        title: of the figure.
        columns: panels side by side at most; with one, the legend goes below.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = data.grids[:MOST_GRIDS]
    beside = columns > 1
    columns = min(columns, len(shown))
    lines = -(-len(shown) // columns)
    wide = max(len(g.load) for g in shown)
    high = max(len(g.temperature) for g in shown)
    cell = 0.66 if columns == 1 else 0.5
    width = columns * (cell * wide + 1.2) + 3.1
    height = lines * (cell * 0.88 * high + 1.2) + 0.5
    if beside:
        figure = new_figure(max(width, 7.5), max(height, 4.2))
    else:
        figure = new_figure(NARROW, lines * (0.5 * high + 1.3) + 2.4)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, panel in zip(grid.flat, shown, strict=False):
        _draw_panel(axes, data, panel)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    _legend(figure, data, "outside right center" if beside else "outside lower left")
    wrapped = textwrap.fill(title, 70 if beside else 34)
    figure.suptitle(literal(wrapped), fontsize=14, color=INK, x=0.02, ha="left", weight="bold")
    return figure


def _draw_panel(axes: Axes, data: PhaseData, grid: Grid) -> None:
    from matplotlib.patches import Rectangle

    sure = np.nan_to_num(data.number("confidence"), nan=1.0)
    near = data.number("boundary") == 1
    phases = data.phases
    for (y, x), n in np.ndenumerate(grid.index):
        if n < 0:
            continue
        style = style_of(phases[n])
        share = _PALEST + (1 - _PALEST) * float(sure[n])
        colour = blend(style.colour, PAPER, share)
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, lw=0))
        ink = ink_on(colour)
        axes.text(
            x, y, style.short, ha="center", va="center", color=ink, weight="bold",
            fontsize=11 if len(style.short) < 4 else 9.5,
        )  # fmt: skip
        if near[n]:
            axes.plot(x + 0.36, _up(data, y, 0.34), "o", ms=3.6, color=ink, mew=0)
    _light_grid(axes, grid)
    draw_borders(axes, grid, phases, colour=INK, width=1.6)
    label_axes(axes, data, grid)
    if grid.title:
        axes.set_title(
            literal(textwrap.fill(grid.title, _TITLE_LETTERS)), fontsize=10.5, color=INK, loc="left"
        )


def _up(data: PhaseData, y: float, distance: float) -> float:
    """Return a place above ``y`` on the picture."""
    return y + distance if cold_first(data.axes["temperature"]) else y - distance


def _light_grid(axes: Axes, grid: Grid) -> None:
    for x in range(1, len(grid.load)):
        axes.axvline(x - 0.5, color=PAPER, lw=0.8)
    for y in range(1, len(grid.temperature)):
        axes.axhline(y - 0.5, color=PAPER, lw=0.8)


def draw_borders(axes: Axes, grid: Grid, phases: list[str], *, colour: str, width: float) -> None:
    """Draw a line between neighbouring cells of different phases."""
    names = np.array([*phases, ""])[grid.index]
    style: dict[str, Any] = {"color": colour, "lw": width, "solid_capstyle": "round"}
    for y, x in np.argwhere(names[:, 1:] != names[:, :-1]):
        axes.plot([x + 0.5] * 2, [y - 0.5, y + 0.5], **style)
    for y, x in np.argwhere(names[1:] != names[:-1]):
        axes.plot([x - 0.5, x + 0.5], [y + 0.5] * 2, **style)


def label_axes(axes: Axes, data: PhaseData, grid: Grid, *, small: bool = False) -> None:
    """Label both axes with the values of the cells, hot at the top, and set the view."""
    wide, high = len(grid.load), len(grid.temperature)
    size = 8 if small else 10
    step = -(-wide // 14)
    load, temperature = ([literal(t) for t in level] for level in (grid.load, grid.temperature))
    axes.set_xticks(range(0, wide, step), load[::step], fontsize=size, color=INK)
    axes.set_yticks(range(high), temperature, fontsize=size, color=INK)
    axes.tick_params(length=0)
    axes.set_xlim(-0.5, wide - 0.5)
    cold = cold_first(data.axes["temperature"])
    axes.set_ylim(*((-0.5, high - 0.5) if cold else (high - 0.5, -0.5)))
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#f2f2f0")
    if small:
        return
    load_words, temperature_words = axis_words(data)
    axes.set_xlabel(load_words, fontsize=11, color=INK)
    axes.set_ylabel(temperature_words, fontsize=11, color=INK)


def axis_words(data: PhaseData) -> tuple[str, str]:
    """Return the labels of the load axis and of the temperature axis."""
    load, temperature = (
        data.axes[role].replace("_", " ") or "cells" for role in ("load", "temperature")
    )
    return literal(f"load: {load}  →"), literal(f"{temperature}: hotter  →")


def _legend(figure: Figure, data: PhaseData, place: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    phases = data.phases
    handles: list[Any] = [
        Patch(
            facecolor=style.colour, label=f"{style.short}   {style.words}  ({phases.count(name)})"
        )
        for name, style in PHASE_STYLES.items()
        if name in phases
    ]
    if (data.number("boundary") == 1).any():
        text = "within a standard error of a threshold"
        handles.append(Line2D([], [], marker="o", color=INK, lw=0, ms=4, label=text))
    confidence = data.number("confidence")
    if np.nanmin(np.append(confidence, 1.0)) < 0.95:
        pale = blend("#808080", PAPER, _PALEST)
        handles.append(Patch(facecolor=pale, label="paler: less sure over seeds and tests"))
    figure.legend(
        handles=handles, loc=place, frameon=False, fontsize=9.5,
        labelcolor=INK, handlelength=1.3, handleheight=1.3, labelspacing=0.75,
    )  # fmt: skip
