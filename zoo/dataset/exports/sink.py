"""A file for a library that does not survive a failed write."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Sink"]


class Sink:
    """A new file whose write errors wait until :meth:`check`.

    HDF5 crashes the process at exit after a write that the disk refused. So it is told that all is
    well, what comes after the error goes nowhere, and the caller asks between its own writes.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x+b", buffering=0)
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def check(self) -> None:
        """Raise the error of the first write that failed.

        Raises:
            OSError: as the system gave it.
        """
        if self._error is not None:
            raise self._error

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data``."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self._error is None:
            try:
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                self._error = error
        return size

    def truncate(self, size: int) -> int:
        """Cut or extend the file."""
        if self._error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self._error = error
        return size

    def read(self, size: int = -1) -> bytes:
        """Return what was written; h5py knows a file by this method and uses :meth:`readinto`."""
        return self._file.read(size)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read what was written; zeros past the end."""
        target = memoryview(buffer).cast("B")
        done = self._file.readinto(target) or 0
        target[done:] = bytes(len(target) - done)
        return len(target)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def flush(self) -> None:
        """Do nothing: nothing is held back."""
