"""Input normalisation: an affine map of each channel, fitted on the full training set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import Dataset, Domain, Parts
from zoo.registry import Registry

__all__ = ["NORMALIZATIONS", "PreparedData", "prepare"]

#: ``[N, *example_shape]`` -> (mean, scale), float64, broadcastable to one example.
Fit = Callable[[NDArray[Any]], tuple[NDArray[np.float64], NDArray[np.float64]]]

NORMALIZATIONS: Registry[Fit] = Registry("normalisation", field="normalization")

_BLOCK = 4096


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PreparedData(Parts):
    """A data set as networks see it: (raw − mean) / scale. The arrays are the caller's own.

    Tokens are symbols and no numbers: they are as they were.

    Args:
        mean, scale: float32, broadcastable to one example.
        domain: where fresh examples come from, as the data set has it, or None.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    domain: Domain | None = None


def _constant(x: NDArray[Any], value: float) -> NDArray[np.float64]:
    return np.full((1,) * (x.ndim - 1), value)


@NORMALIZATIONS.register("none", doc="values as they are")
def none(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Leave the values as they are."""
    return _constant(x, 0.0), _constant(x, 1.0)


@NORMALIZATIONS.register("unit", doc="the range of the training set, over all channels, to [0, 1]")
def unit(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Map the range of the training set, over all channels, to [0, 1]."""
    low, high = float(x.min()), float(x.max())
    return _constant(x, low), _constant(x, high - low if high > low else 1.0)


@NORMALIZATIONS.register(
    "standard", doc="mean 0 and deviation 1 of each channel over the training set"
)
def standard(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean 0 and standard deviation 1 of each channel over the training set.

    Every feature of flat examples is its own channel. The deviation is the population's (÷ N); a
    channel that is constant keeps scale 1.
    """
    axes = (0, *range(2, x.ndim))
    count = x.size // x.shape[1]
    # Blocks keep the float64 copy small.
    blocks = [x[i : i + _BLOCK] for i in range(0, len(x), _BLOCK)]
    shape = (x.shape[1], *(1,) * (x.ndim - 2))
    total = sum(block.sum(axis=axes, dtype=np.float64) for block in blocks)
    mean = np.reshape(total, shape) / count
    squares = sum(np.square(block - mean).sum(axis=axes) for block in blocks)
    deviation = np.sqrt(np.reshape(squares, shape) / count)
    return mean, np.where(deviation > 0, deviation, 1.0)


def prepare(dataset: Dataset, normalization: str = "standard") -> PreparedData:
    """Return a data set normalised with statistics of its full training set.

    Args:
        dataset: the raw data.
        normalization: a name of :data:`NORMALIZATIONS`.

    Raises:
        UnknownNameError: no such normalisation.
    """
    train = dataset.splits["train"]
    # the values of a sequence count once, not once in every window
    fitted = train.x if train.sequence is None else train.sequence.reshape(len(train.sequence), -1)
    tokens = dataset.shape.tokens is not None
    fit = none if tokens else NORMALIZATIONS[normalization]
    mean, scale = (part.astype(np.float32) for part in fit(fitted))
    if train.sequence is not None and not tokens:
        mean, scale = (part.reshape(-1, 1) for part in (mean, scale))

    def apply(x: NDArray[Any]) -> NDArray[np.float32]:
        out = x.astype(np.float32)
        out -= mean
        out /= scale
        return out

    change = np.copy if tokens else apply
    return PreparedData(
        splits={name: split.mapped(change) for name, split in dataset.splits.items()},
        shape=dataset.shape,
        mean=mean,
        scale=scale,
        domain=dataset.domain,
    )
