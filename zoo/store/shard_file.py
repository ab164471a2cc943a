"""Reading rows of a shard file: the index once, then only the bytes of the rows asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError
from zoo.store.files import store_errors
from zoo.store.shard import MISSING, ShardSpec, decode_chunk, decode_index

__all__ = ["read_index", "read_rows"]


def read_index(path: Path, spec: ShardSpec) -> NDArray[np.uint64]:
    """Return the index of a shard file, ``[rows, splits, 2]``.

    Raises:
        StoreCorruptError: the file is missing, torn or altered.
    """
    handle = _open(path)
    try:
        return _index(handle, path, spec)
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    with store_errors("read", path):
        try:
            return os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            msg = f"{path} is missing, though it was committed; run `zoo verify`"
            raise StoreCorruptError(msg) from None


def _index(handle: int, path: Path, spec: ShardSpec) -> NDArray[np.uint64]:
    size = os.fstat(handle).st_size
    data = os.pread(handle, spec.index_bytes, max(0, size - spec.index_bytes))
    try:
        index = decode_index(spec, data)
    except StoreCorruptError as error:
        msg = f"{path}: {error}; run `zoo verify`"
        raise StoreCorruptError(msg) from None
    there = index[index[..., 0] != MISSING]
    if there.size and int(there.sum(axis=-1).max()) > size - spec.index_bytes:
        msg = f"{path}: the index points past the end of the chunks; run `zoo verify`"
        raise StoreCorruptError(msg)
    return index


def read_rows(
    path: Path,
    spec: ShardSpec,
    rows: Sequence[int] | NDArray[np.int64],
    out: Sequence[NDArray[Any]],
    *,
    index: NDArray[np.uint64] | None = None,
    names: Sequence[str] | None = None,
) -> int:
    """Decode rows of a shard file, in the order in which they stand there.

    Args:
        path: the shard.
        spec: its form.
        rows: n rows, counted from the task's first.
        out: for each a contiguous array of ``spec.values`` values; untouched where the shard has
            no such row.
        index: from :func:`read_index`, if it is known.
        names: what each row is called, for messages.

    Returns:
        How many of the rows were there.

    Raises:
        StoreCorruptError: the file is missing, torn or altered; names the file, chunk and row.
    """
    handle = _open(path)
    try:
        if index is None:
            index = _index(handle, path, spec)
        chunks = index[np.asarray(rows, dtype=np.int64)].astype(np.int64).tolist()
        found = 0
        for place in sorted(range(len(chunks)), key=lambda i: chunks[i][0][0]):
            if chunks[place][0][0] < 0:  # 2⁶⁴ - 1 as a signed number: not there
                continue
            found += 1
            for split, (offset, length) in enumerate(chunks[place]):
                start = split * spec.chunk_values
                data = os.pread(handle, length, offset)
                try:
                    decode_chunk(spec, data, out[place][start : start + spec.chunk_values])
                except StoreCorruptError as error:
                    who = f" ({names[place]})" if names else ""
                    msg = (
                        f"{path}, chunk {int(rows[place])}.{split}{who}: {error}; run `zoo verify`"
                    )
                    raise StoreCorruptError(msg) from None
        return found
    finally:
        os.close(handle)
