"""What to say of a column that there is not: what may be meant first, then what there is."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.errors import did_you_mean, listed
from zoo.spec.other_names import other_names

__all__ = ["unknown_column_text"]


def unknown_column_text(name: str, known: Iterable[str], hint: str = "") -> str:
    """Return the message of an unknown column: a hint or the nearest name, and the first names.

    Args:
        name: what the user wrote.
        known: the columns that there are.
        hint: what to do about it, where more is known than the names.
    """
    names = tuple(known)
    hint = hint or did_you_mean(name, names, other_names())
    parts = [f"unknown column {name!r}", *([hint] if hint else []), f"known: {listed(names)}"]
    return "; ".join(parts)
