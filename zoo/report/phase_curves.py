"""How models of each phase got there: learning curves, and their paths through weight space."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import Zoo
from zoo.phases import PHASES
from zoo.report.colours import INK, style_of
from zoo.report.figures import NARROW, epoch_axis, literal, new_figure
from zoo.report.phase_data import PhaseData
from zoo.report.pooling import pooled_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["cell_title", "curves_figure", "path_plane", "paths_figure", "pooled_by_phase"]

_F64 = NDArray[np.float64]

#: Metric → (title, whether its axis is logarithmic).
_CURVES = {
    "train_loss": ("training loss (nats)", True),
    "test_accuracy": ("test accuracy", False),
    "init_distance": ("distance from initialisation (L2)", True),
}
#: Models of a phase that are drawn as paths.
_MOST_PATHS = 6
#: Letters of a line above a panel.
_TITLE_LETTERS = 28
_NO_BREAK = "\N{NO-BREAK SPACE}"


def curves_figure(zoo: Zoo, data: PhaseData, *, columns: int = 3) -> Figure:
    """Return learning curves by phase: the median of its models, and their middle 80 %.

    Args:
        zoo: the zoo.
        data: its labelled cells.
        columns: panels side by side.

    Raises:
        ImportError: matplotlib is not installed.
    """
    lines = -(-len(_CURVES) // columns)
    figure = new_figure(13.0 if columns > 1 else NARROW, lines * 3.2 + 0.5)
    from matplotlib.ticker import LogLocator

    places = figure.subplots(lines, columns, squeeze=False).ravel()
    phase_of = _phase_of(data)
    for axes, (metric, (title, log)) in zip(places, _CURVES.items(), strict=False):
        for phase in PHASES:
            _draw_curve(axes, zoo, phase_of, phase, metric, log=log)
        last = max((float(line.get_xdata()[-1]) for line in axes.get_lines()), default=1.0)
        epoch_axis(axes, last, log=True)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        axes.set_xlabel("epoch", color=INK)
        axes.set_title(title, fontsize=10.5, color=INK, loc="left")
        _plain_axes(axes)
    if places[0].get_lines():
        places[0].legend(
            frameon=False, fontsize=8.5, labelcolor=INK, ncols=2, title="phase (models)"
        )
    return figure


def _phase_of(data: PhaseData) -> dict[str, str]:
    """Return run id -> phase of its cell."""
    return {i: phase for n, phase in enumerate(data.phases) for i in data.members(n)}


def pooled_by_phase(zoo: Zoo, data: PhaseData) -> dict[str, list[Any]]:
    """Return the fields that differ among the models of one phase: field -> its values."""
    phase_of = _phase_of(data)
    runs = zoo.runs(columns=["run_id", *zoo.varying])
    phases = np.array([phase_of.get(str(i), "") for i in runs["run_id"]])
    here = np.isin(phases, PHASES)
    columns = {name: runs[name][here] for name in zoo.varying} | {"phase": phases[here]}
    return pooled_values(columns, ["phase"], zoo.varying)


def _plain_axes(axes: Axes) -> None:
    axes.grid(visible=True, color="0.92", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)


def _draw_curve(
    axes: Axes, zoo: Zoo, phase_of: dict[str, str], phase: str, metric: str, *, log: bool
) -> None:
    """Draw one phase: pooled by the place of a checkpoint in its run, at the median epoch."""
    values: list[_F64] = []
    epochs: list[_F64] = []
    for table in zoo.tables:
        mine = np.array([phase_of.get(str(i)) == phase for i in table["run_id"]])
        if mine.any():
            kept = np.where(table.recorded[mine], table[metric][mine], np.nan)
            values += list(kept.astype(np.float64))
            epochs += list(np.where(table.recorded[mine], table["epoch"][mine], np.nan))
    if not values:
        return
    K = max(len(v) for v in values)
    stacked, at = (
        np.array([np.pad(v, (0, K - len(v)), constant_values=np.nan) for v in rows])
        for rows in (values, epochs)
    )
    if log:  # zero, as at the initialisation, has no place on a logarithmic axis
        stacked = np.where(stacked > 0, stacked, np.nan)
    known = np.isfinite(stacked).sum(0) > 0
    if not known.any():
        return
    epoch = np.nanmedian(at[:, known], axis=0)
    low, middle, high = np.nanquantile(stacked[:, known], [0.1, 0.5, 0.9], axis=0)
    style = style_of(phase)
    order = np.argsort(epoch, kind="stable")
    axes.fill_between(epoch[order], low[order], high[order], color=style.colour, alpha=0.13, lw=0)
    axes.plot(
        epoch[order], middle[order], color=style.colour, lw=2, marker="o", ms=3,
        label=f"{phase}  ({len(values)})",
    )  # fmt: skip


def path_plane(paths: Sequence[NDArray[np.float32]]) -> tuple[list[_F64], _F64]:
    """Return trajectories in the plane that shows most of them, and the shares of variance.

    The principal components of all their points together, mean over points as the origin.

    Args:
        paths: ``[K, P]`` each; rows that are not finite are left out.

    Returns:
        ``[k, 2]`` each, and ``[2]`` shares of the total variance.
    """
    kept = [path[np.isfinite(path).all(1)].astype(np.float64) for path in paths]
    points = np.concatenate(kept)
    centred = points - points.mean(0)
    # the Gram matrix is small: points are few, parameters many
    values, vectors = np.linalg.eigh(centred @ centred.T)
    top = np.clip(values[::-1][:2], 0.0, None)
    plane = vectors[:, ::-1][:, :2] * np.sqrt(top)
    total = float(np.clip(values, 0.0, None).sum()) or 1.0
    ends = np.cumsum([len(path) for path in kept])
    return np.split(plane, ends[:-1]), np.asarray(top / total)


def paths_figure(zoo: Zoo, data: PhaseData, *, columns: int = len(PHASES)) -> Figure:
    """Return the paths of the seeds of one cell per phase through weight space.

    Each panel is a plane of its own, so lengths are not to be compared between panels.

    Args:
        zoo: the zoo.
        data: its labelled cells.
        columns: panels side by side at most.

    Raises:
        ImportError: matplotlib is not installed.
    """
    chosen = [(p, n) for p in PHASES if (n := data.example_of(p)) is not None]
    columns = min(columns, max(len(chosen), 1))
    lines = -(-len(chosen) // columns) or 1
    figure = new_figure(max(2.35 * columns, NARROW), 3.0 * lines)
    places = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (phase, n) in zip(places, chosen, strict=False):
        ids = data.members(n)[:_MOST_PATHS]
        _draw_paths(axes, [zoo.trajectory(i) for i in ids], style_of(phase).colour)
        axes.set_title(cell_title(data, phase, n), fontsize=9, color=INK, loc="left")
    for axes in places[len(chosen) :]:
        axes.set_visible(False)
    return figure


def cell_title(data: PhaseData, phase: str, n: int) -> str:
    """Return the title of a panel about one cell: its phase, and where it is."""
    # lines break between fields alone
    parts = [part.replace(" ", _NO_BREAK) for part in data.words(n).split(", ")]
    return literal("\n".join([phase, *textwrap.wrap(", ".join(parts), _TITLE_LETTERS)]))


def _draw_paths(axes: Axes, paths: Sequence[NDArray[np.float32]], colour: str) -> None:
    plane, share = path_plane(paths)
    for path in plane:
        axes.plot(path[:, 0], path[:, 1], color=colour, lw=1.3, alpha=0.75)
        axes.scatter(path[:, 0], path[:, 1], c=np.arange(len(path)), cmap="Greys", s=11, zorder=3,
                     vmin=-4, edgecolors=colour, linewidths=0.6)  # fmt: skip
        axes.plot(*path[-1], "o", color=colour, ms=6.5, mec="white", mew=1.0, zorder=4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.85")
    axes.set_xlabel(f"{share[0]:.0%} + {share[1]:.0%} of the variance", fontsize=7.5, color="0.35")
