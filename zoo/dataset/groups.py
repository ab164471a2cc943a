"""The rows of a view by the values of columns."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView
from typing import Any, Generic, TypeVar

import numpy as np

from zoo.dataset.any_view import AnyRows
from zoo.dataset.table import group_codes
from zoo.errors import no_such

__all__ = ["Groups"]

V = TypeVar("V", bound=AnyRows)

_SHOWN = 8


class Groups(Generic[V]):
    """Views by value, in order of the values, missing ones last.

    Going over it gives ``(value, view)``; ``groups[value]`` is one view. With several columns a
    value is a tuple. Missing numbers are None.

    Args:
        view: the rows.
        names: the columns, at least one.
    """

    def __init__(self, view: V, names: tuple[str, ...]) -> None:
        self.names = names
        self._parts: dict[Any, V] = {}
        columns = [view.column(name) for name in names]
        codes, first = group_codes(columns)
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(first) + 1))
        values = zip(*(c[first].tolist() for c in columns), strict=True)
        for number, value in enumerate(values):
            key = tuple(None if v != v else v for v in value)
            rows = order[bounds[number] : bounds[number + 1]]
            self._parts[key[0] if len(names) == 1 else key] = view.take(rows)

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[tuple[Any, V]]:
        return iter(self._parts.items())

    def __contains__(self, value: object) -> bool:
        return value in self._parts

    def __getitem__(self, value: Any) -> V:
        """Return the rows with a value.

        Raises:
            UnknownNameError: no row has it.
        """
        if value in self._parts:
            return self._parts[value]
        what = f"row with {', '.join(self.names)} ="
        raise no_such(value, what, [str(known) for known in self._parts])

    def keys(self) -> KeysView[Any]:
        """Return the values."""
        return self._parts.keys()

    def items(self) -> ItemsView[Any, V]:
        """Return (value, view) pairs."""
        return self._parts.items()

    def counts(self) -> dict[Any, int]:
        """Return how many rows have each value."""
        return {value: len(part) for value, part in self}

    def __repr__(self) -> str:
        shown = ", ".join(f"{value!r}: {len(part)}" for value, part in list(self)[:_SHOWN])
        more = ", ..." if len(self) > _SHOWN else ""
        return f"<Groups by {', '.join(self.names)}: {shown}{more}>"
