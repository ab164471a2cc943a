"""The loss-surface picture: local and global structure of one cell per phase."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.dataset import Zoo
from zoo.phases import PHASES
from zoo.report.colours import BASIN, INK, style_of
from zoo.report.figures import NARROW, new_figure
from zoo.report.phase_curves import cell_title
from zoo.report.phase_data import PhaseData
from zoo.report.surface import POINTS, Surface, loss_around, loss_through

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CellSurfaces", "surface_figure", "surfaces_of"]

_LOW, _HIGH = 1e-3, 30.0
_LEVELS = 28
_NO_MODELS = "no surface: all its models diverged, so there are no weights at the end of training"
_FEW_SEEDS = "no plane: fewer than three of its seeds were trained to the end"


@dataclass(frozen=True, slots=True, eq=False)
class CellSurfaces:
    """The training loss around and between the models of one cell.

    Args:
        phase: of the cell.
        cell: its number.
        around: around one model; None where there is none.
        through: through three of its seeds; None where there are fewer.
    """

    phase: str
    cell: int
    around: Surface | None
    through: Surface | None


def surfaces_of(zoo: Zoo, data: PhaseData, *, points: int = POINTS) -> list[CellSurfaces]:
    """Return the surfaces of one cell per phase, which takes some seconds.

    Args:
        zoo: the zoo; its data sets must be on this machine.
        data: its labelled cells.
        points: a side of a surface.

    Raises:
        ZooError: the data cannot be read.
    """
    ids = [_trained(zoo, data.members(n)) for n in range(len(data))]
    empty = {n for n, members in enumerate(ids) if not members}
    found = []
    for phase in PHASES:
        n = data.example_of(phase, skip=empty)
        n = data.example_of(phase) if n is None else n
        if n is None:
            continue
        around = loss_around(zoo, ids[n][0], points=points) if ids[n] else None
        through = loss_through(zoo, ids[n][:3], points=points) if len(ids[n]) > 2 else None
        found.append(CellSurfaces(phase, n, around, through))
    return found


def surface_figure(data: PhaseData, found: Sequence[CellSurfaces], *, columns: int = 2) -> Figure:
    """Return the training loss around one model and through three seeds, for each cell.

    One logarithmic colour scale for all. Where there is nothing to draw, a panel says why.

    Args:
        data: the labelled cells.
        found: the surfaces, at least one cell.
        columns: 1 = a row for each cell, for narrow screens; otherwise a column.

    Raises:
        ImportError: matplotlib is not installed.
    """
    count, across = len(found), columns > 1
    if across:
        figure = new_figure(2.45 * count + 1.0, 5.6)
        places = figure.subplots(2, count, squeeze=False).T
    else:
        figure = new_figure(NARROW, 2.6 * count + 0.8)
        places = figure.subplots(count, 2, squeeze=False)
    image = None
    for (first, second), cell in zip(places, found, strict=True):
        first.set_title(cell_title(data, cell.phase, cell.cell), fontsize=9, color=INK, loc="left")
        image = _draw(first, cell.around, cell.phase, _NO_MODELS) or image
        words = _FEW_SEEDS if cell.around else ""
        image = _draw(second, cell.through, cell.phase, words) or image
    kinds = ("around one model", "through three seeds")
    for axes, kind in zip(places[0 if across else -1], kinds, strict=True):
        (axes.set_ylabel if across else axes.set_xlabel)(kind, fontsize=10, color=INK)
    if image is not None:
        side: Any = (
            {"fraction": 0.02, "pad": 0.01}
            if across
            else {"fraction": 0.03, "pad": 0.02, "orientation": "horizontal"}
        )
        bar = figure.colorbar(image, ax=places, extend="max", **side)
        bar.set_label("training loss", fontsize=9, color=INK)
        bar.set_ticks([0.001, 0.01, 0.1, 1.0, 10.0], labels=["0.001", "0.01", "0.1", "1", "10"])
        bar.ax.tick_params(labelsize=8)
    return figure


def _trained(zoo: Zoo, ids: list[str]) -> list[str]:
    """Return the runs that have a recorded checkpoint and did not diverge."""
    return [i for i in ids if zoo.run(i).recorded.any() and zoo.run(i).status != "diverged"]


def _draw(axes: Axes, surface: Surface | None, phase: str, missing: str) -> Any:
    """Draw a surface, or a word why there is none; return the filled contours, if any."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
    if surface is None:
        axes.spines[:].set_visible(False)
        text = textwrap.fill(missing, 24)
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=8.5, color="0.3",
                  transform=axes.transAxes)  # fmt: skip
        return None
    colours = LinearSegmentedColormap.from_list("basin", list(BASIN))
    levels = np.geomspace(_LOW, _HIGH, _LEVELS)
    loss = np.clip(np.nan_to_num(surface.loss, nan=_HIGH), _LOW, _HIGH)
    image = axes.contourf(
        surface.x, surface.y, loss, levels=levels, cmap=colours, norm=LogNorm(_LOW, _HIGH),
        extend="max",
    )  # fmt: skip
    axes.contour(
        surface.x, surface.y, loss, levels=levels[::2], colors="white", linewidths=0.45, alpha=0.55
    )
    style = style_of(phase)
    x, y = surface.models.T
    axes.plot(x, y, "o", ms=6.5, color=style.colour, mec="white", mew=1.3, zorder=4)
    axes.spines[:].set_color(style.colour)
    axes.spines[:].set_linewidth(1.8)
    return image
