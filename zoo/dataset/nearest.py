"""The nearest row of another run, by weights, by canonical weights, or by answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.arithmetic import pinned
from zoo.dataset.batches import rows_at_once
from zoo.dataset.canonical import canonical_rows
from zoo.dataset.structure import by_structure
from zoo.dataset.view import View

__all__ = ["Match", "nearest_behaviour", "nearest_canonical", "nearest_weights"]

_Read = Callable[["View"], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """For each of n rows the nearest row of another run among m others.

    Args:
        index: ``[n]`` position among the others; −1 where there is none to compare with.
        distance: ``[n]`` ‖a − b‖ / ‖b‖, infinite where there is none.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]


@pinned()
def nearest_weights(others: View, rows: View) -> Match:
    """Return for each row the nearest one of another run, by trained weights of one structure."""
    found = _empty(len(rows))
    for structure, left, right in _shared(others, rows):
        trained = structure.layout.trained
        _compare(others, rows, left, right, lambda v, t=trained: v.stacked_weights()[:, :t], found)  # type: ignore[misc]
    return found


@pinned()
def nearest_canonical(others: View, rows: View) -> Match:
    """Return the same by canonical weights, so that no permutation, scale or sign hides a copy."""
    found = _empty(len(rows))
    for structure, left, right in _shared(others, rows):

        def read(view: View, structure: Any = structure) -> NDArray[np.float32]:
            weights = torch.from_numpy(view.stacked_weights())
            form: NDArray[np.float32] = canonical_rows(weights, structure).numpy()
            return form[:, : structure.layout.trained]

        _compare(others, rows, left, right, read, found)
    return found


@pinned()
def nearest_behaviour(others: View, rows: View) -> Match:
    """Return the same by recorded logits, each example's mean logit taken off.

    Over all structures that answer the same probe: a copy may have been widened or rewritten. Rows
    that give every class of every example the same logit are left out.
    """
    found = _empty(len(rows))
    left_keys, right_keys = _probe_keys(others), _probe_keys(rows)
    for key in np.intersect1d(left_keys, right_keys):
        left, right = np.flatnonzero(left_keys == key), np.flatnonzero(right_keys == key)
        _compare(others, rows, left, right, _answers, found)
    return found


def _probe_keys(view: View) -> NDArray[Any]:
    names = ("data", "normalization")
    return np.array(["/".join(v) for v in zip(*(view[n].tolist() for n in names), strict=True)])


def _answers(view: View) -> NDArray[np.float32]:
    logits = view.probe_logits()
    assert not isinstance(logits, dict)  # the rows answer one probe
    values: NDArray[np.float32] = logits.astype(np.float32)
    values -= values.mean(-1, keepdims=True)
    return values.reshape(len(values), -1)


def _empty(n: int) -> Match:
    return Match(np.full(n, -1, dtype=np.int64), np.full(n, np.inf))


def _shared(others: View, rows: View) -> list[tuple[Any, NDArray[np.int64], NDArray[np.int64]]]:
    left, right = by_structure(others), by_structure(rows)
    return [(s, left[s], right[s]) for s in left if s in right]


def _compare(
    others: View,
    rows: View,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    read: _Read,
    found: Match,
) -> None:
    """Improve ``found`` for the rows at ``right`` by the others at ``left``, block by block."""
    runs_left, runs_right = others["run_id"], rows["run_id"]
    block = rows_at_once(rows)
    for i in range(0, len(right), block):
        at = right[i : i + block]
        b = read(rows.take(at)).astype(np.float64)
        size = np.linalg.norm(b, axis=1)
        for j in range(0, len(left), block):
            there = left[j : j + block]
            a = read(others.take(there)).astype(np.float64)
            square = (b**2).sum(1)[:, None] + (a**2).sum(1)[None, :] - 2 * b @ a.T
            square[runs_right[at][:, None] == runs_left[there][None, :]] = np.inf
            best = square.argmin(1)
            usable = np.isfinite(square[np.arange(len(at)), best]) & (size > 0)
            # the small difference of large squares is taken again where it counts
            gap = np.linalg.norm(a[best] - b, axis=1) / np.where(size > 0, size, 1.0)
            better = usable & (gap < found.distance[at])
            found.distance[at[better]] = gap[better]
            found.index[at[better]] = there[best[better]]
