"""Records: the small JSON files under ``_zoo``, each with a type, a version and a checksum."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError, StoreError
from zoo.store.files import checksum, read_bytes, write_atomic

__all__ = [
    "RECORD_VERSION",
    "amount",
    "floats",
    "parse_record",
    "read_record",
    "record_bytes",
    "to_json",
    "whole",
    "wholes",
    "write_record",
]

#: Version of every record type.
RECORD_VERSION = 1

_MOST = 2**62
_WORDS = {"Infinity": math.inf, "-Infinity": -math.inf}


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def record_bytes(kind: str, body: Mapping[str, Any]) -> bytes:
    """Return the file content of a record.

    Args:
        kind: the encoding type (``"commit"``, ``"seal"``, ...).
        body: JSON-ready, without NaN.

    Raises:
        StoreError: a value that JSON cannot carry.
    """
    head = {"encoding-type": f"phasezoo-{kind}", "encoding-version": RECORD_VERSION}
    try:
        text = _canonical({**head, **body})
    except (TypeError, ValueError) as error:
        msg = f"the {kind} record holds a value that JSON cannot carry: {error}"
        raise StoreError(msg) from error
    return text[:-1] + b',"check":%d}\n' % checksum(text)


def write_record(path: Path, kind: str, body: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all.

    Raises:
        StoreError: it cannot be written, or not as JSON.
    """
    write_atomic(path, record_bytes(kind, body))


def read_record(path: Path, kind: str) -> dict[str, Any]:
    """Return the body of a record, its checksum verified.

    Raises:
        StoreCorruptError: missing, torn, altered, or of another type.
        StoreError: written by a later version of phasezoo.
    """
    return parse_record(read_bytes(path), path, kind)


def parse_record(
    text: bytes, path: Path, kind: str, *, advice: str = "run `zoo repair`"
) -> dict[str, Any]:
    """Return the body of a record whose file has been read; as :func:`read_record`.

    Args:
        text: the content of the file.
        path: the file, for messages.
        kind: the encoding type.
        advice: what to do if it is damaged, as the error says; empty = nothing.
    """
    try:
        body: dict[str, Any] = json.loads(text)
        check = body.pop("check")
        whole = checksum(_canonical(body)) == check
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        whole = False
    if not whole:
        msg = "; ".join(filter(None, (f"{path} does not match its checksum", advice)))
        raise StoreCorruptError(msg)
    found, version = body.pop("encoding-type", "nameless"), body.pop("encoding-version", 0)
    if found != f"phasezoo-{kind}":
        msg = f"{path} is a {found} record where a phasezoo-{kind} was expected"
        raise StoreCorruptError(msg)
    if not isinstance(version, int) or version > RECORD_VERSION:
        msg = f"{path} has version {version}; this phasezoo reads up to {RECORD_VERSION}: update it"
        raise StoreError(msg)
    return body


def to_json(values: NDArray[Any]) -> list[Any]:
    """Return floats as a JSON-ready list, exact: NaN as null, infinities as strings."""
    return [
        None if math.isnan(v) else v if math.isfinite(v) else f"{'-' if v < 0 else ''}Infinity"
        for v in np.asarray(values, dtype=np.float64).tolist()
    ]


def floats(values: Sequence[Any], dtype: str) -> NDArray[np.floating[Any]]:
    """Return what :func:`to_json` wrote, in the type that it had.

    Raises:
        ValueError, TypeError, KeyError: it is not that.
    """
    numbers = [np.nan if v is None else _WORDS[v] if isinstance(v, str) else v for v in values]
    if any(type(v) not in (int, float) or (type(v) is int and abs(v) > _MOST) for v in numbers):
        raise TypeError(values)
    with np.errstate(over="ignore"):
        return np.array(numbers, dtype=dtype)


def whole(value: Any, low: int = 0, high: int = _MOST) -> int:
    """Return a whole number of a record.

    Raises:
        ValueError: it is none, or not in ``low`` ... ``high``.
    """
    if type(value) is not int or not low <= value <= high:
        msg = f"{value!r:.40} is not a whole number from {low} to {high}"
        raise ValueError(msg)
    return value


def wholes(values: Any, low: int = 0, high: int = _MOST) -> NDArray[np.int64]:
    """Return whole numbers of a record, ``[n]``.

    Raises:
        ValueError, TypeError: they are none, or not all in ``low`` ... ``high``.
    """
    return np.array([whole(value, low, high) for value in values], dtype=np.int64)


def amount(value: Any, high: float = _MOST) -> float:
    """Return a number of a record that is not negative.

    Raises:
        ValueError: it is none, or not below ``high``.
    """
    if type(value) not in (int, float) or not 0 <= value < high:
        msg = f"{value!r:.40} is no amount"
        raise ValueError(msg)
    return float(value)
