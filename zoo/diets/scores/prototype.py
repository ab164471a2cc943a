"""Distance to the nearest prototype (Sorscher et al. 2022, arXiv 2206.14486).

The paper clusters self-supervised embeddings; here they are the last features of the scoring
models, and there are as many clusters as classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.diets.scores.base import SCORES, Score
from zoo.seeds import Stream, uniform

__all__ = ["k_means", "prototype"]

_ROUNDS = 50


def _distances(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return squared distances ``[N, k]``."""
    cross = points @ centres.T
    square = (points**2).sum(1)[:, None] - 2 * cross + (centres**2).sum(1)[None]
    clipped: NDArray[np.float64] = np.maximum(square, 0.0)
    return clipped


def k_means(points: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return k centres ``[k, F]`` by Lloyd's rounds from a k-means++ start (Arthur 2007).

    Seeded by a counter of its own, so that it is a function of the points alone.

    Args:
        points: ``[N, F]``.
        k: centres, at most N.
    """
    draws = uniform(0, Stream.DIET, 1 << 40, k)
    centres = points[:1] * 0 + points[int(draws[0] * len(points))]
    for draw in draws[1:]:
        weights = _distances(points, centres).min(1).cumsum()
        index = int(np.searchsorted(weights, draw * weights[-1], side="right"))
        centres = np.concatenate([centres, points[min(index, len(points) - 1)][None]])
    nearest = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        before, nearest = nearest, _distances(points, centres).argmin(1)
        if np.array_equal(before, nearest):
            break
        for c in range(k):
            if (nearest == c).any():
                centres[c] = points[nearest == c].mean(0)
    found: NDArray[np.float64] = centres
    return found


def prototype(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """Return the Euclidean distance of each example to the nearest of C centres.

    Args:
        features: ``[N, F]`` the last layer's inputs.
        labels: ``[N]``, not used.
        classes: C.

    Returns:
        ``[N]``.
    """
    points = features.astype(np.float64)
    distances: NDArray[np.float64] = _distances(points, k_means(points, classes)).min(1)
    roots: NDArray[np.float64] = np.sqrt(distances)
    return roots


SCORES.register("prototype")(
    Score(
        kind="features",
        doc="distance of the last features to the nearest of C centres",
        source="Sorscher et al. 2022, arXiv 2206.14486",
        compute=prototype,
        needs="labels",
        last_layer=True,
    )
)
