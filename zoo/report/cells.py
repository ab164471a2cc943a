"""Cells on a grid: which phase stands where, as text and as arrays for pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zoo.report.tables import format_table

if TYPE_CHECKING:
    from zoo.phases import Labels

__all__ = ["Grid", "axis_order", "cold_first", "grids", "phase_grids", "titles"]

#: Fields whose small values are hot: little averaging, or little decay of the noise.
_HOT_IF_SMALL = ("batch_size", "")


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """One load × temperature diagram.

    Args:
        title: what tells its cells from those of other diagrams; empty where nothing does.
        load, temperature: the levels of both axes, in order, as text.
        index: ``[T, L]`` number of the cell at each point, -1 where there is none.
        hidden: cells that are not in ``index``, since another one is at their point.
    """

    title: str
    load: tuple[str, ...]
    temperature: tuple[str, ...]
    index: NDArray[np.int64]
    hidden: int = 0

    def take(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values of cells ``[N]`` on the grid, ``[T, L]``; NaN where there is no cell."""
        return np.append(values, np.nan)[self.index]


def axis_order(values: Sequence[str]) -> tuple[str, ...]:
    """Return the different values in order: numbers by size, then text by the alphabet."""

    def key(text: str) -> tuple[int, float, str]:
        try:
            return 0, float(text), text
        except ValueError:
            return 1, 0.0, text

    return tuple(sorted(set(values), key=key))


def cold_first(field: str) -> bool:
    """Return whether small values of a temperature field are cold (they are hot for batch size)."""
    return field not in _HOT_IF_SMALL


def titles(rests: Sequence[str]) -> dict[str, str]:
    """Return what each diagram is called: of ``"field = value, ..."`` what tells it from others.

    A field that says nothing new is left out, as is one that does not apply (``None``): where a
    data diet differs, its score alone tells ``el2n`` from ``random``, whatever else comes with it.
    """
    parts = {
        rest: dict(p.split(" = ", 1) for p in rest.split(", ") if " = " in p) for rest in rests
    }

    def kinds(*fields: str) -> int:
        return len({tuple(part.get(f) for f in fields) for part in parts.values()})

    chosen: list[str] = []
    for field in dict.fromkeys(field for part in parts.values() for field in part):
        if kinds(*chosen, field) > kinds(*chosen):
            chosen.append(field)
    if kinds(*chosen) < len(parts):
        return dict(zip(rests, rests, strict=True))  # texts of another form
    return {rest: _title(part, chosen) or rest for rest, part in parts.items()}


def _title(part: Mapping[str, str], fields: Sequence[str]) -> str:
    said = {f: part[f] for f in fields if part.get(f, "None") != "None"}
    return ", ".join(f"{field} = {value}" for field, value in said.items())


def grids(load: Sequence[str], temperature: Sequence[str], rest: Sequence[str]) -> list[Grid]:
    """Return one grid for each value of ``rest``; of cells at one point the last one is shown.

    Args:
        load, temperature, rest: of each cell, as text.
    """
    found = []
    for whole, title in titles(axis_order(rest)).items():
        here = [n for n, value in enumerate(rest) if value == whole]
        x = axis_order([load[n] for n in here])
        y = axis_order([temperature[n] for n in here])
        index = np.full((len(y), len(x)), -1, dtype=np.int64)
        for n in here:
            index[y.index(temperature[n]), x.index(load[n])] = n
        hidden = len(here) - int((index >= 0).sum())
        found.append(Grid(title, x, y, index, hidden))
    return found


def phase_grids(
    labels: Labels, axes: Mapping[str, str], rest: Sequence[str]
) -> list[tuple[str, str]]:
    """Return for each diagram its title and its phases as a text table, hot at the top.

    Args:
        labels: the phases.
        axes: names of the two axes, where they have any.
        rest: ``[N]`` what else tells cells apart.
    """
    cells, phases, near = labels.cells, labels.phases, labels.decision.boundary == 1
    corner = f"{axes.get('temperature', 'temperature')} \\ {axes.get('load', 'load')}"
    found = []
    for grid in grids(cells.load.tolist(), cells.temperature.tolist(), list(rest)):
        rows = []
        lines = list(zip(grid.temperature, grid.index.tolist(), strict=True))
        hot_first = lines if not cold_first(axes.get("temperature", "")) else lines[::-1]
        for y, line in hot_first:
            row = {corner: y}
            for x, n in zip(grid.load, line, strict=True):
                row[x] = "" if n < 0 else f"{_short(phases[n])}{'~' if near[n] else ''}"
            rows.append(row)
        text = format_table(rows)
        if grid.hidden:
            text += f"\n(cells that others at the same point hide: {grid.hidden})"
        found.append((grid.title, text))
    return found


def _short(phase: str) -> str:
    return "?" if phase == "undetermined" else str(phase)
