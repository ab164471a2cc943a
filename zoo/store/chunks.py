"""The codec of an unsharded chunk: ``bytes → crc32c``, and for text ``vlen-utf8 → crc32c``."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError
from zoo.store.files import checksum

__all__ = ["decode_numbers", "decode_strings", "encode_chunk"]


def encode_chunk(values: NDArray[Any], *, dtype: str) -> bytes:
    """Return the file content of a chunk.

    Args:
        values: the whole chunk, padded to the chunk shape.
        dtype: Zarr name of the data type; ``"string"`` takes text.
    """
    if dtype == "string":
        texts = [str(v).encode() for v in values.ravel()]
        parts = [struct.pack("<I", len(texts))]
        for text in texts:
            parts += (struct.pack("<I", len(text)), text)
        data = b"".join(parts)
    else:
        data = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()
    return data + checksum(data).to_bytes(4, "little")


def _checked(data: bytes) -> bytes:
    body = data[:-4]
    if len(data) < 4 or checksum(body).to_bytes(4, "little") != data[-4:]:
        msg = "the chunk does not match its checksum (the file is torn or altered)"
        raise StoreCorruptError(msg)
    return body


def decode_numbers(data: bytes, *, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the chunk that :func:`encode_chunk` wrote.

    Raises:
        StoreCorruptError: it does not match its checksum or the shape.
    """
    body = _checked(data)
    kind = np.dtype(dtype).newbyteorder("<")
    if len(body) != int(np.prod(shape)) * kind.itemsize:
        msg = f"the chunk does not hold {shape} values"
        raise StoreCorruptError(msg)
    return np.frombuffer(body, dtype=kind).reshape(shape)


def decode_strings(data: bytes) -> list[str]:
    """Return the texts of a string chunk.

    Raises:
        StoreCorruptError: it does not match its checksum.
    """
    body = _checked(data)
    try:
        (count,) = struct.unpack_from("<I", body)
        texts, place = [], 4
        for _ in range(count):
            (size,) = struct.unpack_from("<I", body, place)
            texts.append(body[place + 4 : place + 4 + size].decode())
            place += 4 + size
    except (struct.error, UnicodeDecodeError) as error:
        msg = f"the chunk does not hold texts: {error}"
        raise StoreCorruptError(msg) from error
    return texts
