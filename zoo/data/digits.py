"""Digits: the 8×8 handwritten digits that ship with scikit-learn; the default data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import DATASETS, Arrays, DataSource
from zoo.seeds import Stream, permutation

__all__ = ["held_out_rows", "read"]

_EXAMPLES = 1797
_TEST = 360


def held_out_rows(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the sorted rows of a stratified test set of ``count`` examples.

    The rows are ordered by class, within a class by a fixed Philox permutation, and every
    (N / count)-th is taken: each class is within one example of its share.
    """
    shuffled = permutation(0, Stream.SPLIT, 0, len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rows: NDArray[np.int64] = np.sort(by_class[np.arange(count) * len(labels) // count])
    return rows


def read(path: Path | None) -> Arrays:
    """Return 1437 training and 360 test images ``[N, 1, 8, 8]`` uint8 with values 0 to 16."""
    del path
    from sklearn.datasets import load_digits  # slow to import, and only this set needs it

    pixels, labels = load_digits(return_X_y=True)
    x = pixels.astype(np.uint8).reshape(-1, 1, 8, 8)
    y = labels.astype(np.int64)
    test = np.zeros(len(y), dtype=np.bool_)
    test[held_out_rows(y, _TEST)] = True
    return Arrays(x[~test], y[~test], x[test], y[test])


DATASETS.register("digits", doc="8x8 handwritten digits, bundled with scikit-learn")(
    DataSource(
        name="digits",
        source="bundled",
        licence="CC-BY-4.0 (UCI), distributed with scikit-learn (BSD-3-Clause)",
        citation=(
            "Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, "
            "UCI Machine Learning Repository, doi 10.24432/C50P49 (the test part)"
        ),
        example_shape=(1, 8, 8),
        classes=10,
        sizes=(_EXAMPLES - _TEST, _TEST),
        read=read,
    )
)
