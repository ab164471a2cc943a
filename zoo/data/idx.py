"""The idx format of MNIST and its kin: a big-endian header, then the values.

Header: two zero bytes, a type code, the number of axes, and the length of each axis as uint32.
Described at the MNIST web page (LeCun, Cortes and Burges 1998).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import DATASETS, Arrays
from zoo.data.files import missing, read_members
from zoo.errors import DataError

__all__ = ["FILES", "idx_reader", "parse_idx"]

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

_STEMS = (
    ("train-images", "idx3"),
    ("train-labels", "idx1"),
    ("t10k-images", "idx3"),
    ("t10k-labels", "idx1"),
)
#: What a user must have at the path.
FILES = "{train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz"


def parse_idx(content: bytes, source: str) -> NDArray[Any]:
    """Return the array of an idx file.

    Args:
        content: the whole file, decompressed.
        source: the file's name, for messages.

    Raises:
        DataError: not an idx file, or cut short.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        msg = f"{source}: not an idx file (it starts with {content[:4].hex() or 'nothing'})"
        raise DataError(msg)
    start = 4 + 4 * content[3]
    if len(content) < start:
        msg = f"{source}: cut short within its header"
        raise DataError(msg)
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    dtype = np.dtype(_TYPES[content[2]])
    wanted, held = math.prod(shape) * dtype.itemsize, len(content) - start
    if wanted != held:
        msg = f"{source}: shape {shape} needs {wanted} bytes, the file holds {held}"
        raise DataError(msg)
    values: NDArray[Any] = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values


def idx_reader(name: str, folders: tuple[str, ...]) -> Callable[[Path | None], Arrays]:
    """Return a reader of the four idx files of the data set ``name``.

    Args:
        name: the data set, for messages.
        folders: subfolders of the user's path where the files may be as well.
    """
    choices = [
        [f"{stem}{dot}{kind}-ubyte{end}" for end in ("", ".gz") for dot in "-."]
        for stem, kind in _STEMS
    ]

    def read(path: Path | None) -> Arrays:
        about = DATASETS[name]
        if path is None:
            raise missing(about, "no path is given")
        contents = read_members(path, choices, folders)
        if isinstance(contents, str):
            raise missing(about, contents)
        train_x, train_y, test_x, test_y = (
            parse_idx(content, f"{path}: {choice[0]}")
            for content, choice in zip(contents, choices, strict=True)
        )
        return Arrays(train_x[:, None], train_y, test_x[:, None], test_y)

    return read
