"""Scores of predictions, with confidence intervals by resampling whole clusters of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.seeds import Stream, random_bits

__all__ = ["Estimate", "accuracy", "kendall_tau", "r_squared", "score_predictions"]

_Values = NDArray[np.float64] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its interval.

    Args:
        value: over all rows.
        low, high: 2.5 and 97.5 percentiles over resampled clusters.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def r_squared(truth: _Values, predicted: _Values) -> float:
    """Return 1 − Σ(y − ŷ)² / Σ(y − ȳ)²; NaN where y does not vary."""
    spread = float(np.square(truth - truth.mean()).sum())
    if not spread > 0:
        return float("nan")
    return 1 - float(np.square(truth - predicted).sum()) / spread


def accuracy(truth: _Values, predicted: _Values) -> float:
    """Return the share of rows whose class was predicted."""
    return float((truth == predicted).mean())


def kendall_tau(truth: _Values, predicted: _Values) -> float:
    """Return Kendall's τ-b (1945), in [−1, 1]: 0 where either side is constant."""
    from scipy.stats import kendalltau

    if truth.min() == truth.max() or predicted.min() == predicted.max():
        return 0.0
    return float(kendalltau(truth, predicted).statistic)


def score_predictions(
    truth: _Values,
    predicted: _Values,
    clusters: NDArray[np.int64],
    *,
    classes: bool,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return R² and Kendall's τ of numbers, or the accuracy of classes.

    The rows of a run are not independent, nor are its seeds where the target belongs to a cell: so
    clusters are resampled, with all their rows.

    Args:
        truth, predicted: ``[n]``.
        clusters: ``[n]`` number of each row's run or configuration.
        classes: whether values are classes.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    metrics = {"accuracy": accuracy} if classes else {"r2": r_squared, "tau": kendall_tau}
    order = np.argsort(clusters, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    count = len(groups)
    drawn = random_bits(seed, Stream.SAMPLE, 3, resamples * count).reshape(resamples, count)
    samples = [np.concatenate([groups[i] for i in row]) for row in drawn % np.uint32(count)]
    found = {}
    for name, metric in metrics.items():
        values = np.array([metric(truth[s], predicted[s]) for s in samples])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, (2.5, 97.5)) if len(values) else (np.nan, np.nan)
        found[name] = Estimate(metric(truth, predicted), float(low), float(high))
    return found
