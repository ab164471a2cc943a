"""Cells: runs of equal specs but for their seeds.

The one definition: the runs of a cell get one phase, may stay on one side of a split, and are what
an audit and a benchmark mean by the word. In a sweep that varies its load and its temperature
alone, a cell is a point of its phase diagram.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from zoo.spec.run import SEED_FIELDS, RunSpec
from zoo.train.plan import Plan

__all__ = ["Cell", "cell_id", "cells_of"]

_SEEDS = frozenset({"seed", *SEED_FIELDS})


@dataclass(frozen=True, slots=True)
class Cell:
    """Runs of equal specs but for their seeds; S of them.

    Args:
        id: sixteen hexadecimal digits, of what they share.
        members: (cohort's position in the plan, row) of each, by run id.
        run_ids: of the members.
    """

    id: str
    members: tuple[tuple[int, int], ...]
    run_ids: tuple[str, ...]


def cell_id(run: RunSpec) -> str:
    """Return the id of a run's cell: the first 64 bits of the sha256 of its fields but seeds."""
    shared = {
        name: value
        for name, value in run.to_dict().items()
        if value is not None and name not in _SEEDS
    }
    text = json.dumps(shared, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cells_of(plan: Plan) -> tuple[Cell, ...]:
    """Return the cells of a plan, in the order of their first runs.

    Members are sorted by seed, then by run id.
    """
    found: dict[str, list[tuple[int, str, int, int]]] = {}
    for position, cohort in enumerate(plan.cohorts):
        for row, run in enumerate(cohort.runs):
            place = (run.seed, cohort.run_ids[row], position, row)
            found.setdefault(cell_id(run), []).append(place)
    return tuple(
        Cell(key, tuple((c, r) for _, _, c, r in rows), tuple(run for _, run, _, _ in rows))
        for key, rows in ((key, sorted(rows)) for key, rows in found.items())
    )
