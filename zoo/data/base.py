"""What a data set is: its arrays, where it comes from, and the registry of all of them."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.data.places import variable
from zoo.data.problems import split_problems
from zoo.data.shape import DataShape
from zoo.data.splits import DataSplit, named_splits, ordered, target_kind
from zoo.errors import DataError, Problem
from zoo.fields import Field, Fields, named
from zoo.registry import Registry

__all__ = [
    "DATASETS",
    "WINDOW_OPTIONS",
    "Arrays",
    "DataRegistry",
    "DataSource",
    "Dataset",
    "Domain",
    "Parts",
    "make_dataset",
]

#: ``source`` of a data set: how its bytes come to be on this machine.
SOURCES = ("generated", "bundled", "system-package", "user-path")

_DATA_SHA256 = Field(
    "data_sha256", "str", None, "fingerprint of a user's own data; set when planning", planned=True
)
CONTEXT = Field(
    "context", "int", None, "length of the windows of a sequence; None = the data are none",
    low=1, high=1 << 20, per="cohort", aka="context_length block_size seq_len sequence_length",
)  # fmt: skip
WINDOW_STRIDE = Field(
    "window_stride", "int", None, "from one window to the next; None = context: none overlap",
    low=1, high=1 << 20, per="cohort",
)  # fmt: skip
#: Options of every data set that may be a sequence; the windows are cut here, not by its reader.
WINDOW_OPTIONS = named(CONTEXT, WINDOW_STRIDE)

_OWN = re.compile(r"npz:[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


class Arrays(NamedTuple):
    """What a reader returns of a data set with one input and one target per example.

    Raw examples ``[N, *example_shape]`` and their targets: integer labels ``[N]``, or values
    ``[N, ...]``. A reader may also return a mapping of named arrays: see :mod:`zoo.data.splits`.
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
        read: returns the arrays, from the path if the set needs one, and its options by name.
        files: the files expected at the path, in words; empty where none is needed.
        system_path: where the system package puts them.
        install: the command that installs the system package.
        options: run-spec fields that decide what the data are.
        function: makes the targets ``[N, ...]`` of fresh examples ``[N, *example_shape]``.
    """

    name: str
    source: str
    licence: str
    citation: str
    example_shape: tuple[int, ...] | None
    classes: int | None
    sizes: tuple[int, int] | None
    read: Callable[..., Arrays | Mapping[str, NDArray[Any]]]
    files: str = ""
    system_path: str = ""
    install: str = ""
    options: Fields = field(default_factory=dict)
    function: Callable[[torch.Tensor], torch.Tensor] | None = None

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
        return {**(named(_DATA_SHA256) if self.own else {}), **self.options}


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
class Domain:
    """Where fresh examples are drawn from, uniformly.

    Args:
        low, high: float32 bounds, of the shape of an example.
        function: makes their targets; None = there are none.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    function: Callable[[torch.Tensor], torch.Tensor] | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Parts:
    """The splits of a data set.

    Args:
        splits: name -> examples and targets; ``train`` and ``test`` first.
        shape: the form of an example and of its target.
    """

    splits: Mapping[str, DataSplit]
    shape: DataShape

    @property
    def train_x(self) -> NDArray[Any]:
        """``[N, *example_shape]`` training examples."""
        return self.splits["train"].x

    @property
    def train_y(self) -> NDArray[Any]:
        """``[N, ...]`` their targets: int64 labels, or float32 values."""
        return self.splits["train"].y

    @property
    def test_x(self) -> NDArray[Any]:
        """``[N, *example_shape]`` test examples."""
        return self.splits["test"].x

    @property
    def test_y(self) -> NDArray[Any]:
        """``[N, ...]`` their targets."""
        return self.splits["test"].y

    @property
    def classes(self) -> int:
        """C: classes, or values that an example is to be given."""
        return self.shape.outputs

    @property
    def example_shape(self) -> tuple[int, ...]:
        """``(D,)`` features, ``(channels, length)`` or ``(channels, height, width)``."""
        return self.shape.example

    @property
    def target(self) -> str:
        """What its targets are, a kind of :func:`zoo.data.splits.target_kind`."""
        return self.shape.target


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dataset(Parts):
    """A data set as it was published: raw, in its own order. The arrays are read-only.

    Args:
        name: the name in a sweep.
        fingerprint: sha256 over its arrays with their names, dtypes and shapes.
        source: one of ``generated``, ``bundled``, ``system-package``, ``user-path``.
        licence: the licence of the data.
        citation: where it was published.
        domain: where fresh examples come from, or None.
    """

    name: str
    fingerprint: str
    source: str
    licence: str
    citation: str
    domain: Domain | None = None


