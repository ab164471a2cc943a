"""Batches of a view's rows, each of one structure, in an order that is kind to the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.any_view import AnyView, V
from zoo.dataset.selection import row_count
from zoo.dataset.structure import by_structure
from zoo.errors import QueryError
from zoo.seeds import Stream, permutation

__all__ = [
    "Shuffle",
    "iterate",
    "plan_batches",
    "rows_at_once",
    "shard_numbers",
    "stacked_probe",
    "stacked_rows",
]

#: Shards whose rows are shuffled together.
WINDOW = 64
#: Epochs and seeds are at most 2³² − 1; drawings of one epoch are numbered below this.
_DRAWS = 1 << 24
_AT_ONCE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Shuffle:
    """A random order of a view's rows, a function of (seed, epoch).

    The shards are put in random order, and the rows of ``window`` shards at a time are mixed; then
    the batches are. So one batch reads from few files.

    Args:
        seed, epoch: of the order.
        window: shards whose rows are mixed.

    Raises:
        QueryError: a window below 1.
    """

    seed: int = 0
    epoch: int = 0
    window: int = WINDOW

    def __post_init__(self) -> None:
        row_count(self.window, "window", 1)


def plan_batches(
    view: AnyView,
    batch: int,
    shuffle: Shuffle | None = None,
    *,
    drop_last: bool = False,
) -> list[NDArray[np.int64]]:
    """Return the positions of each batch; the rows of a batch have one structure.

    Args:
        view: n rows.
        batch: rows of a batch; the last one of a structure may have fewer.
        shuffle: None keeps the view's order within a structure.
        drop_last: leave batches with fewer rows out.

    Raises:
        QueryError: a batch below 1.
    """
    batch = row_count(batch, "batch", 1)
    found: list[NDArray[np.int64]] = []
    for number, positions in enumerate(by_structure(view).values()):
        if shuffle is not None:
            draw = shuffle.epoch * _DRAWS + number * 2 + 1
            shards = view.shards()[positions]
            positions = _mixed(shards, positions, shuffle.seed, draw, shuffle.window)
        found += [positions[i : i + batch] for i in range(0, len(positions), batch)]
    if drop_last:
        found = [positions for positions in found if len(positions) == batch]
    if shuffle is not None:
        order = permutation(shuffle.seed, Stream.ORDER, shuffle.epoch * _DRAWS, len(found))
        found = [found[i] for i in order]
    return found


def _mixed(
    shards: NDArray[np.int64], positions: NDArray[np.int64], seed: int, draw: int, window: int
) -> NDArray[np.int64]:
    """Return positions in random order, shards of one window together."""
    codes = np.unique(shards, return_inverse=True)[1]
    place = permutation(seed, Stream.ORDER, draw, int(codes.max()) + 1 if len(codes) else 0)
    windows = np.argsort(place)[codes] // window
    rank = permutation(seed, Stream.SAMPLE, draw, len(positions))
    return positions[np.lexsort((rank, windows))]


def iterate(
    view: V, batch: int, *, shuffle: bool, seed: int, epoch: int
) -> Iterator[tuple[V, NDArray[np.float32]]]:
    """Yield (rows, their weights ``[b, P]``); see :meth:`zoo.dataset.View.iter`."""
    for positions in plan_batches(view, batch, Shuffle(seed, epoch) if shuffle else None):
        part = view.take(positions)
        yield part, part.stacked_weights()


def rows_at_once(view: AnyView, most: int = 1024) -> int:
    """Return how many rows to hold at a time: at most ``most``, and 256 MB in float64."""
    params = max((c.params for c in view.zoo.plan.cohorts), default=1)
    return max(1, min(most, _AT_ONCE_BYTES // (8 * params)))


def shard_numbers(view: AnyView) -> NDArray[np.int64]:
    """Return a number for the file that each row is in, ``[n]``."""
    cohorts = view.zoo.plan.cohorts
    task = view["row"] // np.array([c.task_rows for c in cohorts])[view.cohort_index]
    most = max(c.models for c in cohorts)
    deep = max(c.checkpoints for c in cohorts)
    numbers: NDArray[np.int64] = (view.cohort_index * most + task) * deep + view["checkpoint"]
    return numbers


def stacked_rows(view: AnyView) -> NDArray[np.float32]:
    """Return the rows ``[n, P]``; see :meth:`zoo.dataset.View.stacked_weights`."""
    cohorts = view.zoo.plan.cohorts
    present = np.unique(view.cohort_index).tolist()
    layouts = view.layouts
    if len(layouts) != 1:
        sizes = ", ".join(f"{c.id} {c.params}" for c in (cohorts[i] for i in present[:6]))
        msg = (
            f"the view holds {len(layouts)} parameter layouts (parameters by cohort: {sizes});"
            " query one architecture, width and norm, or use weights(): a dict by cohort"
        )
        raise QueryError(msg)
    rows, ks = view["row"], view["checkpoint"]
    if len(present) == 1:
        found: NDArray[np.float32] = view.zoo.source.cohorts[present[0]].read_weights(rows, ks)
        return found
    out = np.empty((len(view), layouts[0].params), dtype=np.float32)
    for index in present:
        at = view.cohort_index == index
        out[at] = view.zoo.source.cohorts[index].read_weights(rows[at], ks[at])
    return out


def stacked_probe(view: AnyView) -> NDArray[np.float16] | dict[str, NDArray[np.float16]]:
    """Return the probe logits; see :meth:`zoo.dataset.View.probe_logits`."""
    sources, cohorts = view.zoo.source.cohorts, view.zoo.plan.cohorts
    present = np.unique(view.cohort_index).tolist()
    if not present and len(sources) == 1:
        present = [0]
    rows, ks = view["row"], view["checkpoint"]
    if len(present) == 1:
        only: NDArray[np.float16] = sources[present[0]].read_probe(rows, ks)
        return only
    places = {index: np.flatnonzero(view.cohort_index == index) for index in present}
    parts = {index: sources[index].read_probe(rows[at], ks[at]) for index, at in places.items()}
    if len({part.shape[1:] for part in parts.values()}) != 1:
        return {cohorts[index].id: part for index, part in parts.items()}
    out = np.empty((len(view), *parts[present[0]].shape[1:]), dtype=np.float16)
    for index, at in places.items():
        out[at] = parts[index]
    return out
