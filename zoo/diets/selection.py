"""From scores to the examples that a diet keeps: exactly as many as asked, ties by a hash.

Every rule is a pure function of (scores, labels, example ids, rule, seed). Ties are broken by a
Philox word of (diet seed, example id), never by the order of the arrays: a data set that is
sorted by class stays unbiased, and the same examples in another order give the same choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.diets.strata import stratified
from zoo.errors import DataError
from zoo.fields import Field, Fields, named
from zoo.registry import Registry
from zoo.seeds import Stream, random_bits

__all__ = ["SELECTIONS", "Choosing", "Selection", "class_counts", "select", "tie_break"]

Index = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choosing:
    """How a diet chooses; see the run-spec fields of the same names.

    Args:
        keep: share of the examples that is kept, above 0 and up to 1.
        select: a name of :data:`SELECTIONS`.
        offset: of ``window``: where it starts, as a share of the ascending order.
        trim: of ``hardest`` and ``stratified``: share of the hardest that goes first.
        balance: ``"none"``, or ``"class"``: every class keeps the same share.
        seed: of the tie-break, and of the choice inside strata.
        options: every field that the selection reads.
    """

    keep: float
    select: str = "hardest"
    offset: float = 0.0
    trim: float = 0.0
    balance: str = "none"
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """One way to choose.

    Args:
        choose: (scores ``[n]`` ascending, tie-break words ``[n]``, count, rule) to positions in
            that order ``[count]``.
        fields: run-spec fields that it reads.
    """

    choose: Callable[[Scores, NDArray[np.uint32], int, Choosing], Index]
    fields: Fields = field(default_factory=dict)


SELECTIONS: Registry[Selection] = Registry("selection", field="select")
BALANCES: Registry[str] = Registry("balance", field="balance")
BALANCES.register("none", doc="one ranking over all classes")("none")
BALANCES.register("class", doc="every class keeps the same share")("class")
BUDGETS: Registry[str] = Registry("budget", field="budget")
BUDGETS.register(
    "steps",
    doc="as many steps as on the whole training set",
    source="Paul et al. 2021, arXiv 2107.07075",
)("steps")
BUDGETS.register("epochs", doc="as many passes, so fewer steps")("epochs")


def _span(n: int, start: int, count: int) -> Index:
    start = min(max(start, 0), n - count)
    return np.arange(start, start + count)


def _hardest(scores: Scores, words: NDArray[np.uint32], count: int, rule: Choosing) -> Index:
    n = len(scores)
    return _span(n, n - round(rule.trim * n) - count, count)


def _easiest(scores: Scores, words: NDArray[np.uint32], count: int, rule: Choosing) -> Index:
    return _span(len(scores), 0, count)


def _middle(scores: Scores, words: NDArray[np.uint32], count: int, rule: Choosing) -> Index:
    return _span(len(scores), (len(scores) - count) // 2, count)


def _window(scores: Scores, words: NDArray[np.uint32], count: int, rule: Choosing) -> Index:
    return _span(len(scores), round(rule.offset * len(scores)), count)


def _stratified(scores: Scores, words: NDArray[np.uint32], count: int, rule: Choosing) -> Index:
    left = max(len(scores) - round(rule.trim * len(scores)), count)
    return stratified(scores[:left], words[:left], count)


_TRIM = Field("trim", "float", 0.0, "share of the hardest dropped first", low=0, below=1)
_OFFSET = Field("offset", "float", 0.0, "start of the window, as a share", low=0, below=1)

SELECTIONS.register("hardest", doc="the highest scores, after those that trim drops")(
    Selection(_hardest, named(_TRIM))
)
SELECTIONS.register("easiest", doc="the lowest scores")(Selection(_easiest))
SELECTIONS.register("middle", doc="around the median")(Selection(_middle))
SELECTIONS.register(
    "window", doc="from offset on, in ascending order", source="Paul et al. 2021, arXiv 2107.07075"
)(Selection(_window, named(_OFFSET)))
SELECTIONS.register(
    "stratified",
    doc="equal shares of score strata (CCS), after those that trim drops",
    source="Zheng et al. 2023, arXiv 2210.15809",
)(Selection(_stratified, named(_TRIM)))


def tie_break(ids: Index, seed: int) -> NDArray[np.uint32]:
    """Return a random word for each example id ``[n]``: a function of (seed, id) alone."""
    if len(ids) == 0:
        return np.zeros(0, dtype=np.uint32)
    return random_bits(seed, Stream.DIET, 0, int(ids.max()) + 1)[ids]


def select(
    scores: NDArray[Any], labels: Index, rule: Choosing, *, ids: Index | None = None
) -> Index:
    """Return the ids of the examples that a diet keeps.

    Args:
        scores: ``[n]``, higher = harder; finite.
        labels: ``[n]`` int64.
        rule: what to keep.
        ids: ``[n]`` ids of the examples; by default 0 to n - 1.

    Returns:
        ``[max(1, round(keep · n))]`` int64, sorted, each once. ``round`` takes the even number at
        a tie.

    Raises:
        DataError: scores that are not finite, or not one an example.
        UnknownNameError: an unknown selection.
    """
    n = len(scores)
    ids = np.arange(n) if ids is None else ids
    values = np.asarray(scores, dtype=np.float64)
    bad = int((~np.isfinite(values)).sum())
    if values.shape != (n,) or len(labels) != n or len(ids) != n or bad:
        shape = list(values.shape)
        msg = f"cannot select from scores {shape}, {bad} not finite, for {len(labels)} labels"
        raise DataError(msg)
    count = kept_count(n, rule.keep)
    words = tie_break(ids, rule.seed)
    if rule.balance == "none":
        return np.sort(ids[_choose(values, words, ids, count, rule)])
    parts = []
    classes = np.unique(labels)
    sizes = np.array([(labels == c).sum() for c in classes])
    for c, share in zip(classes, _shares(sizes, count), strict=True):
        rows = np.flatnonzero(labels == c)
        parts.append(rows[_choose(values[rows], words[rows], ids[rows], int(share), rule)])
    return np.sort(ids[np.concatenate(parts)])


def kept_count(n: int, keep: float) -> int:
    """Return how many of n examples a share keeps: at least one."""
    return max(1, round(keep * n))


def _choose(
    values: Scores, words: NDArray[np.uint32], ids: Index, count: int, rule: Choosing
) -> Index:
    """Return positions of the kept examples."""
    order: Index = np.lexsort((ids, words, values))
    chosen = SELECTIONS[rule.select].choose(values[order], words[order], count, rule)
    kept: Index = order[chosen]
    return kept


def _shares(sizes: Index, count: int) -> Index:
    """Return how many each class keeps: within one of its share, ``count`` in all.

    The largest remainders are rounded up; of equal ones, those of the classes that come first.
    """
    exact = sizes * (count / sizes.sum())
    shares: Index = np.floor(exact + 1e-9).astype(np.int64)
    late = np.argsort(shares - exact, kind="stable")[: count - int(shares.sum())]
    shares[late] += 1
    return shares


def class_counts(labels: Index, kept: Index, classes: int) -> Index:
    """Return how many examples of each class are kept, ``[C]``."""
    return np.bincount(labels[kept], minlength=classes).astype(np.int64)
