"""What a data set is: its arrays, where it comes from, and the registry of all of them."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError, Problem
from zoo.registry import Registry

__all__ = ["DATASETS", "Arrays", "DataRegistry", "DataSource", "Dataset", "make_dataset"]

#: ``source`` of a data set: how its bytes come to be on this machine.
SOURCES = ("generated", "bundled", "system-package", "user-path")

_OWN = re.compile(r"npz:[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


class Arrays(NamedTuple):
    """What a reader returns: raw examples ``[N, *example_shape]`` and integer labels ``[N]``."""

    train_x: NDArray[Any]
    train_y: NDArray[Any]
    test_x: NDArray[Any]
    test_y: NDArray[Any]


@dataclass(frozen=True, slots=True)
class DataSource:
    """How to come by a data set, and what it will be.

    Args:
        name: the name in a sweep.
        source: ``"generated"``, ``"bundled"``, ``"system-package"`` or ``"user-path"``.
        licence: the licence of the data.
        citation: where it was published.
        example_shape: shape of one example, channels first; None = the file decides.
        classes: number of classes C; None = the file decides.
        sizes: training and test examples; None = the file decides.
        read: returns the arrays, from the path if the set needs one.
        files: the files expected at the path, in words; empty where none is needed.
        system_path: where the system package puts them.
        install: the command that installs the system package.
    """

    name: str
    source: str
    licence: str
    citation: str
    example_shape: tuple[int, ...] | None
    classes: int | None
    sizes: tuple[int, int] | None
    read: Callable[[Path | None], Arrays]
    files: str = ""
    system_path: str = ""
    install: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that gives the path (``ZOO_DATA_CIFAR10``)."""
        return "ZOO_DATA_" + re.sub(r"[^A-Z0-9]", "_", self.name.upper())


class DataRegistry(Registry[DataSource]):
    """The data sets; besides its names it has every ``npz:NAME``, a user's own."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and bool(_OWN.match(name)))

    def __getitem__(self, name: str) -> DataSource:
        if _OWN.match(name):
            return dataclasses.replace(super().__getitem__("npz"), name=name)
        return super().__getitem__(name)


DATASETS = DataRegistry("data set", field="data")


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A data set as it was published: raw, in its own order. The arrays are read-only.

    Args:
        name: the name in a sweep.
        train_x: ``[N, *example_shape]`` uint8 or float32.
        train_y: ``[N]`` int64 labels, 0 to C − 1.
        test_x, test_y: the same for the test set.
        classes: C.
        example_shape: ``(D,)`` features, ``(channels, length)`` or ``(channels, height, width)``.
        fingerprint: sha256 over the four arrays with their dtypes and shapes.
        source: one of ``generated``, ``bundled``, ``system-package``, ``user-path``.
        licence: the licence of the data.
        citation: where it was published.
    """

    name: str
    train_x: NDArray[Any]
    train_y: NDArray[np.int64]
    test_x: NDArray[Any]
    test_y: NDArray[np.int64]
    classes: int
    example_shape: tuple[int, ...]
    fingerprint: str
    source: str
    licence: str
    citation: str


def make_dataset(about: DataSource, arrays: Arrays) -> Dataset:
    """Check the arrays of a reader, freeze them and take their fingerprint.

    Raises:
        DataError: arrays that do not fit each other or the description, all problems at once.
    """
    problems = array_problems(arrays, about.classes)
    if not problems and about.example_shape not in (None, arrays.train_x.shape[1:]):
        shape = arrays.train_x.shape[1:]
        problems.append(Problem("train_x", shape, "bad example shape", str(about.example_shape)))
    if problems:
        origin = f"data set {about.name!r}"
        raise data_error(origin, problems)
    fixed = Arrays(
        train_x=_examples(arrays.train_x),
        train_y=np.array(arrays.train_y, dtype=np.int64),
        test_x=_examples(arrays.test_x),
        test_y=np.array(arrays.test_y, dtype=np.int64),
    )
    for array in fixed:
        array.setflags(write=False)
    top = max(int(fixed.train_y.max()), int(fixed.test_y.max()))
    return Dataset(
        name=about.name,
        **fixed._asdict(),
        classes=about.classes if about.classes is not None else max(top + 1, 2),
        example_shape=tuple(int(n) for n in fixed.train_x.shape[1:]),
        fingerprint=fingerprint(fixed),
        source=about.source,
        licence=about.licence,
        citation=about.citation,
    )


def fingerprint(arrays: Arrays) -> str:
    """Return the sha256 (hexadecimal) over name, little-endian dtype, shape and bytes of each."""
    digest = hashlib.sha256()
    for name, array in arrays._asdict().items():
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name} {plain.dtype.str} {list(plain.shape)}\n".encode())
        digest.update(plain.data)
    return digest.hexdigest()


def data_error(source: str, problems: list[Problem]) -> DataError:
    """Return one error that lists every problem of a source."""
    count = len(problems)
    head = f"{source}: {count} problem{'s' if count != 1 else ''}"
    return DataError("\n".join([head, *(f"  - {p}" for p in problems)]))


def array_problems(arrays: Arrays, classes: int | None = None) -> list[Problem]:
    """Return everything that keeps four arrays from being a data set."""
    problems: list[Problem] = []
    for part in ("train", "test"):
        x, y = getattr(arrays, f"{part}_x"), getattr(arrays, f"{part}_y")
        problems += _example_problems(f"{part}_x", x) + _label_problems(f"{part}_y", y, classes)
        if x.ndim and y.ndim and len(x) != len(y):
            problems.append(
                Problem(f"{part}_y", len(y), "one label an example", f"{len(x)} labels")
            )
    a, b = arrays.train_x, arrays.test_x
    if min(a.ndim, b.ndim) > 1 and a.shape[1:] != b.shape[1:]:
        problems.append(Problem("test_x", b.shape[1:], "unlike train_x", str(a.shape[1:])))
    return problems


def _example_problems(name: str, x: NDArray[Any]) -> list[Problem]:
    if x.dtype.kind not in "buif":
        return [Problem(name, str(x.dtype), "bad dtype", "uint8, an integer or a float type")]
    problems = []
    if x.ndim not in (2, 3, 4):
        allowed = "[N, D], [N, channels, length] or [N, channels, height, width]"
        problems.append(Problem(name, x.shape, "bad shape", allowed))
    if x.size == 0:
        problems.append(Problem(name, x.shape, "is empty", "at least one example and one feature"))
    elif x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            bad = int((~np.isfinite(x.astype(np.float32))).sum())
        if bad:
            problems.append(Problem(name, bad, "values are not finite", "finite float32 numbers"))
    return problems


def _label_problems(name: str, y: NDArray[Any], classes: int | None) -> list[Problem]:
    problems = []
    if y.ndim != 1:
        problems.append(Problem(name, y.shape, "bad shape", "[N], one label an example"))
    if y.dtype.kind not in "ui":
        problems.append(Problem(name, str(y.dtype), "bad dtype", "integers 0 to C - 1"))
    elif y.size:
        low, high = int(y.min()), int(y.max())
        limit = classes - 1 if classes is not None else 65_535
        if low < 0:
            problems.append(Problem(name, low, "negative label", f"0 to {limit}"))
        if high > limit:
            problems.append(Problem(name, high, "label too large", f"0 to {limit}"))
    return problems


def _examples(x: NDArray[Any]) -> NDArray[Any]:
    """Return an own copy: uint8 as it is, everything else as float32."""
    return np.array(x, dtype=np.uint8 if x.dtype == np.uint8 else np.float32, order="C")
