"""What a model is trained on: symmetric label noise, and a subset of the training set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import data_error
from zoo.errors import DataError, Problem
from zoo.seeds import Stream, permutation, uniform

__all__ = ["noisy_labels", "training_subset"]


def noisy_labels(
    labels: NDArray[np.int64], classes: int, *, noise: float, seed: int
) -> NDArray[np.int64]:
    """Return labels of which exactly round(noise · N) are wrong (symmetric noise).

    The examples are the first of a Philox permutation; each gets a label drawn uniformly from the
    C − 1 that are not its own. With one seed, more noise changes the same labels and further ones.
    ``round`` takes the even number at a tie.

    Args:
        labels: ``[N]`` int64.
        classes: C.
        noise: share of labels, 0 to 1.
        seed: the noise seed.

    Returns:
        ``[N]`` int64, a new array.

    Raises:
        DataError: noise out of range, or a single class.
    """
    problems = []
    if not 0 <= noise <= 1:
        problems.append(Problem("label_noise", noise, "out of range", ">= 0 and <= 1"))
    elif noise > 0 and classes < 2:
        problems.append(Problem("label_noise", noise, "there is no other label", "0 with 1 class"))
    if problems:
        origin = "noisy_labels"
        raise data_error(origin, problems)
    out = np.array(labels, dtype=np.int64)
    count = round(noise * len(out))
    chosen = permutation(seed, Stream.NOISE, 0, len(out))[:count]
    away = 1 + np.floor(uniform(seed, Stream.NOISE, 1, count) * (classes - 1)).astype(np.int64)
    out[chosen] = (out[chosen] + away) % classes
    return out


def training_subset(n: int, *, size: int, seed: int) -> NDArray[np.int64]:
    """Return ``size`` of the rows 0..n−1, sorted, drawn without replacement.

    With one seed a larger subset contains a smaller one.

    Args:
        n: training examples.
        size: rows wanted, 0 to n.
        seed: the noise seed.

    Raises:
        DataError: size out of range.
    """
    if not 0 <= size <= n:
        msg = f"train_size = {size}: out of range; allowed: 0 to {n}"
        raise DataError(msg)
    rows: NDArray[np.int64] = np.sort(permutation(seed, Stream.SUBSET, 0, n)[:size])
    return rows
