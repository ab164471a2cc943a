"""Registries: named entries of one kind, filled by a decorator, that also serve as vocabularies.

A registry made with ``field="norm"`` is the list of values that the run-spec field ``norm`` may
take. The spec room lies below the rooms that fill the registries, so it never imports them: it asks
:func:`vocabulary`, which imports the rooms on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Generic, TypeVar

from zoo.errors import UnknownNameError, nearest

__all__ = ["Registry", "vocabulary"]

T = TypeVar("T")

_ROOMS = ("zoo.data", "zoo.architectures", "zoo.optim", "zoo.train", "zoo.diets")
_VOCABULARIES: dict[str, Registry[object]] = {}


class Registry(Generic[T]):
    """Named entries of one kind (optimizers, norms, data sets, ...).

    Args:
        kind: what an entry is, for messages (``"optimizer"``).
        field: the run-spec field whose allowed values are this registry's names, if any.
    """

    def __init__(self, kind: str, *, field: str | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        if field is not None:
            _VOCABULARIES[field] = self  # type: ignore[assignment]

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its argument under ``name``.

        Raises:
            ValueError: ``name`` is taken.
        """

        def enter(entry: T) -> T:
            if name in self._entries:
                msg = f"{self.kind} {name!r} is registered twice"
                raise ValueError(msg)
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            close = nearest(name, self._entries)
            hint = f"; did you mean {close!r}?" if close else ""
            msg = f"unknown {self.kind} {name!r}; known: {', '.join(self.names())}{hint}"
            raise UnknownNameError(msg) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def names(self) -> tuple[str, ...]:
        """Return every name, in order of registration."""
        return tuple(self._entries)


@cache
def _load_rooms() -> None:
    for room in _ROOMS:
        importlib.import_module(room)


def vocabulary(field: str) -> Registry[object] | None:
    """Return the registry whose names are the allowed values of a run-spec field, or None."""
    _load_rooms()
    return _VOCABULARIES.get(field)
