"""How far scores agree: rank correlations between scores, seeds and epochs, and label noise."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["noise_precision", "rank_correlation", "score_correlations", "seed_agreement"]

Scores = NDArray[np.floating[Any]]


def rank_correlation(a: Scores, b: Scores) -> float:
    """Return Spearman's ρ of two scores ``[N]``; NaN where one is constant."""
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(a), rankdata(b)])
    if not np.isfinite(ranks).all() or (np.ptp(ranks, axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def healthy(values: Scores) -> Scores:
    """Return the rows of ``[S, N]`` that are finite: the models that did not diverge."""
    return values[np.isfinite(values).all(1)]


def seed_agreement(values: Scores) -> dict[str, float]:
    """Return how far models agree: ``one`` with one, and the means of two ``halves``.

    Args:
        values: ``[S, N]``, a row per model.
    """
    rows = healthy(values)
    if len(rows) < 2:
        return {"one": float("nan"), "halves": float("nan")}
    pairs = [rank_correlation(a, b) for a, b in combinations(rows, 2)]
    half = len(rows) // 2
    halves = rank_correlation(rows[:half].mean(0), rows[half : 2 * half].mean(0))
    return {"one": float(np.mean(pairs)), "halves": halves}


def score_correlations(means: Mapping[str, Scores]) -> dict[tuple[str, str], float]:
    """Return ρ of each pair of named scores ``[N]``."""
    return {(a, b): rank_correlation(means[a], means[b]) for a, b in combinations(means, 2)}


def noise_precision(score: Scores, wrong: NDArray[np.bool_]) -> dict[str, float]:
    """Return how well the top of a score finds wrong labels.

    Args:
        score: ``[N]``, higher = harder.
        wrong: ``[N]`` whether the label is wrong.

    Returns:
        ``base``: share of wrong labels; ``precision``: their share among the round(base · N)
        highest scores (1 = all found); ``lift``: the second over the first.
    """
    count = int(wrong.sum())
    top = np.argsort(-score, kind="stable")[:count]
    base = float(wrong.mean())
    precision = float(wrong[top].mean()) if count else float("nan")
    return {"base": base, "precision": precision, "lift": precision / base if count else 1.0}
