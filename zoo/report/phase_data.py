"""What the phase pictures show: cells with their labels, metrics and members, from a store."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.phases import read_labels
from zoo.report.cells import Grid, grids
from zoo.store import read_table

__all__ = ["PhaseData", "phase_data"]


@dataclass(frozen=True, slots=True, eq=False)
class PhaseData:
    """The labelled cells of a store; N cells.

    Args:
        table: name of the table of labels.
        columns: every column of the labels and of the cells behind them, ``[N, ...]``.
        facts: attributes of the table: thresholds, sources.
        axes: ``{"load": field, "temperature": field}``; a missing one is empty text.
        grids: one per diagram.
    """

    table: str
    columns: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]
    axes: Mapping[str, str]
    grids: tuple[Grid, ...]

    def __len__(self) -> int:
        return len(self.columns["cell"])

    @property
    def phases(self) -> list[str]:
        """``[N]`` names of the phases."""
        return [str(p) for p in self.columns["phase"]]

    def number(self, name: str) -> NDArray[np.float64]:
        """Return a column as numbers ``[N]``, NaN where there is none."""
        if name not in self.columns:
            return np.full(len(self), np.nan)
        return np.asarray(self.columns[name], dtype=np.float64)

    def members(self, cell: int) -> list[str]:
        """Return the run ids of a cell."""
        return [str(i) for i in self.columns["members"][cell] if str(i)]

    def example_of(self, phase: str, skip: Container[int] = ()) -> int | None:
        """Return the clearest cell of a phase: sure, far from thresholds, inside its region.

        Args:
            phase: its name.
            skip: cells that are not asked for.
        """
        here = [n for n, name in enumerate(self.phases) if name == phase and n not in skip]
        if not here:
            return None
        sure = np.nan_to_num(self.number("confidence"), nan=0.0)
        margin = np.minimum(np.nan_to_num(self.number("margin"), nan=0.0), 10.0) / 10.0
        inside = self._inside()
        return max(here, key=lambda n: (round(float(sure[n]), 2), inside[n], margin[n], -n))

    def words(self, cell: int) -> str:
        """Return which cell it is: ``"width 64, batch size 32, norm = layer"``."""
        parts = []
        for role in ("load", "temperature"):
            field = self.axes[role].replace("_", " ") or role
            parts.append(f"{field} {self.columns[role][cell]}")
        titles = [grid.title for grid in self.grids if (grid.index == cell).any()]
        return ", ".join([*parts, *filter(None, titles)])

    @property
    def hidden(self) -> int:
        """Cells that no diagram shows, since others are at their place."""
        return sum(grid.hidden for grid in self.grids)

    def _inside(self) -> NDArray[np.float64]:
        """Return ``[N]`` the share of a cell's neighbours that have its phase."""
        share = np.zeros(len(self))
        phases = self.phases
        for grid in self.grids:
            padded = np.pad(grid.index, 1, constant_values=-1)
            for (y, x), n in np.ndenumerate(grid.index):
                steps = ((0, 1), (2, 1), (1, 0), (1, 2))
                known = [m for dy, dx in steps if (m := padded[y + dy, x + dx]) >= 0]
                if n >= 0 and known:
                    share[n] = sum(phases[m] == phases[n] for m in known) / len(known)
        return share


def phase_data(path: str | PathLike[str], table: str | None = None) -> PhaseData:
    """Return the labelled cells of a store.

    Args:
        path: the store.
        table: of labels; None = the current one.

    Raises:
        StoreMissingError: no store is there.
        StoreError: it has no labels yet.
        UnknownNameError: there is no such table.
    """
    labels, facts = read_labels(path, table)
    cells, _ = read_table(path, facts["tables"][0])
    columns = {**cells, **labels}
    return PhaseData(
        table=str(facts["table"]),
        columns=columns,
        facts=facts,
        axes={k: str(facts.get("axes", {}).get(k, "")) for k in ("load", "temperature")},
        grids=tuple(
            grids(*(columns[k].astype(str).tolist() for k in ("load", "temperature", "rest")))
        ),
    )
