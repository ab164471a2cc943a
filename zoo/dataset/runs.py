"""One run of a zoo, and the fields that tell runs apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.spec.catalogue import catalogue
from zoo.spec.common import SEED_FIELDS
from zoo.spec.run import RunSpec

__all__ = ["Run", "fields_that_vary"]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run of a zoo.

    Args:
        run_id: sixteen hexadecimal digits.
        spec: the resolved spec.
        cohort, row: where it is.
        status, reason, diverged_step: how it ended; see the columns of the same names.
        recorded: ``[K]`` which checkpoints are there.
        steps, epochs: ``[K]`` of every planned checkpoint.
    """

    run_id: str
    spec: RunSpec
    cohort: str
    row: int
    status: str
    reason: str
    diverged_step: int
    recorded: NDArray[np.bool_]
    steps: NDArray[np.int64]
    epochs: NDArray[np.float64]

    def __repr__(self) -> str:
        recorded = f"{int(self.recorded.sum())} of {len(self.recorded)} checkpoints"
        return f"<Run {self.run_id}: {self.status}, {recorded}, {self.spec!r}>"


def fields_that_vary(runs: Sequence[RunSpec], fields: Iterable[str]) -> tuple[str, ...]:
    """Return the fields that tell runs apart; see :attr:`zoo.dataset.Zoo.varying`.

    Args:
        runs: the runs.
        fields: those that a run has.
    """
    names = [f for f in fields if _tells_apart(runs, f)]
    follow = {f for f in SEED_FIELDS if all(getattr(r, f) == r.seed for r in runs)}
    follow.update(catalogue().planned)  # they follow from the names of data set and score
    if "epochs" not in names:
        follow.add("steps")
    return tuple(name for name in names if name not in follow)


def _tells_apart(runs: Sequence[RunSpec], name: str) -> bool:
    """Return whether runs differ in a field, other than by having it or not as its owner says."""
    values = {getattr(run, name, None) for run in runs}
    if None not in values or len(values) != 2:
        return len(values - {None}) > 1
    # None and one value: off and on (clip_norm) tell runs apart, an optimizer without momentum not
    others = [owner for owner in catalogue().owners if owner != name]
    owned = {
        (tuple(getattr(run, o) for o in others), getattr(run, name, None) is None) for run in runs
    }
    return len(owned) > len({owners for owners, _ in owned})
