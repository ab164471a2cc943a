"""Cells: the points of a load × temperature grid, with the numbers that decide their phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["HARDNESS", "INPUTS", "CellSample", "Cells"]

#: What can say that training is not finished, in the order of preference of the published setting.
HARDNESS = ("train_loss", "train_error", "lambda_max", "trace")

#: What the rule reads, and its unit.
INPUTS: Mapping[str, str] = {
    "train_loss": "nats",
    "train_error": "percent",
    "lambda_max": "1",
    "trace": "1",
    "mode_connectivity": "percent of training error; < 0 is a barrier",
    "cka": "1",
}

_F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CellSample:
    """The seeds of one cell, for resampling; S models, Q pairs.

    Args:
        members: model input → ``[S]``; NaN where a model has none.
        bad: ``[S]`` models that diverged or collapsed.
        pairs: pair input → ``(a [Q], b [Q], values [Q])``, positions of the pair's two members.
    """

    members: Mapping[str, _F64]
    bad: NDArray[np.bool_]
    pairs: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64], _F64]]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Cells and what is known of them; N cells.

    Args:
        load, temperature: ``[N]`` value of each axis, as text.
        values: input → ``[N]``, in the units of :data:`INPUTS`; NaN = not known. Infinite training
            loss means that training diverged.
        errors: input → ``[N]`` standard errors; NaN = not known.
        chance_loss: ``[N]`` loss of guessing, ln C in nats; NaN = not known.
        bad_share: ``[N]`` share of a cell's models that diverged or collapsed; 0 where not known.
        ids: ``[N]`` names.
        pool: ``[N]`` cells of one pool (one data set) share a cut that is found from the data.
        samples: the seeds of each cell, where they are known; empty otherwise.
    """

    load: NDArray[np.str_]
    temperature: NDArray[np.str_]
    values: Mapping[str, _F64]
    errors: Mapping[str, _F64]
    chance_loss: _F64
    bad_share: _F64
    ids: NDArray[np.str_]
    pool: NDArray[np.str_]
    samples: Sequence[CellSample] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def value(self, name: str) -> _F64:
        """Return an input ``[N]``, NaN where it is not known."""
        return self.values.get(name, np.full(len(self), np.nan))

    def error(self, name: str) -> _F64:
        """Return the standard error of an input ``[N]``, NaN where it is not known."""
        return self.errors.get(name, np.full(len(self), np.nan))
