"""MNIST-1D: ten 1-d digit shapes, padded, scaled, shifted, sheared and made noisy; generated.

Greydanus and Kobak 2020, "Scaling down deep learning with MNIST-1D", arXiv 2011.14439. The numbers
are those of the authors' generator with its defaults; the random state here is a local one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import DATASETS, Arrays, DataSource

__all__ = ["generate", "read"]

_Signal = NDArray[np.float64]

_SEED = 42
_PER_CLASS = 500
_TRAIN = 4000
_PADDING = (36, 60)
_LONG = 72  # samples of a template after the longest padding
_SHORT = 40  # samples of an example
_SCALE, _SHIFTS, _SHEAR = 0.4, 48, 0.75
_SMOOTH_NOISE, _WHITE_NOISE = 0.25, 0.02

#: The ten shapes of the paper, twelve samples each.
_SHAPES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)


def _templates() -> _Signal:
    """Return the shapes ``[10, 12]`` standardised and moved so that each starts at zero."""
    shapes = np.array(_SHAPES)
    shapes -= shapes.mean(axis=1, keepdims=True)
    shapes /= shapes.std(axis=1, keepdims=True)
    started: _Signal = (shapes - shapes[:, :1]) / 6.0
    return started


def _stretch(signal: _Signal, samples: int) -> _Signal:
    """Return the signal linearly resampled to ``samples`` points."""
    return np.interp(np.linspace(0, 1, samples), np.linspace(0, 1, len(signal)), signal)


def _example(shape: _Signal, random: np.random.RandomState) -> tuple[_Signal, ...]:
    """Return one clean signal and its noise: (signal, smooth, white, shear); draws in this order.

    Adding 1e-8 tells the signal, even where it is zero, from the padding.
    """
    zeros = _PADDING[0] + int(random.rand() * (_PADDING[1] - _PADDING[0] + 1))
    signal = _stretch(np.concatenate([shape + 1e-8, np.zeros(zeros)]), _LONG)
    signal *= 1 + _SCALE * (random.rand() - 0.5)
    signal = np.roll(signal, random.choice(_SHIFTS))
    smooth = _SMOOTH_NOISE * random.randn(_LONG)
    white = _WHITE_NOISE * random.randn(_LONG)
    return signal, smooth, white, np.array([_SHEAR * (random.rand() - 0.5)])


def generate() -> tuple[_Signal, NDArray[np.int64]]:
    """Return all 5000 examples ``[5000, 40]`` float64 in their shuffled order, and their labels.

    Mean 0 and standard deviation 1 over the whole array. Takes about 0.3 s.
    """
    from scipy.ndimage import gaussian_filter1d  # slow to import, and only this set needs it

    random = np.random.RandomState(_SEED)
    drawn = [_example(shape, random) for shape in _templates() for _ in range(_PER_CLASS)]
    clean, smooth, white, shear = (np.stack(part) for part in zip(*drawn, strict=True))
    x = np.where(clean != 0, clean, gaussian_filter1d(smooth, 2, axis=1)) + white
    x = x - shear * np.linspace(-0.5, 0.5, _LONG)
    x = np.stack([_stretch(row, _SHORT) for row in x])
    order = random.permutation(len(x))
    x, y = x[order], np.repeat(np.arange(len(_SHAPES)), _PER_CLASS)[order]
    return (x - x.mean()) / x.std(), y


def read(path: Path | None) -> Arrays:
    """Return 4000 training and 1000 test signals ``[N, 1, 40]`` float32."""
    del path
    signals, y = generate()
    x = signals.astype(np.float32)[:, None, :]
    return Arrays(x[:_TRAIN], y[:_TRAIN], x[_TRAIN:], y[_TRAIN:])


DATASETS.register("mnist1d", doc="signals of length 40, generated")(
    DataSource(
        name="mnist1d",
        source="generated",
        licence="Apache-2.0",
        citation="Greydanus and Kobak 2020, Scaling down deep learning with MNIST-1D, 2011.14439",
        example_shape=(1, _SHORT),
        classes=len(_SHAPES),
        sizes=(_TRAIN, len(_SHAPES) * _PER_CLASS - _TRAIN),
        read=read,
    )
)
