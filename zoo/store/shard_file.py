"""Reading rows of a shard file: the index once, then only the bytes of the rows asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError
from zoo.store.files import checksum, store_errors
from zoo.store.shard import CRC_BYTES, MISSING, NAME_BYTES, ShardSpec, decode_chunk, decode_index

__all__ = ["TRAIN_AGAIN", "has_name", "read_checksums", "read_index", "read_rows"]

#: What mends a committed shard or its record, a clause.
TRAIN_AGAIN = "`zoo repair` takes it back, and `zoo run` trains it again"


def read_index(path: Path, spec: ShardSpec, name: bytes | None = None) -> NDArray[np.uint64]:
    """Return the index of a shard file, ``[rows, splits, 2]``.

    Args:
        path: the shard.
        spec: its form.
        name: what it must begin with, by :func:`zoo.store.shard.shard_name`; None = anything.

    Raises:
        StoreCorruptError: the file is missing, torn, altered, or has another name.
    """
    handle = _open(path)
    try:
        index = _index(handle, path, spec)
        if name is not None and not has_name(os.pread(handle, NAME_BYTES, 0), index, name):
            msg = f"{path} holds another checkpoint's or other runs' values; {TRAIN_AGAIN}"
            raise StoreCorruptError(msg)
        return index
    finally:
        os.close(handle)


def has_name(head: bytes, index: NDArray[np.uint64], name: bytes) -> bool:
    """Return whether a shard that begins with ``head`` has a name; old ones begin with a chunk."""
    there = index[index[..., 0] != MISSING]
    unnamed = there.size and int(there[:, 0].min()) == 0
    return bool(unnamed) or head[:NAME_BYTES] == name


def _open(path: Path) -> int:
    with store_errors("read", path):
        try:
            return os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            msg = f"{path} is missing, though it was committed; {TRAIN_AGAIN}"
            raise StoreCorruptError(msg) from None


def _index(handle: int, path: Path, spec: ShardSpec) -> NDArray[np.uint64]:
    size = os.fstat(handle).st_size
    data = os.pread(handle, spec.index_bytes, max(0, size - spec.index_bytes))
    try:
        index = decode_index(spec, data)
    except StoreCorruptError as error:
        msg = f"{path}: {error}; {TRAIN_AGAIN}"
        raise StoreCorruptError(msg) from None
    there = index[index[..., 0] != MISSING]
    if there.size and int(there.sum(axis=-1).max()) > size - spec.index_bytes:
        msg = f"{path}: the index points past the end of the chunks; {TRAIN_AGAIN}"
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
    """Decode rows of a shard file, in the order in which they are there.

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
                    msg = f"{path}, chunk {int(rows[place])}.{split}{who}: {error}; {TRAIN_AGAIN}"
                    raise StoreCorruptError(msg) from None
        return found
    finally:
        os.close(handle)


def read_checksums(
    path: Path, rows: Sequence[int] | NDArray[np.int64], index: NDArray[np.uint64]
) -> list[int]:
    """Return a checksum of each row's content: that of its chunks' own, which end each chunk.

    It tells contents apart without reading them; whether a chunk matches its checksum is seen when
    it is read. A row that is not there has 0.

    Args:
        path: the shard.
        rows: n rows, counted from the task's first.
        index: from :func:`read_index`.

    Raises:
        StoreCorruptError: the file is missing.
    """
    handle = _open(path)
    try:
        found = []
        for chunks in index[np.asarray(rows, dtype=np.int64)].astype(np.int64).tolist():
            whole = 0
            for offset, length in chunks if chunks[0][0] >= 0 else ():
                whole = checksum(os.pread(handle, CRC_BYTES, offset + length - CRC_BYTES), whole)
            found.append(whole)
        return found
    finally:
        os.close(handle)
