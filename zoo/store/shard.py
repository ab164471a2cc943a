"""The codec of a shard: a Zarr v3 ``sharding_indexed`` chunk, encoded and decoded by ourselves.

A shard holds one checkpoint of one task: a name, which says whose it is; for each row and each part
of a row one inner chunk, ``bytes (little) → blosc (zstd 1, bitshuffle) → crc32c``, in row order;
then the index, an (offset, length) pair of uint64 for every chunk of the grid, and its crc32c. A
chunk that is not there has 2⁶⁴ − 1 twice, and reads as the fill value that the array declares: NaN
of floats, and of other types what its array says.

Encoding here, and not through zarr, makes the bytes a function of the values alone and leaves the
moment of writing to us; decoding here is several times faster for random rows.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numcodecs.blosc
import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError
from zoo.train.plan import Cohort, Task

__all__ = [
    "CHUNK_BYTES",
    "CRC_BYTES",
    "MISSING",
    "NAME_BYTES",
    "ShardSpec",
    "decode_chunk",
    "decode_index",
    "encode_shard",
    "shard_name",
]

#: A row larger than this is split along the param axis.
CHUNK_BYTES = 4 << 20
#: Offset and length of a chunk that is not there.
MISSING = np.uint64(2**64 - 1)

#: Bytes of the checksum that ends each chunk and the index.
CRC_BYTES = 4
#: Bytes of the name that begins each shard.
NAME_BYTES = 16
_BLOSC_HEADER = 16

# With threads, blosc chooses its block size by their number, and the bytes would depend on the
# machine. zarr sets the same flag when it is imported.
numcodecs.blosc.use_threads = False


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """The form of one array's shards.

    Args:
        rows: rows of a full task (the shard's first axis).
        values: values of one row.
        dtype: numpy name of the data type.
        split: whether a row larger than :data:`CHUNK_BYTES` is more than one chunk.
        fill: value of what is not there; None = NaN, which floats alone have.

    Raises:
        ValueError: the type cannot hold the fill value.
    """

    rows: int
    values: int
    dtype: str
    split: bool = True
    fill: float | None = None

    def __post_init__(self) -> None:
        kind, fill = np.dtype(self.dtype).kind, self.fill
        if kind == "f":
            return
        if fill is None or float(np.array(float(fill)).astype(self.dtype)) != fill:
            msg = f"shards of {self.dtype} declare their fill value, and {fill!r} is none of it"
            raise ValueError(msg)

    @property
    def fill_value(self) -> Any:
        """Return what is not there, as a value of the type."""
        return np.dtype(self.dtype).type(math.nan if self.fill is None else self.fill)

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return np.dtype(self.dtype).itemsize

    @property
    def splits(self) -> int:
        """Inner chunks of one row."""
        if not self.split:
            return 1
        return max(1, math.ceil(self.values * self.itemsize / CHUNK_BYTES))

    @property
    def chunk_values(self) -> int:
        """Values of one inner chunk; the last chunk of a split row is padded with the fill."""
        return math.ceil(self.values / self.splits)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one decoded chunk."""
        return self.chunk_values * self.itemsize

    @property
    def index_bytes(self) -> int:
        """Bytes of the index at the end of a shard, its checksum included."""
        return self.rows * self.splits * 16 + CRC_BYTES


def _crc(data: Any) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def shard_name(cohort: Cohort, task: Task, array: str, k: int) -> bytes:
    """Return what a shard begins with: a hash of whose values it holds, and at which checkpoint.

    Shards of equal form differ in it, so one in the place of another is seen.
    """
    runs = cohort.run_ids[task.start : task.stop]
    text = "\0".join([array, str(k), *runs])
    return hashlib.sha256(text.encode()).digest()[:NAME_BYTES]


def encode_shard(
    spec: ShardSpec, values: NDArray[Any], present: NDArray[np.bool_], name: bytes = b""
) -> bytes:
    """Return the bytes of a shard; equal input gives equal bytes.

    Args:
        spec: the form.
        values: ``[R, values]``, R at most ``spec.rows``.
        present: ``[R]``; rows that are False are left out and read as the fill value.
        name: what the file begins with.
    """
    flat = np.ascontiguousarray(values, dtype=np.dtype(spec.dtype).newbyteorder("<"))
    width = spec.chunk_values * spec.splits
    if width != spec.values:
        padding = np.full((len(flat), width - spec.values), spec.fill_value, dtype=flat.dtype)
        flat = np.concatenate([flat, padding], axis=1)
    chunks = flat.reshape(len(flat), spec.splits, spec.chunk_values)
    index = np.full((spec.rows, spec.splits, 2), MISSING, dtype="<u8")
    parts: list[bytes] = [name]
    offset = len(name)
    for row in np.flatnonzero(present):
        for split in range(spec.splits):
            data = numcodecs.blosc.compress(
                chunks[row, split], b"zstd", 1, numcodecs.blosc.BITSHUFFLE
            )
            parts += (data, _crc(data))
            index[row, split] = offset, len(data) + CRC_BYTES
            offset += len(data) + CRC_BYTES
    table = index.tobytes()
    return b"".join([*parts, table, _crc(table)])


def decode_index(spec: ShardSpec, data: bytes) -> NDArray[np.uint64]:
    """Return the index of a shard, ``[rows, splits, 2]``.

    Args:
        spec: the form.
        data: the last ``spec.index_bytes`` bytes of the shard.

    Raises:
        StoreCorruptError: the index is cut or does not match its checksum.
    """
    if len(data) != spec.index_bytes or _crc(data[:-CRC_BYTES]) != data[-CRC_BYTES:]:
        msg = "the index does not match its checksum (the file is torn or altered)"
        raise StoreCorruptError(msg)
    table = np.frombuffer(data, dtype="<u8", count=spec.rows * spec.splits * 2)
    return table.reshape(spec.rows, spec.splits, 2)


def decode_chunk(spec: ShardSpec, data: bytes, out: NDArray[Any]) -> None:
    """Decode one inner chunk into ``out``.

    Args:
        spec: the form.
        data: the chunk's bytes, its checksum included.
        out: contiguous; as long as the chunk, or shorter where the chunk is padded.

    Raises:
        StoreCorruptError: the bytes do not match their checksum, or do not hold one chunk.
    """
    array = np.frombuffer(data, dtype=np.uint8)
    if len(data) < _BLOSC_HEADER + CRC_BYTES or _crc(array[:-CRC_BYTES]) != data[-CRC_BYTES:]:
        msg = "the chunk does not match its checksum (the file is torn or altered)"
        raise StoreCorruptError(msg)
    if int.from_bytes(data[4:8], "little") != spec.chunk_bytes:
        msg = "the chunk holds another number of values than the array's metadata says"
        raise StoreCorruptError(msg)
    whole = len(out) == spec.chunk_values
    target = out if whole else np.empty(spec.chunk_values, dtype=out.dtype)
    try:
        numcodecs.blosc.decompress(array[:-CRC_BYTES], target)
    except (RuntimeError, ValueError) as error:
        msg = f"the chunk cannot be decompressed: {error}"
        raise StoreCorruptError(msg) from error
    if not whole:
        out[:] = target[: len(out)]
