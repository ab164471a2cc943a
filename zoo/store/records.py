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

__all__ = ["RECORD_VERSION", "floats", "read_record", "record_bytes", "to_json", "write_record"]

#: Version of every record type.
RECORD_VERSION = 1

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
    text = read_bytes(path)
    try:
        body: dict[str, Any] = json.loads(text)
        check = body.pop("check")
        whole = checksum(_canonical(body)) == check
    except (ValueError, KeyError, AttributeError):
        whole = False
    if not whole:
        msg = f"{path} does not match its checksum; run `zoo verify`"
        raise StoreCorruptError(msg)
    found, version = body.pop("encoding-type"), body.pop("encoding-version")
    if found != f"phasezoo-{kind}":
        msg = f"{path} is a {found} record where a phasezoo-{kind} was expected"
        raise StoreCorruptError(msg)
    if version > RECORD_VERSION:
        msg = f"{path} has version {version}; this phasezoo reads up to {RECORD_VERSION}: update it"
        raise StoreError(msg)
    return body


def to_json(values: NDArray[Any]) -> list[Any]:
    """Return floats as a JSON-ready list, exact: NaN as null, infinities as strings."""
    return [
        None if math.isnan(v) else v if math.isfinite(v) else f"{'-' if v < 0 else ''}Infinity"
        for v in np.asarray(values, dtype=np.float64).tolist()
    ]


def floats(values: Sequence[Any]) -> NDArray[np.float32]:
    """Return what :func:`to_json` wrote, as float32."""
    numbers = [np.nan if v is None else _WORDS[v] if isinstance(v, str) else v for v in values]
    return np.array(numbers, dtype=np.float32)
