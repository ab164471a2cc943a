"""Memorization: how much an example's own presence helps it (Feldman and Zhang 2020).

Estimated from models on random subsets (arXiv 2008.03703): those of the scoring stage, or the
random baselines of a zoo.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.diets.scores.base import SCORE_SEEDS, SCORES, Score
from zoo.fields import named

__all__ = ["SHARE", "memorization"]

#: Share of the training set that each scoring model sees, as in the paper.
SHARE = 0.7


def memorization(correct: NDArray[np.bool_], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return P(correct | trained on it) − P(correct | not) of each example.

    Args:
        correct: ``[M, N]`` whether model m is right on example n.
        member: ``[M, N]`` whether it was trained on it.

    Returns:
        ``[N]`` float64; 0 where an example was in every subset or in none.
    """
    inside, outside = member.sum(0), (~member).sum(0)
    with_it = (correct & member).sum(0) / np.maximum(inside, 1)
    without = (correct & ~member).sum(0) / np.maximum(outside, 1)
    return np.where((inside > 0) & (outside > 0), with_it - without, 0.0)


SCORES.register("memorization")(
    Score(
        kind="subsets",
        doc="accuracy with the example in the training set minus accuracy without it; -1 to 1",
        source="Feldman and Zhang 2020, arXiv 2008.03703",
        compute=memorization,
        needs="labels",
        own=named(SCORE_SEEDS.at(40)),
        first_epoch=1.0,
    )
)
