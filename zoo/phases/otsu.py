"""The cut between two groups of numbers (Otsu 1979), exact: no histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "otsu_cut"]

#: Fewer numbers are not cut in two.
FEWEST = 4


def otsu_cut(values: NDArray[np.float64]) -> float | None:
    """Return the cut that separates numbers into two groups best, or None for fewer than four.

    The cut maximises the variance between the groups, n₁ n₂ (m₁ − m₂)² / n², over every way to
    divide the sorted numbers, and lies in the middle between its two neighbours. It finds two
    groups in any numbers, also where there is only one: whoever uses it says so.

    Args:
        values: ``[n]``; NaN are left out.
    """
    x = np.sort(values[np.isfinite(values)])
    n = len(x)
    if n < FEWEST or x[0] == x[-1]:
        return None
    low = np.arange(1, n)
    total = np.cumsum(x)
    below = total[:-1] / low
    above = (total[-1] - total[:-1]) / (n - low)
    between = low * (n - low) * (above - below) ** 2
    between[x[1:] == x[:-1]] = -1.0  # equal numbers are not divided
    best = int(np.argmax(between))
    return float((x[best] + x[best + 1]) / 2)
