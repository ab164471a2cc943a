"""The loss-surface picture: local structure above, global structure below, a column a phase."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.dataset import Zoo
from zoo.phases import PHASES
from zoo.report.colours import BASIN, INK, PHASE_STYLES
from zoo.report.phase_curves import cell_words
from zoo.report.phase_data import PhaseData
from zoo.report.phase_plot import new_figure
from zoo.report.surface import POINTS, Surface, loss_around, loss_through

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["surface_figure"]

_LOW, _HIGH = 1e-3, 30.0
_LEVELS = 28


def surface_figure(zoo: Zoo, data: PhaseData, *, points: int = POINTS) -> Figure | None:
    """Return the training loss around and between the models of one cell a phase.

    Above: around one model, along two random directions of filter-normalised length. Below: the
    plane through three seeds of the same cell. One logarithmic colour scale for all.

    Args:
        zoo: the zoo; its data sets must be on this machine.
        data: its labelled cells.
        points: a side of a surface.

    Raises:
        ImportError: matplotlib is not installed.
        ZooError: the data cannot be read.
    """
    chosen = [(p, n) for p in PHASES[1:] if (n := data.example_of(p)) is not None]
    if not chosen:
        return None
    figure = new_figure(2.45 * len(chosen) + 1.0, 5.4)
    places = figure.subplots(2, len(chosen), squeeze=False)
    image = None
    for column, (phase, n) in enumerate(chosen):
        ids = _recorded(zoo, data.members(n))
        above, below = places[0, column], places[1, column]
        above.set_title(f"{phase}\n{cell_words(data, n)}", fontsize=9, color=INK, loc="left")
        if ids:
            image = _draw(above, loss_around(zoo, ids[0], points=points), phase)
        if len(ids) > 2:
            image = _draw(below, loss_through(zoo, ids[:3], points=points), phase)
        else:
            below.text(0.5, 0.5, "fewer than three seeds", ha="center", transform=below.transAxes)
            below.set_axis_off()
    places[0, 0].set_ylabel("around one model", fontsize=10, color=INK)
    places[1, 0].set_ylabel("through three seeds", fontsize=10, color=INK)
    if image is not None:
        bar = figure.colorbar(image, ax=places, fraction=0.02, pad=0.01, extend="max")
        bar.set_label("training loss (nats)", fontsize=9, color=INK)
        bar.set_ticks([0.001, 0.01, 0.1, 1.0, 10.0], labels=["0.001", "0.01", "0.1", "1", "10"])
        bar.ax.tick_params(labelsize=8)
    return figure


def _recorded(zoo: Zoo, ids: list[str]) -> list[str]:
    """Return the runs that have a recorded checkpoint and did not diverge."""
    return [i for i in ids if zoo.run(i).recorded.any() and zoo.run(i).status != "diverged"]


def _draw(axes: Axes, surface: Surface, phase: str) -> Any:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

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
    style = PHASE_STYLES[phase]
    x, y = surface.models.T
    axes.plot(x, y, "o", ms=6.5, color=style.colour, mec="white", mew=1.3, zorder=4)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(style.colour)
    axes.spines[:].set_linewidth(1.8)
    return image
