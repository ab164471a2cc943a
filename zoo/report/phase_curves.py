"""How models of each phase got there: learning curves, and their paths through weight space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import Zoo
from zoo.phases import PHASES
from zoo.report.colours import INK, PHASE_STYLES
from zoo.report.phase_data import PhaseData
from zoo.report.phase_plot import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves_figure", "path_plane", "paths_figure"]

_F64 = NDArray[np.float64]

#: Metric → (title, whether its axis is logarithmic).
_CURVES = {
    "train_loss": ("training loss (nats)", True),
    "test_accuracy": ("test accuracy", False),
    "init_distance": ("distance from initialisation (L2)", True),
}
#: Models of a phase that are drawn as paths.
_MOST_PATHS = 6


def curves_figure(zoo: Zoo, data: PhaseData) -> Figure:
    """Return learning curves by phase: the median of its models, and their middle 80 %.

    Args:
        zoo: the zoo.
        data: its labelled cells.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(13.0, 3.7)
    places = figure.subplots(1, len(_CURVES))
    phase_of = {i: p for n, p in enumerate(data.phases) for i in data.members(n)}
    for axes, (metric, (title, log)) in zip(places, _CURVES.items(), strict=True):
        for phase in PHASES:
            _draw_curve(axes, zoo, phase_of, phase, metric)
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter("{x:g}")
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("epoch", color=INK)
        axes.set_title(title, fontsize=10.5, color=INK, loc="left")
        _plain_axes(axes)
    places[0].legend(frameon=False, fontsize=8.5, labelcolor=INK, ncols=2)
    return figure


def _plain_axes(axes: Axes) -> None:
    axes.grid(visible=True, color="0.92", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)


def _draw_curve(axes: Axes, zoo: Zoo, phase_of: dict[str, str], phase: str, metric: str) -> None:
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
    known = np.isfinite(stacked).sum(0) > 0
    epoch = np.nanmedian(at[:, known], axis=0)
    low, middle, high = np.nanquantile(stacked[:, known], [0.1, 0.5, 0.9], axis=0)
    style = PHASE_STYLES[phase]
    order = np.argsort(epoch, kind="stable")
    axes.fill_between(epoch[order], low[order], high[order], color=style.colour, alpha=0.13, lw=0)
    axes.plot(
        epoch[order], middle[order], color=style.colour, lw=2, marker="o", ms=3,
        label=f"{phase} ({len(values)})",
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


def paths_figure(zoo: Zoo, data: PhaseData) -> Figure:
    """Return the paths of the seeds of one cell a phase through weight space, in their own plane.

    Args:
        zoo: the zoo.
        data: its labelled cells.

    Raises:
        ImportError: matplotlib is not installed.
    """
    chosen = [(p, n) for p in PHASES if (n := data.example_of(p)) is not None]
    figure = new_figure(2.35 * max(len(chosen), 2), 2.9)
    places = figure.subplots(1, len(chosen), squeeze=False)[0]
    for axes, (phase, n) in zip(places, chosen, strict=True):
        ids = data.members(n)[:_MOST_PATHS]
        _draw_paths(axes, [zoo.trajectory(i) for i in ids], PHASE_STYLES[phase].colour)
        axes.set_title(f"{phase}   {cell_words(data, n)}", fontsize=9, color=INK, loc="left")
    return figure


def cell_words(data: PhaseData, n: int) -> str:
    """Return where a cell is, as ``"width 64, batch size 32"``."""
    parts = []
    for role in ("load", "temperature"):
        field = data.axes[role].replace("_", " ") or role
        parts.append(f"{field} {data.columns[role][n]}")
    return ", ".join(parts)


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
