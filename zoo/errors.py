"""The errors that phasezoo raises: one root, and each also a built-in that a caller would catch.

Bad input is reported once and whole: checks collect :class:`Problem` rows and raise
:class:`SpecError` with all of them, instead of stopping at the first.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "DataError",
    "MissingDataError",
    "Problem",
    "QueryError",
    "SchedulerError",
    "SpecError",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreError",
    "StoreMissingError",
    "TrainError",
    "UnknownNameError",
    "ZooError",
    "nearest",
]


class ZooError(Exception):
    """Root of every error that phasezoo raises on purpose."""


class UnknownNameError(ZooError, KeyError):
    """A name that no registry row, field or column has."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DataError(ZooError, ValueError):
    """A data set that is there but cannot be used as it is."""


class MissingDataError(ZooError, FileNotFoundError):
    """A data set whose files are not on this machine; the message says how to get them."""


class QueryError(ZooError, ValueError):
    """A predicate that cannot be parsed, or that names something a store does not have."""


class SchedulerError(ZooError, RuntimeError):
    """A cluster's scheduler that is not there, does not answer, or refuses a job."""


class StoreError(ZooError, OSError):
    """A store that cannot be created, read or written."""


class StoreMissingError(StoreError, FileNotFoundError):
    """No phasezoo store at this path."""


class StoreBusyError(StoreError):
    """Another process owns what this one wants to write."""


class StoreCorruptError(StoreError):
    """Bytes on disk that do not match their checksum or their commit record."""


class TrainError(ZooError, RuntimeError):
    """Training that cannot start or go on (not a diverged model: that is a status)."""


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """Return the entry of ``allowed`` spelled most like ``name``, or None when none is close.

    Failing that, the shortest one with ``name`` as a part: ``trace`` means ``hessian_trace``.
    """
    entries = list(allowed)
    found = difflib.get_close_matches(name, entries, n=1, cutoff=0.6)
    if found:
        return found[0]
    whole = [e for e in entries if len(name) > 2 and name.lower() in e.lower()]
    return min(whole, key=len, default=None)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input.

    Args:
        field: dotted place of the value, as the user wrote it (``block[0].grid.width``).
        value: the offending value, or None where the place itself is wrong.
        message: what is wrong, as a clause without a full stop.
        allowed: what would have been right, in words or as a list.
        fix: how to mend it, where that is not obvious from ``allowed``.
    """

    field: str
    value: object
    message: str
    allowed: str = ""
    fix: str = ""

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {self.value!r}"
        text = f"{self.field}{shown}: {self.message}"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        if self.fix:
            text += f"; {self.fix}"
        return text


class SpecError(ZooError, ValueError):
    """Everything wrong with a run spec, sweep or profile, in one error.

    Args:
        problems: every problem found, at least one.
        source: the file or object that the problems are in.
    """

    def __init__(self, problems: Iterable[Problem], source: str = "run spec") -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.source = source
        count = len(self.problems)
        head = f"{source}: {count} problem{'s' if count != 1 else ''}"
        super().__init__("\n".join([head, *(f"  - {p}" for p in self.problems)]))
