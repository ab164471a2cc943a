"""Tables of features for plain regressors: layer statistics, raw weights, and the controls.

The layer statistics are those of Unterthiner et al. 2020 (arXiv 2002.11448): for each tensor its
mean, standard deviation and the percentiles 0, 25, 50, 75 and 100. Their CNN of four layers gives
4 × 2 × 7 = 56 features, and so does ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.architectures.layout import Layout
from zoo.arithmetic import pinned
from zoo.dataset.batches import plan_batches, rows_at_once
from zoo.dataset.view import View
from zoo.spec.run import SEED_FIELDS

__all__ = [
    "STATISTICS",
    "Features",
    "epoch_features",
    "hyperparameter_features",
    "layer_statistics",
    "raw_weights",
    "row_statistics",
]

#: Statistics of each tensor, in column order.
STATISTICS = ("mean", "std", "q0", "q25", "q50", "q75", "q100")


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """A table of numbers.

    Args:
        names: ``D`` column names.
        values: ``[n, D]`` float32; NaN where a row has no such feature.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]

    def __repr__(self) -> str:
        return f"<Features {list(self.values.shape)}>"

    def beside(self, other: Features) -> Features:
        """Return the columns of both."""
        values = np.concatenate([self.values, other.values], 1)
        return Features(self.names + other.names, values)


@pinned()
def row_statistics(rows: NDArray[np.float32], layout: Layout) -> Features:
    """Return the seven statistics of each tensor of rows ``[n, P]``, ``[n, 7 · tensors]``."""
    parts = []
    names = []
    for s in layout.segments:
        values = rows[:, s.offset : s.stop]
        quantiles = np.percentile(values, (0, 25, 50, 75, 100), axis=1)
        moments = np.stack([values.mean(1, dtype=np.float64), values.std(1, dtype=np.float64)])
        parts.append(np.concatenate([moments, quantiles]).T)
        names += [f"{s.name}:{name}" for name in STATISTICS]
    return Features(tuple(names), np.concatenate(parts, 1).astype(np.float32))


@pinned()
def layer_statistics(view: View) -> Features:
    """Return the layer statistics of a view's rows; a tensor that a row lacks is NaN there.

    Columns are named by tensor and statistic, so rows of different architectures share those of the
    tensors that both have.
    """
    columns: dict[str, int] = {}
    found = []
    for positions in plan_batches(view, rows_at_once(view)):
        part = view.take(positions)
        layout = view.zoo.plan.cohorts[int(part.cohort_index[0])].layout
        some = row_statistics(part.stacked_weights(), layout)
        at = [columns.setdefault(name, len(columns)) for name in some.names]
        found.append((positions, np.array(at, dtype=np.int64), some.values))
    values = np.full((len(view), len(columns)), np.nan, dtype=np.float32)
    for positions, columns_of, block in found:
        values[positions[:, None], columns_of[None]] = block
    return Features(tuple(columns), values)


@pinned()
def raw_weights(view: View) -> Features:
    """Return the trained weights themselves, ``[n, D]``.

    Rows of several layouts are brought to one: each tensor into the low corner of the largest of
    its name, zeros elsewhere, so that equal units are in equal columns.
    """
    cohorts = [view.zoo.plan.cohorts[i] for i in np.unique(view.cohort_index)]
    largest: dict[str, tuple[int, ...]] = {}
    for cohort in cohorts:
        for s in cohort.layout.segments[: _trained_count(cohort.layout)]:
            known = largest.get(s.name, s.shape)
            largest[s.name] = tuple(np.maximum(known, s.shape).tolist())
    offsets: dict[str, int] = {}
    total = 0
    for name, shape in largest.items():
        offsets[name] = total
        total += int(np.prod(shape))
    values = np.zeros((len(view), total), dtype=np.float32)
    for positions in plan_batches(view, rows_at_once(view)):
        part = view.take(positions)
        layout = view.zoo.plan.cohorts[int(part.cohort_index[0])].layout
        columns = [
            offsets[s.name]
            + np.ravel_multi_index(np.indices(s.shape).reshape(len(s.shape), -1), largest[s.name])
            for s in layout.segments[: _trained_count(layout)]
        ]
        values[positions[:, None], np.concatenate(columns)[None]] = part.stacked_weights()[
            :, : layout.trained
        ]
    names = tuple(f"{name}[{i}]" for name, s in largest.items() for i in range(int(np.prod(s))))
    return Features(names, values)


def _trained_count(layout: Layout) -> int:
    return sum(s.role != "buffer" for s in layout.segments)


def hyperparameter_features(view: View, without: Sequence[str] = ()) -> Features:
    """Return what varies among the runs, without seeds: what a model is before it is trained.

    Numbers as they are and as logarithms where all are positive; text and truth values one column a
    value.

    Args:
        view: the rows.
        without: fields to leave out: a target must not be among its own features.
    """
    names: list[str] = []
    columns: list[NDArray[np.float32]] = []
    for name in view.zoo.varying:
        if name == "seed" or name in SEED_FIELDS or name in without:
            continue
        values = view[name]
        if view.zoo.plan.run_fields[name].kind == "str" or values.dtype.kind in "Ub":
            for label in np.unique(values).tolist():
                names.append(f"{name}={label}")
                columns.append((values == label).astype(np.float32))
            continue
        numbers = values.astype(np.float32)
        names.append(name)
        columns.append(numbers)
        known = numbers[np.isfinite(numbers)]
        if known.size and known.min() > 0:
            names.append(f"log {name}")
            columns.append(np.log(numbers))
    table = np.stack(columns, 1) if columns else np.zeros((len(view), 1), dtype=np.float32)
    return Features(tuple(names) or ("constant",), table)


def epoch_features(view: View) -> Features:
    """Return when each checkpoint was taken: epoch, and its logarithm.

    Not the step: beside the epoch it says what the batch size is.
    """
    epoch = view["epoch"].astype(np.float32)
    return Features(("epoch", "log epoch"), np.stack([epoch, np.log1p(epoch)], 1))
