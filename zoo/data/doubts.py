"""What is allowed in a user's own data and yet likely a mistake: axes in another order, labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import DATASETS, Dataset
from zoo.data.splits import MISSING

__all__ = ["doubts", "in_words"]

#: Channels that a picture or a signal has, commonly.
_CHANNELS = (1, 2, 3, 4)
#: An axis this long is no axis of channels, where another one is short.
_LONG = 5
#: The smallest picture without an axis of channels that is taken for one.
_SIDE = 8
#: Labels that are named before the list is cut.
_SHOWN = 8

_DIMENSIONS = {1: "features", 2: "channels x length", 3: "channels x height x width"}


def in_words(shape: tuple[int, ...] | list[int]) -> str:
    """Return an example shape in words: ``3 x 32 x 32 (channels x height x width)``."""
    return f"{' x '.join(map(str, shape))} ({_DIMENSIONS.get(len(shape), 'axes')})"


def doubts(dataset: Dataset) -> tuple[str, ...]:
    """Return what is likely wrong with a data set of the user's own, each with its remedy.

    Published data sets are beyond doubt.
    """
    if not DATASETS[dataset.name].own:
        return ()
    shape = dataset.shape
    of_shape = () if shape.tokens is not None else _of_shape(shape.example)
    if shape.target == "none" or dataset.splits["train"].sequence is not None:
        return tuple(of_shape)
    of_targets = _of_labels if shape.target == "class" else _of_values
    return (*of_shape, *of_targets(dataset))


def _of_shape(shape: tuple[int, ...]) -> Iterator[str]:
    if len(shape) == 3 and shape[2] in _CHANNELS and min(shape[:2]) >= _LONG:
        yield (
            f"examples of shape {list(shape)} are read as {shape[0]} channels of"
            f" {shape[1]} x {shape[2]} pixels; if the channels are last, put them first:"
            " x.transpose(0, 3, 1, 2)"
        )
    if len(shape) == 2 and shape[0] == shape[1] >= _SIDE:
        yield (
            f"examples of shape {list(shape)} are read as {shape[0]} channels of length"
            f" {shape[1]}; if they are pictures, give them an axis of channels: x[:, None]"
        )
    elif len(shape) == 2 and shape[1] in _CHANNELS and shape[0] >= max(_LONG, 4 * shape[1]):
        yield (
            f"examples of shape {list(shape)} are read as {shape[0]} channels of length"
            f" {shape[1]}; if the channels are last, put them first: x.transpose(0, 2, 1)"
        )


def _of_labels(dataset: Dataset) -> Iterator[str]:
    count = dataset.classes
    train, test = (
        np.bincount(y[y != MISSING], minlength=count) for y in (dataset.train_y, dataset.test_y)
    )
    if np.count_nonzero(train) == 1:
        yield f"every training example has label {int(train.argmax())}: there is nothing to learn"
        return
    absent = np.flatnonzero((train == 0) & (test == 0))
    if absent.tolist() == [0]:
        yield (
            f"labels run from 1 to {count - 1} and begin at 0 here, so there are {count} classes,"
            " and none of the examples is of class 0; subtract 1 from the labels: y - 1"
        )
    elif len(absent):
        yield (
            f"no example has {_labels(absent)}, though there are {count} classes (the largest label"
            " + 1); number the labels anew, those of both parts together:"
            " np.unique(np.r_[train_y, test_y], return_inverse=True)[1]"
        )
    for here, there, words in ((train, test, "training"), (test, train, "test")):
        lacking = np.flatnonzero((here == 0) & (there > 0))
        if len(lacking):
            yield f"no {words} example has {_labels(lacking)}; if that is not meant, split anew"


def _of_values(dataset: Dataset) -> Iterator[str]:
    y = dataset.train_y
    missing = np.isnan(y)
    first = np.take_along_axis(y, missing.argmin(0)[None], 0)
    constant = np.flatnonzero(((y == first) | missing).all(0))
    if len(constant) == y.shape[1]:
        yield "every training example has the same target: there is nothing to learn"
    elif len(constant):
        shown = ", ".join(map(str, constant[:_SHOWN].tolist()))
        yield f"the same for every training example: target{'s'[: len(constant) > 1]} {shown}"
    if (
        dataset.target == "vector"
        and y.shape[1] == 1
        and bool(((y == np.floor(y)) | missing).all())
    ):
        yield (
            "all targets are whole numbers; if they are the labels of classes, give integers:"
            " y.astype(int)"
        )


def _labels(which: NDArray[np.int64]) -> str:
    shown = ", ".join(map(str, which[:_SHOWN].tolist()))
    more = f" and {len(which) - _SHOWN:,} more" if len(which) > _SHOWN else ""
    return f"label{'s' if len(which) > 1 else ''} {shown}{more}"
