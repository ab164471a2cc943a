"""CIFAR-10 and CIFAR-100: 32×32 colour pictures, from the published files at a user's path.

Both published versions are read: the binary one (records of label bytes, then 3072 pixel bytes) and
the Python one, which is a pickle. A pickle can run any code, so it is read by a machine that knows
one kind of array and nothing else.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import DATASETS, Arrays, DataSource
from zoo.data.files import missing, read_members
from zoo.errors import DataError

__all__ = ["parse_binary", "parse_python"]

_PIXELS = 3 * 32 * 32
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def _pictures(flat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return flat.reshape(-1, 3, 32, 32)


def parse_binary(content: bytes, source: str, *, label_bytes: int) -> Part:
    """Return pictures ``[N, 3, 32, 32]`` and labels ``[N]`` of a batch of the binary version.

    Args:
        content: the whole file.
        source: its name, for messages.
        label_bytes: 1 for CIFAR-10; 2 for CIFAR-100, where the second, the fine label, counts.

    Raises:
        DataError: the length is not a whole number of records.
    """
    record = label_bytes + _PIXELS
    if not content or len(content) % record:
        msg = f"{source}: {len(content)} bytes are not a whole number of {record}-byte records"
        raise DataError(msg)
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return _pictures(rows[:, label_bytes:]), rows[:, label_bytes - 1].astype(np.int64)


class _Bytes:
    """Stands for a uint8 array while a batch is read: takes the state that numpy would."""

    def __init__(self) -> None:
        self.array = np.empty((0, 0), dtype=np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or dtype.code != "u1" or not isinstance(content, bytes):
            msg = "holds an array that is not uint8"
            raise pickle.UnpicklingError(msg)
        values = np.frombuffer(content, np.uint8)
        self.array = values.reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stands for a dtype: keeps its code."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        del state


def _reconstruct(*_: object) -> _Bytes:
    return _Bytes()


def _encode(text: str, codec: str = "latin1") -> bytes:
    """Return bytes as Python 3 spells them in the old protocol."""
    if codec != "latin1":
        msg = f"asks for codec {codec!r}"
        raise pickle.UnpicklingError(msg)
    return text.encode("latin1")


#: Every global that a batch may name, and what stands for it. Nothing of numpy itself is called.
_ADMITTED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Bytes,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _BatchReader(pickle.Unpickler):
    """An unpickler that builds containers, numbers, strings and uint8 arrays, and calls nothing."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            msg = f"names {module}.{name}, which no CIFAR batch does; nothing of it was run"
            raise pickle.UnpicklingError(msg) from None

    def persistent_load(self, pid: object) -> object:
        msg = f"refers to the outside object {pid!r}"
        raise pickle.UnpicklingError(msg)


def parse_python(content: bytes, source: str, *, labels: str) -> Part:
    """Return pictures ``[N, 3, 32, 32]`` and labels ``[N]`` of a batch of the Python version.

    Args:
        content: the whole file.
        source: its name, for messages.
        labels: key of the labels, ``"labels"`` or ``"fine_labels"``.

    Raises:
        DataError: anything but a dictionary of lists, strings, numbers and uint8 arrays.
    """
    try:
        batch = _BatchReader(io.BytesIO(content), encoding="bytes").load()
        held = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        flat = held["data"].array
        y = np.array(held[labels], dtype=np.int64)
        if flat.ndim != 2 or flat.shape[1] != _PIXELS or y.ndim != 1:
            msg = f"has data {flat.shape} and labels {y.shape}, not [N, {_PIXELS}] and [N]"
            raise DataError(msg)
    except Exception as error:
        # A broken pickle raises almost anything; all of it means that the file is no CIFAR batch.
        msg = f"{source}: not a CIFAR batch: {error or type(error).__name__}"
        raise DataError(msg) from error
    return _pictures(np.ascontiguousarray(flat)), y


def _join(parts: list[Part]) -> Part:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _reader(
    name: str, train: tuple[str, ...], test: str, labels: str, label_bytes: int
) -> Callable[[Path | None], Arrays]:
    """Return a reader of the data set ``name``: binary version, Python version, or an archive."""
    archive = name.replace("cifar", "cifar-")
    binary = "cifar-10-batches-bin" if name == "cifar10" else "cifar-100-binary"
    python = "cifar-10-batches-py" if name == "cifar10" else "cifar-100-python"
    stems = (*train, test)

    def read(path: Path | None) -> Arrays:
        about = DATASETS[name]
        if path is None:
            raise missing(about, "no path is given")
        if path.is_dir():
            packed = [path / f"{archive}-{kind}.tar.gz" for kind in ("binary", "python")]
            unpacked = [path, path / binary, path / python]
            held = any((p / f"{test}{end}").is_file() for p in unpacked for end in ("", ".bin"))
            path = path if held else next((p for p in packed if p.is_file()), path)
        found = read_members(path, [[f"{stem}.bin"] for stem in stems], [binary])
        if not isinstance(found, str):
            parts = [
                parse_binary(content, f"{path}: {stem}.bin", label_bytes=label_bytes)
                for content, stem in zip(found, stems, strict=True)
            ]
        else:
            other = read_members(path, [[stem] for stem in stems], [python])
            if isinstance(other, str):
                raise missing(about, f"{found} (binary version), and {other} (Python version)")
            parts = [
                parse_python(content, f"{path}: {stem}", labels=labels)
                for content, stem in zip(other, stems, strict=True)
            ]
        train_x, train_y = _join(parts[:-1])
        return Arrays(train_x, train_y, *parts[-1])

    return read


def _register(name: str, classes: int, read: Callable[[Path | None], Arrays], files: str) -> None:
    DATASETS.register(name, doc=f"32x32 colour pictures in {classes} classes")(
        DataSource(
            name=name,
            source="user-path",
            licence="none stated by the authors",
            citation="Krizhevsky 2009, Learning multiple layers of features from tiny images",
            example_shape=(3, 32, 32),
            classes=classes,
            sizes=(50_000, 10_000),
            read=read,
            files=files,
        )
    )


_register(
    "cifar10",
    10,
    _reader("cifar10", _BATCHES, "test_batch", "labels", 1),
    "cifar-10-binary.tar.gz, cifar-10-python.tar.gz, or the unpacked data_batch_1 to _5 and "
    "test_batch (with or without .bin)",
)
_register(
    "cifar100",
    100,
    _reader("cifar100", ("train",), "test", "fine_labels", 2),
    "cifar-100-binary.tar.gz, cifar-100-python.tar.gz, or the unpacked train and test "
    "(with or without .bin)",
)
