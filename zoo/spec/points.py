"""Space-filling designs: seeded points of the unit cube, one column per axis.

Run ids depend on these numbers, so they must never drift with a library version. All randomness is
raw Philox output keyed by (method, seed, axis name): an axis keeps its values when another one is
added beside it (but for Sobol, whose columns go by position).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from zoo.registry import Registry

__all__ = ["POINT_METHODS", "PointMethod", "unit_points"]

#: Takes axis names (D), a number of points n and a seed; returns ``[n, D]`` float64 in [0, 1).
PointMethod = Callable[[Sequence[str], int, int], NDArray[np.float64]]

POINT_METHODS: Registry[PointMethod] = Registry("sampling method")

#: Bits of scipy's unscrambled Sobol points.
_SOBOL_BITS = 30


def unit_points(method: str, names: Sequence[str], n: int, seed: int) -> NDArray[np.float64]:
    """Return ``[n, D]`` points of the unit cube, one column per name.

    Args:
        method: a name of :data:`POINT_METHODS`.
        names: the axes, D of them.
        n: number of points.
        seed: any integer >= 0; the same arguments give the same points for ever.

    Raises:
        UnknownNameError: no such method.
    """
    sampler = POINT_METHODS[method]
    if not names or n == 0:
        return np.zeros((n, len(names)))
    return sampler(names, n, seed)


def _raw(seed: int, name: str, n: int) -> NDArray[np.uint64]:
    """Return n raw 64-bit words of the stream ``(seed, name)``."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    key = int.from_bytes(digest[:16], "little")
    return np.asarray(np.random.Philox(key=key).random_raw(n), dtype=np.uint64)


def _uniform(seed: int, name: str, n: int) -> NDArray[np.float64]:
    """Return n uniform numbers of [0, 1), 53 bits each."""
    return (_raw(seed, name, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@POINT_METHODS.register(
    "random", doc="independent uniform points; the first n of a longer design are this design"
)
def random_points(names: Sequence[str], n: int, seed: int) -> NDArray[np.float64]:
    """Return independent uniform points; the first n of a longer design are this design."""
    return np.stack([_uniform(seed, f"random:{name}", n) for name in names], axis=1)


@POINT_METHODS.register(
    "sobol",
    doc="Sobol points under a random digital shift",
    source="Owen 1998; directions of Joe and Kuo 2008",
)
def sobol_points(names: Sequence[str], n: int, seed: int) -> NDArray[np.float64]:
    """Return Sobol points under a random digital shift (Owen 1998; directions of Joe & Kuo 2008).

    The shift XORs every point with one random word an axis: it keeps the balance of the sequence
    and makes seeds independent. The first n of a longer design are this design.
    """
    from scipy.stats import qmc

    log2_n = max(0, (n - 1).bit_length())
    engine = qmc.Sobol(len(names), scramble=False, bits=_SOBOL_BITS)
    points = np.asarray(engine.random_base2(log2_n))[:n]
    words = np.rint(points * 2.0**_SOBOL_BITS).astype(np.uint64)
    for column, name in enumerate(names):
        shift = _raw(seed, f"sobol:{name}", 1)[0] >> np.uint64(64 - _SOBOL_BITS)
        words[:, column] ^= shift
    return (words.astype(np.float64) + 0.5) * 2.0**-_SOBOL_BITS


@POINT_METHODS.register(
    "lhs",
    doc="a Latin hypercube: one point in each of n strata of every axis",
    source="McKay et al. 1979",
)
def latin_hypercube(names: Sequence[str], n: int, seed: int) -> NDArray[np.float64]:
    """Return a Latin hypercube (McKay et al. 1979): one point in each of n strata of every axis.

    The strata depend on n, so a longer design has other points.
    """
    columns = []
    for name in names:
        strata = np.argsort(_raw(seed, f"lhs-strata:{name}", n), kind="stable")
        columns.append((strata + _uniform(seed, f"lhs-jitter:{name}", n)) / n)
    return np.minimum(np.stack(columns, axis=1), np.nextafter(1.0, 0.0))
