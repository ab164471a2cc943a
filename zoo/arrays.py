"""Arrays from ``.npy`` and ``.npz`` files that anybody may have written.

numpy believes a header: it takes the memory that the header asks for before it looks at the data,
and its messages advise to unpickle. Here the size that a header declares must be the size of the
data, and that must fit into memory, before any is taken. Nothing is ever unpickled.
"""

from __future__ import annotations

import lzma
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayArchive", "open_npz", "read_npy"]

#: Booleans, numbers, bytes and text.
_KINDS = "biufcSU"
_MAGIC = b"\x93NUMPY"
_PIECE = 8 << 20
#: What no data compress to: members above the size, shrunk by more than the factor, are refused.
_BOMB_BYTES, _BOMB_FACTOR = 1 << 30, 300
#: Whatever zip, its compressors and numpy's header reader say of bytes that are not theirs.
_ERRORS = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError,
    ArithmeticError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    tokenize.TokenError,
)  # fmt: skip


def _memory() -> int:
    """Return the bytes of memory that this machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 1 << 40


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether in Fortran's order, and type, from the beginning of a ``.npy`` file."""
    if file.read(len(_MAGIC)) != _MAGIC:
        msg = "not in numpy's .npy format"
        raise ValueError(msg)
    version = tuple(file.read(2))
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        msg = "in a version of numpy's .npy format that is not read; save it anew with numpy.save"
        raise ValueError(msg)
    try:
        shape, fortran, dtype = readers[version](file)
        sizes = tuple(int(n) for n in shape)
    except _ERRORS:
        msg = "its header is damaged"
        raise ValueError(msg) from None
    if any(n < 0 for n in sizes) or len(sizes) > 32:
        msg = f"its header has the shape {list(sizes)[:8]}"
        raise ValueError(msg)
    if dtype.kind not in _KINDS:
        what = "Python objects, which are never loaded" if dtype.hasobject else "records"
        msg = f"it holds {what}; allowed: plain numbers"
        raise ValueError(msg)
    return sizes, bool(fortran), dtype


def read_npy(file: IO[bytes], size: int) -> NDArray[Any]:
    """Return the array of a ``.npy`` file.

    Args:
        file: open at its beginning.
        size: bytes of the whole file, its header included.

    Raises:
        ValueError: a clause that says what is wrong: no such file, a header that asks for other
            than the data that is there, more than this machine's memory, or Python objects.
        OSError: it cannot be read.
    """
    shape, fortran, dtype = _header(file)
    count, held = math.prod(shape), size - file.tell()
    if count * dtype.itemsize != held:
        msg = f"its header asks for {count * dtype.itemsize:,} bytes of data, and it has {held:,}"
        raise ValueError(msg)
    if held > _memory():
        msg = f"its {held:,} bytes do not fit into this machine's memory"
        raise ValueError(msg)
    data = np.empty(held, dtype=np.uint8)
    for start in range(0, held, _PIECE):
        piece = file.read(min(_PIECE, held - start))
        data[start : start + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        if len(piece) != min(_PIECE, held - start):
            msg = "it is cut short"
            raise ValueError(msg)
    try:
        flat = data.view(dtype) if held else np.empty(count, dtype)
        return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    except _ERRORS:
        msg = f"its header has the shape {list(shape)[:8]}"
        raise ValueError(msg) from None


class ArrayArchive:
    """The arrays of an open ``.npz`` file; :func:`open_npz` makes it."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(self._infos)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return an array.

        Raises:
            KeyError: there is none of that name.
            ValueError: a clause that says what is wrong with it.
        """
        info = self._infos[name]
        if info.file_size > max(_BOMB_BYTES, info.compress_size * _BOMB_FACTOR):
            msg = f"its {info.compress_size:,} bytes would become {info.file_size:,}"
            raise ValueError(msg)
        try:
            with self._archive.open(info) as member:
                return read_npy(member, info.file_size)
        except ValueError:
            raise
        except _ERRORS as error:
            msg = f"it is damaged: {error}"
            raise ValueError(msg) from error

    def read(self) -> dict[str, NDArray[Any]]:
        """Return every array.

        Raises:
            ValueError: a clause that names an array and says what is wrong with it.
        """
        found = {}
        for name in self.names:
            try:
                found[name] = self[name]
            except ValueError as error:
                msg = f"array {name!r}: {error}"
                raise ValueError(msg) from None
        return found


@contextmanager
def open_npz(file: Path | IO[bytes]) -> Iterator[ArrayArchive]:
    """Open an ``.npz`` file for the block.

    Raises:
        ValueError: it is none; a clause.
        OSError: it cannot be read.
    """
    try:
        archive = zipfile.ZipFile(file)
    except OSError:
        raise
    except _ERRORS as error:
        msg = f"not in the .npz format: {error}"
        raise ValueError(msg) from None
    with archive:
        yield ArrayArchive(archive)
