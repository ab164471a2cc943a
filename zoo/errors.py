"""The errors that phasezoo raises: one root, and each also a built-in that a caller would catch.

Bad input is reported once and whole: checks collect :class:`Problem` rows and raise
:class:`SpecError` with all of them, instead of stopping at the first.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = [
    "DataError",
    "MissingDataError",
    "NameTakenError",
    "PluginMissingError",
    "Problem",
    "QueryError",
    "RegistryError",
    "SchedulerError",
    "SpecError",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreError",
    "StoreMissingError",
    "TrainError",
    "UnknownNameError",
    "ZooError",
    "did_you_mean",
    "listed",
    "nearest",
    "no_such",
    "short",
    "unknown_name",
]

#: Names of a list that an error shows, and characters of a value.
_MOST_NAMES = 12
_MOST_CHARACTERS = 100
#: Problems that an error shows, and characters of a part of one.
_MOST_PROBLEMS, _MOST_OF_A_PART = 100, 600


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


class RegistryError(ZooError, ValueError):
    """An entry that cannot be registered: its name is taken, or a field is declared otherwise."""


class PluginMissingError(ZooError, LookupError):
    """A run uses entries of a plug-in that is not loaded, or is loaded with other content."""


class SchedulerError(ZooError, RuntimeError):
    """A cluster's scheduler that is not there, does not answer, or refuses a job."""


class StoreError(ZooError, OSError):
    """A store that cannot be created, read or written."""


class StoreMissingError(StoreError, FileNotFoundError):
    """No phasezoo store at this path."""


class StoreBusyError(StoreError):
    """Another process owns what this one wants to write."""


class NameTakenError(StoreError, FileExistsError):
    """Something else has the name that was to be created."""


class StoreCorruptError(StoreError):
    """Bytes on disk that do not match their checksum or their commit record."""


class TrainError(ZooError, RuntimeError):
    """Training that cannot start or continue (not a diverged model: that is a status)."""


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """Return the entry of ``allowed`` spelled most like ``name``, or None when none is close.

    Failing that, the shortest one with ``name`` as a part: ``trace`` means ``hessian_trace``.
    """
    name, entries = str(name), list(allowed)
    found = difflib.get_close_matches(name, entries, n=1, cutoff=0.6)
    if found:
        return found[0]
    whole = [e for e in entries if len(name) > 2 and name.lower() in e.lower()]
    return min(whole, key=len, default=None)


def did_you_mean(name: str, known: Iterable[str], others: Mapping[str, str] | None = None) -> str:
    """Return ``"did you mean 'width'?"``, or an empty text where no known name is close.

    Args:
        name: what the user wrote.
        known: the names that there are.
        others: what else people write -> the known name for it.
    """
    entries = list(known)
    word = str(name).lower().replace("-", "_")
    close = (others or {}).get(word)
    if close not in entries:
        close = nearest(name, entries) or nearest(word, entries)
    return f"did you mean {close!r}?" if close else ""


def listed(names: Iterable[str]) -> str:
    """Return names with commas between them; of a long list, the beginning and the number."""
    entries = list(names)
    if len(entries) <= _MOST_NAMES + 2:
        return ", ".join(entries)
    return f"{', '.join(entries[:_MOST_NAMES])}, and {len(entries) - _MOST_NAMES} more"


def no_such(name: object, what: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error of a thing that is not there, with the nearest name first.

    Args:
        name: what the user wrote.
        what: kind of the thing: ``"cohort"``.
        known: the names that there are.
    """
    entries = list(known)
    close = did_you_mean(str(name), entries)
    parts = [
        f"no {what} {name!r}",
        *([close] if close else []),
        f"there are: {listed(entries) or 'none'}",
    ]
    return UnknownNameError("; ".join(parts))


def unknown_name(
    place: str,
    value: object,
    message: str,
    known: Iterable[str],
    others: Mapping[str, str] | None = None,
) -> Problem:
    """Return the problem of a name that is not among the known ones, with the nearest first.

    Args:
        place: where, as :class:`Problem` has it.
        value: the name; None where it is the last part of the place.
        message: what is wrong.
        known: the names that there are.
        others: what else people write -> the known name for it.
    """
    entries = list(known)
    name = place.rpartition(".")[2] if value is None else str(value)
    return Problem(place, value, message, listed(entries), did_you_mean(name, entries, others))


def short(value: object) -> str:
    """Return a value as messages show it: at most about a line, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 1000:
        return f"an integer of about {int(value.bit_length() * 0.30103):,} digits"
    try:
        text = repr(value)
    except ValueError:  # a list with such an integer in it
        text = f"a {type(value).__name__}"
    return _cut(text, _MOST_CHARACTERS)


def _cut(text: str, most: int = _MOST_OF_A_PART) -> str:
    """Return a text without its middle where it is too long to be read."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


def _printable(name: str) -> str:
    """Return a name that a user chose on one line, without what a terminal would obey."""
    return _cut("".join(c if c.isprintable() else repr(c)[1:-1] for c in name))


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

    def shown(self) -> str:
        """Return the value as it is shown, empty where there is none."""
        return "" if self.value is None else short(self.value)

    def __str__(self) -> str:
        shown = f" = {self.shown()}" if self.value is not None else ""
        text = f"{_printable(self.field)}{shown}: {_cut(self.message)}"
        guess = self.fix.startswith("did you mean")  # a name: before the list of all others
        if guess:
            text += f"; {_cut(self.fix)}"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        if self.fix and not guess:
            text += f"; {_cut(self.fix)}"
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
        shown = [f"  - {p}" for p in self.problems[:_MOST_PROBLEMS]]
        if count > len(shown):
            shown.append(f"  - and {count - len(shown):,} more")
        super().__init__("\n".join([head, *shown]))