def make_dataset(
    about: DataSource,
    arrays: Arrays | Mapping[str, NDArray[Any]],
    *,
    context: int | None = None,
    window_stride: int | None = None,
) -> Dataset:
    """Check the arrays of a reader, freeze them and take their fingerprint.

    Args:
        about: the data set.
        arrays: what its reader returned.
        context, window_stride: of the windows of a sequence.

    Raises:
        DataError: arrays that do not fit each other or the description, all problems at once.
    """
    named_arrays = arrays._asdict() if isinstance(arrays, Arrays) else arrays
    held = ordered({name: np.asarray(array) for name, array in named_arrays.items()})
    problems = split_problems(held, about.classes)
    if not problems and "train_x" in held:
        shape = held["train_x"].shape[1:]
        if about.example_shape not in (None, shape):
            problems.append(
                Problem("train_x", shape, "bad example shape", str(about.example_shape))
            )
    if not problems:
        problems += _window_problems(held, context, window_stride)
    if problems:
        origin = f"data set {about.name!r}"
        raise data_error(origin, problems)
    kind = _kind(held)
    raw = {name: _kept(name, array, kind) for name, array in held.items()}
    splits = named_splits(raw, kind, context=context or 0, stride=window_stride or context or 0)
    bounds = [raw[name] for name in ("low", "high") if name in raw]
    return Dataset(
        name=about.name,
        splits=splits,
        shape=_shape(about, raw, splits, kind),
        fingerprint=arrays_sha256(raw),
        source=about.source,
        licence=about.licence,
        citation=about.citation,
        domain=Domain(bounds[0], bounds[1], about.function) if bounds else None,
    )


def _window_problems(
    held: Mapping[str, NDArray[Any]], context: int | None, stride: int | None
) -> Iterator[Problem]:
    sequences = [name for name in held if name.endswith("_sequence")]
    if not sequences:
        for name, value in (("context", context), ("window_stride", stride)):
            if value is not None:
                message = "windows are cut from a sequence, and the data set has none"
                yield Problem(name, value, message, "None")
        return
    if context is None:
        message = "the data set is a sequence: a window has a length"
        yield Problem("context", None, message, fix="for instance context = 64")
        return
    for name in sequences:
        if len(held[name]) <= context:
            message = f"{name} has {len(held[name]):,} places: there is no window"
            yield Problem("context", context, message, f"up to {len(held[name]) - 1:,}")


def _kind(held: Mapping[str, NDArray[Any]]) -> str:
    """Return what the targets of checked arrays are."""
    if "train_sequence" in held:
        return "class" if held["train_sequence"].ndim == 1 else "vector"
    if "train_labels" in held:
        return "class"
    return target_kind(held["train_y"]) if "train_y" in held else "none"


def _shape(
    about: DataSource, raw: Mapping[str, NDArray[Any]], splits: Mapping[str, DataSplit], kind: str
) -> DataShape:
    train = splits["train"]
    positions = train.y.shape[1:] if kind == "class" else ()
    tokens = None
    if train.x.dtype == np.int64:
        role = "sequence" if train.sequence is not None else "tokens"
        tokens = max(2, *(int(a.max()) + 1 for n, a in raw.items() if n.endswith(f"_{role}")))
    outputs = about.classes
    if kind != "class":
        # without a target, a network gives an example as many values as it has
        outputs = train.y.shape[1] or int(np.prod(train.x.shape[1:]))
    elif outputs is None:
        most = tokens if train.sequence is not None else None
        outputs = most or max(2, *(int(s.y.max()) + 1 for s in splits.values()))
    masked = any(name.endswith("_mask") for name in raw)
    example = tuple(int(n) for n in train.x.shape[1:])
    return DataShape(example, outputs, tuple(map(int, positions)), tokens, kind, masked)


def arrays_sha256(arrays: Arrays | Mapping[str, NDArray[Any]]) -> str:
    """Return the sha256 (hexadecimal) over name, little-endian dtype, shape and bytes of each."""
    held = arrays._asdict() if isinstance(arrays, Arrays) else arrays
    digest = hashlib.sha256()
    for name, array in ordered(held).items():
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name} {plain.dtype.str} {list(plain.shape)}\n".encode())
        digest.update(plain.data)
    return digest.hexdigest()


def data_error(source: str, problems: list[Problem]) -> DataError:
    """Return one error that lists every problem of a source."""
    count = len(problems)
    head = f"{source}: {count} problem{'s' if count != 1 else ''}"
    return DataError("\n".join([head, *(f"  - {p}" for p in problems)]))


#: What targets are kept and fingerprinted as.
_TARGET_TYPES: dict[str, type[np.generic]] = {
    "class": np.int64, "binary": np.uint8, "vector": np.float32,
}  # fmt: skip


def _kept(name: str, array: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return an own read-only copy in the type that an array is kept and fingerprinted in."""
    role = name.rpartition("_")[2]
    dtype: type[np.generic] = np.float32
    if role == "x" and array.dtype == np.uint8:
        dtype = np.uint8
    elif role in ("tokens", "labels") or (role == "sequence" and array.dtype.kind in "ui"):
        dtype = np.int64
    elif role == "y":
        dtype = _TARGET_TYPES[kind]
    elif role == "mask":
        dtype = np.bool_
    kept = np.array(array, dtype=dtype, order="C")
    kept.setflags(write=False)
    return kept
