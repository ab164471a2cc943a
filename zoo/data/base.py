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

from zoo.data.places import variable
from zoo.errors import DataError, Problem
from zoo.fields import Field, Fields, named
from zoo.registry import Registry

__all__ = [
    "DATASETS",
    "Arrays",
    "DataRegistry",
    "DataSource",
    "Dataset",
    "make_dataset",
    "target_kind",
]

#: ``source`` of a data set: how its bytes come to be on this machine.
SOURCES = ("generated", "bundled", "system-package", "user-path")

_DATA_SHA256 = Field(
    "data_sha256", "str", None, "fingerprint of a user's own data; set when planning", planned=True
)

_OWN = re.compile(r"npz:[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


class Arrays(NamedTuple):
    """What a reader returns: raw examples ``[N, *example_shape]`` and their targets.

    Targets are integer labels ``[N]``, or values ``[N, ...]``: see :func:`target_kind`.
    """

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
        return variable(self.name)

    @property
    def own(self) -> bool:
        """Whether the file alone decides what it holds, so that the name says nothing about it."""
        return self.sizes is None

    @property
    def fields(self) -> Fields:
        """The run-spec fields that a run on this data set reads."""
        return named(_DATA_SHA256) if self.own else {}


class DataRegistry(Registry[DataSource]):
    """The data sets; besides its names it has every ``npz:NAME``, a user's own."""

    def key(self, name: str) -> str:
        """Return ``"npz"`` for every ``npz:NAME``."""
        return "npz" if _OWN.match(name) else name

    def __getitem__(self, name: str) -> DataSource:
        found = super().__getitem__(name)
        return dataclasses.replace(found, name=name) if _OWN.match(name) else found


DATASETS = DataRegistry("data set", field="data")


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A data set as it was published: raw, in its own order. The arrays are read-only.

    Args:
        name: the name in a sweep.
        train_x: ``[N, *example_shape]`` uint8 or float32.
        train_y: ``[N]`` int64 labels, 0 to C − 1; or values ``[N, C]`` float32.
        test_x, test_y: the same for the test set.
        classes: C: classes, or values that an example is to be given.
        target: what its targets are, a kind of :func:`target_kind`.
        example_shape: ``(D,)`` features, ``(channels, length)`` or ``(channels, height, width)``.
        fingerprint: sha256 over the four arrays with their dtypes and shapes.
        source: one of ``generated``, ``bundled``, ``system-package``, ``user-path``.
        licence: the licence of the data.
        citation: where it was published.
    """

    name: str
    train_x: NDArray[Any]
    train_y: NDArray[Any]
    test_x: NDArray[Any]
    test_y: NDArray[Any]
    classes: int
    example_shape: tuple[int, ...]
    fingerprint: str
    source: str
    licence: str
    citation: str
    target: str = "class"


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
    kind = target_kind(arrays.train_y)
    dtype = _TARGET_TYPES[kind]
    raw = Arrays(
        train_x=_examples(arrays.train_x),
        train_y=np.array(arrays.train_y, dtype=dtype),
        test_x=_examples(arrays.test_x),
        test_y=np.array(arrays.test_y, dtype=dtype),
    )
    fixed = raw._replace(train_y=_targets(raw.train_y), test_y=_targets(raw.test_y))
    for array in fixed:
        array.setflags(write=False)
    classes = about.classes
    if kind != "class":
        classes = fixed.train_y.shape[1]
    elif classes is None:
        classes = max(int(fixed.train_y.max()) + 1, int(fixed.test_y.max()) + 1, 2)
    return Dataset(
        name=about.name,
        **fixed._asdict(),
        classes=classes,
        target=kind,
        example_shape=tuple(int(n) for n in fixed.train_x.shape[1:]),
        fingerprint=fingerprint(raw),
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
        problems += _example_problems(f"{part}_x", x) + _target_problems(f"{part}_y", y, classes)
        if x.ndim and y.ndim and len(x) != len(y):
            problems.append(
                Problem(f"{part}_y", len(y), "one target per example", f"{len(x)} targets")
            )
    a, b = arrays.train_x, arrays.test_x
    if min(a.ndim, b.ndim) > 1 and a.shape[1:] != b.shape[1:]:
        problems.append(Problem("test_x", b.shape[1:], "unlike train_x", str(a.shape[1:])))
    return [*problems, *_unlike_targets(arrays.train_y, arrays.test_y)]


def _unlike_targets(train: NDArray[Any], test: NDArray[Any]) -> list[Problem]:
    """Return what two parts' targets differ in, with the remedy where one of them has labels."""
    kinds = target_kind(train), target_kind(test)
    if kinds[0] == kinds[1] and (kinds[0] == "class" or train.shape[1:] == test.shape[1:]):
        return []
    fix = ""
    if "class" in kinds:
        name, kind = ("train_y", kinds[0]) if kinds[1] == "class" else ("test_y", kinds[1])
        how = "argmax(1)" if kind == "binary" else "astype(int)"
        fix = f"if they are labels: {name}.{how}"
    given, like = (f"{y.dtype} {list(y.shape[1:])}" for y in (test, train))
    return [Problem("test_y", given, "unlike train_y", like, fix)]


def target_kind(y: NDArray[Any]) -> str:
    """Return what targets are, by type and shape.

    ``"class"``: integers ``[N]``, the labels of classes. ``"binary"``: integers or truth values
    ``[N, ...]`` with further axes, zeros and ones. ``"vector"``: floats ``[N, ...]``.
    """
    if y.dtype.kind == "f":
        return "vector"
    return "binary" if y.ndim > 1 or y.dtype.kind == "b" else "class"


#: What targets are kept and fingerprinted as.
_TARGET_TYPES: dict[str, type[np.generic]] = {
    "class": np.int64, "binary": np.uint8, "vector": np.float32,
}  # fmt: skip


def _targets(y: NDArray[Any]) -> NDArray[Any]:
    """Return labels as they are, values as float32 ``[N, C]``."""
    return y if y.dtype == np.int64 else y.reshape(len(y), -1).astype(np.float32)


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
            bad = np.argwhere(~np.isfinite(x.astype(np.float32)))
        if len(bad):
            message = f"values are not finite, the first in example {int(bad[0, 0])}"
            problems.append(Problem(name, len(bad), message, "finite float32 numbers"))
    return problems


def _target_problems(name: str, y: NDArray[Any], classes: int | None) -> list[Problem]:
    """Return what is wrong with targets; a data set with known classes has labels."""
    if y.dtype.kind not in "buif":
        allowed = "integers 0 to C - 1, zeros and ones, or floats"
        return [Problem(name, str(y.dtype), "bad dtype", allowed)]
    if classes is not None and target_kind(y) != "class":
        given = f"{y.dtype} {list(y.shape)}"
        return [Problem(name, given, "not class labels", f"integers [N], 0 to {classes - 1}")]
    if y.ndim == 0:
        return [Problem(name, y.shape, "bad shape", "[N], one target per example")]
    if y.size == 0:
        return [Problem(name, y.shape, "is empty", "at least one target")] if y.ndim > 1 else []
    if target_kind(y) == "vector":
        return _value_problems(name, y)
    low, high = int(y.min()), int(y.max())
    if target_kind(y) == "binary":
        if low >= 0 and high <= 1:
            return []
        fix = f"if they are labels: {name}[:, 0]" if y.shape[1:] == (1,) else ""
        given = f"{low} to {high}"
        allowed = "zeros and ones; or integers [N], the labels of classes; or floats"
        return [Problem(name, given, f"integers of shape {list(y.shape)}", allowed, fix)]
    limit = classes - 1 if classes is not None else 65_535
    problems = []
    if low < 0:
        problems.append(Problem(name, low, "negative label", f"0 to {limit}"))
    if high > limit:
        problems.append(Problem(name, high, "label too large", f"0 to {limit}"))
    return problems


def _value_problems(name: str, y: NDArray[Any]) -> list[Problem]:
    with np.errstate(over="ignore"):
        bad = np.argwhere(~np.isfinite(y.astype(np.float32)))
    if not len(bad):
        return []
    message = f"values are not finite, the first in example {int(bad[0, 0])}"
    return [Problem(name, len(bad), message, "finite float32 numbers")]


def _examples(x: NDArray[Any]) -> NDArray[Any]:
    """Return an own copy: uint8 as it is, everything else as float32."""
    return np.array(x, dtype=np.uint8 if x.dtype == np.uint8 else np.float32, order="C")
