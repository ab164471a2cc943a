"""Coverage-centric selection: equal budgets for strata of the scores (Zheng et al. 2023).

arXiv 2210.15809. Of the hardest-only choice at small budgets nothing is left but outliers; equal
budgets over equal-width strata keep the whole range covered.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRATA", "stratified"]

#: Strata of equal width, as in the paper.
STRATA = 50


def stratified(
    scores: NDArray[np.float64], words: NDArray[np.uint32], count: int, *, strata: int = STRATA
) -> NDArray[np.int64]:
    """Return positions of ``count`` examples, spread evenly over strata of the scores.

    The range of the scores is cut into strata of equal width. From the smallest stratum up, each
    gives what is left of the budget divided by the strata that are left, or all it has.

    Args:
        scores: ``[n]``, n > 0 unless nothing is asked for.
        words: ``[n]`` random words; a stratum gives its examples in their order.
        count: at most n.
        strata: how many.

    Returns:
        ``[count]`` int64, in no order.
    """
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    low, width = scores.min(), np.ptp(scores)
    if width > 0:
        cell = np.minimum(((scores - low) / width * strata).astype(np.int64), strata - 1)
    else:
        cell = np.zeros(len(scores), dtype=np.int64)
    members = [np.flatnonzero(cell == s) for s in np.unique(cell)]
    members.sort(key=len)
    taken: list[NDArray[np.int64]] = []
    left = count
    for done, rows in enumerate(members):
        share = min(len(rows), left // (len(members) - done))
        taken.append(rows[np.argsort(words[rows], kind="stable")[:share]])
        left -= share
    return np.concatenate(taken)
