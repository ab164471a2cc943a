"""Pairs of checkpoints, and whole trajectories: what model comparison and dynamics read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, overload

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.any_view import V
from zoo.dataset.pair_dataset import PairDataset
from zoo.dataset.selection import column_names, row_count
from zoo.dataset.splits import group_keys
from zoo.dataset.structure import by_structure
from zoo.errors import QueryError
from zoo.seeds import Stream, permutation, random_bits

__all__ = ["Pairs", "Trajectory", "make_pairs", "trajectories"]

#: More pairs than this are drawn at random, and then a limit must be given.
_MOST = 5_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Pairs(Generic[V]):
    """Pairs of rows of one structure: ``left[i]`` goes with ``right[i]``."""

    left: V
    right: V

    def __len__(self) -> int:
        return len(self.left)

    @overload
    def __getitem__(self, key: int) -> tuple[dict[str, Any], dict[str, Any]]: ...
    @overload
    def __getitem__(self, key: slice | NDArray[Any]) -> Pairs[V]: ...
    def __getitem__(self, key: Any) -> Any:
        """Return the two rows of a pair (integer), or some of the pairs (slice, indices, mask)."""
        if isinstance(key, int | np.integer):
            return self.left[int(key)], self.right[int(key)]
        return Pairs(self.left[key], self.right[key])

    def torch_dataset(self, form: str = "flat", **options: Any) -> PairDataset:
        """Return the pairs as a ``torch`` data set of ``(left item, right item)``.

        Args:
            form: as in :meth:`zoo.dataset.View.torch_dataset`.
            options: those of :class:`zoo.dataset.WeightDataset`, for both sides.
        """
        return PairDataset(self, form=form, **options)

    def iter(
        self, batch: int = 256
    ) -> Iterator[tuple[Pairs[V], NDArray[np.float32], NDArray[np.float32]]]:
        """Yield (pairs, weights of the left ``[b, P]``, of the right), one structure a batch."""
        for positions in by_structure(self.left).values():
            for start in range(0, len(positions), batch):
                part = self[positions[start : start + batch]]
                yield part, part.left.stacked_weights(), part.right.stacked_weights()

    def __repr__(self) -> str:
        return f"<Pairs of zoo {self.left.zoo.name!r}: {len(self):,} pairs of checkpoints>"


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory(Generic[V]):
    """One run's checkpoints in a view.

    Args:
        run_id: which run.
        view: its rows, k of them, by checkpoint.
        weights: ``[k, P]``.
    """

    run_id: str
    view: V
    weights: NDArray[np.float32]

    def __repr__(self) -> str:
        return f"<Trajectory of run {self.run_id}: weights {list(self.weights.shape)}>"


def make_pairs(
    view: V,
    same: str | Sequence[str],
    differ: str | Sequence[str],
    limit: int | None,
    seed: int,
) -> Pairs[V]:
    """Return the pairs of a view's rows; see :meth:`zoo.dataset.View.pairs`."""
    limit = None if limit is None else row_count(limit, "limit")
    structures = np.empty(len(view), dtype=np.int64)
    for number, positions in enumerate(by_structure(view).values()):
        structures[positions] = number
    keys = np.zeros(len(view), dtype=np.int64)
    for name in column_names(same, "same"):
        keys = np.unique(keys * (len(view) + 1) + group_keys(view, name), return_inverse=True)[1]
    keys = np.unique(keys * (len(view) + 1) + structures, return_inverse=True)[1]
    order = np.argsort(keys, kind="stable")
    sizes = np.bincount(keys) if len(keys) else np.empty(0, dtype=np.int64)
    total = int((sizes * (sizes - 1) // 2).sum())
    if total > _MOST and limit is None:
        msg = f"{total:,} pairs: give limit=, or more columns that must be the same"
        raise QueryError(msg)
    if total > _MOST:
        left, right = _drawn(order, sizes, min(4 * int(limit or 0) + 64, _MOST), seed)
    else:
        left, right = _every(order, sizes)
    for name in column_names(differ, "differ"):
        codes = group_keys(view, name)
        keep = codes[left] != codes[right]
        left, right = left[keep], right[keep]
    if limit is not None and len(left) > limit:
        chosen = np.sort(permutation(seed, Stream.SAMPLE, 0, len(left))[:limit])
        left, right = left[chosen], right[chosen]
    return Pairs(view.take(left), view.take(right))


_Sides = tuple[NDArray[np.int64], NDArray[np.int64]]


def _every(order: NDArray[np.int64], sizes: NDArray[np.int64]) -> _Sides:
    """Return all pairs i < j of each group, groups in order."""
    lefts, rights = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    start = 0
    for size in sizes.tolist():
        i, j = np.triu_indices(size, 1)
        lefts.append(order[start + i])
        rights.append(order[start + j])
        start += size
    return np.concatenate(lefts), np.concatenate(rights)


def _drawn(order: NDArray[np.int64], sizes: NDArray[np.int64], n: int, seed: int) -> _Sides:
    """Return about n distinct pairs drawn uniformly from all of them."""
    counts = sizes * (sizes - 1) // 2
    ends = np.cumsum(counts)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    words = random_bits(seed, Stream.SAMPLE, 1, 2 * n).astype(np.uint64)
    number = ((words[::2] << np.uint64(32)) | words[1::2]) % np.uint64(ends[-1])
    number = np.unique(number).astype(np.int64)
    group = np.searchsorted(ends, number, side="right")
    rank = number - (ends[group] - counts[group])
    # the pair of rank r among i < j, counted by j: j(j − 1)/2 ≤ r
    j = ((1 + np.sqrt(1 + 8 * rank.astype(np.float64))) // 2).astype(np.int64)
    j -= j * (j - 1) // 2 > rank
    j += (j + 1) * j // 2 <= rank
    i = rank - j * (j - 1) // 2
    return order[starts[group] + i], order[starts[group] + j]


def trajectories(view: V) -> Iterator[Trajectory[V]]:
    """Yield each run's rows and weights; see :meth:`zoo.dataset.View.trajectories`."""
    runs = view["run_id"]
    _, first, inverse = np.unique(runs, return_index=True, return_inverse=True)
    checkpoints = view["checkpoint"]
    by_run = np.lexsort((checkpoints, first[inverse]))
    bounds = np.flatnonzero(np.diff(first[inverse][by_run])) + 1
    for positions in np.split(by_run, bounds) if len(by_run) else ():
        part = view.take(positions)
        yield Trajectory(str(runs[positions[0]]), part, part.stacked_weights())
