"""The random diet: the baseline of every other one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.diets.scores.base import SCORES, Score

__all__ = ["chance"]


def chance(count: int) -> NDArray[np.float64]:
    """Return one and the same score for every example ``[N]``: the tie-break decides."""
    return np.zeros(count)


SCORES.register("random")(
    Score(kind="nothing", doc="a random choice, by the diet seed", source="", compute=chance)
)
