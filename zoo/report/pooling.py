"""What a table or a picture pools over: the fields that differ within one of its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import View
from zoo.dataset.summary import value_span
from zoo.dataset.table import group_codes
from zoo.spec.catalogue import catalogue
from zoo.spec.common import SEED_FIELDS

__all__ = [
    "all_diet_fields", "is_diet", "is_seed", "pooled_fields", "pooled_values", "pooled_words",
    "split_fields", "split_order", "unfinished", "varies_within",
]  # fmt: skip

#: Panels that a picture has at most; more where a diet would be mixed with its baseline.
MOST_PANELS, MOST_DIETS = 6, 12


def is_seed(name: str) -> bool:
    """Return whether a field is a seed: what differs in nothing else is a repetition."""
    return name == "seed" or name in SEED_FIELDS


def all_diet_fields() -> frozenset[str]:
    """Return the fields that say which examples are trained on, and how often."""
    return frozenset(catalogue().under("score", "dynamic"))


def is_diet(name: str) -> bool:
    """Return whether a field is one of :func:`all_diet_fields`."""
    return name in all_diet_fields()


def varies_within(
    columns: Mapping[str, NDArray[Any]], groups: Sequence[str], names: Sequence[str]
) -> list[str]:
    """Return those of ``names`` that take more than one value where all ``groups`` are equal.

    Args:
        columns: name -> ``[n]``.
        groups: columns that make a group; none = all rows are one.
        names: columns that may vary.
    """
    n = len(next(iter(columns.values()), ()))
    if not n:
        return []
    own = group_codes([np.zeros(n, np.int64), *(columns[g] for g in groups)])[0]
    count = len(np.unique(own))
    return [f for f in names if len(group_codes([own, columns[f]])[1]) > count]


def pooled_values(
    columns: Mapping[str, NDArray[Any]], groups: Sequence[str], names: Sequence[str]
) -> dict[str, list[Any]]:
    """Return the fields that differ within a group: field -> all of its values, seeds last.

    What follows from a listed optimizer, diet or seed is left out, as its momentum or its epoch.

    Args:
        columns: name -> ``[n]``.
        groups: columns that make a group.
        names: the fields that may differ.
    """
    differ = varies_within(columns, groups, sorted(names, key=is_seed))
    leaders = [name for name in differ if name in catalogue().owners or name == "seed"]
    rest = [name for name in differ if name not in leaders]
    free = {*leaders, *varies_within(columns, [*groups, *leaders], rest)}
    found = [name for name in differ if name in free]
    return {name: [_plain(v) for v in np.unique(columns[name]).tolist()] for name in found}


def pooled_fields(view: View, by: Sequence[str]) -> dict[str, list[Any]]:
    """Return the spec fields that differ within a group of rows: field -> its values in the view.

    Seeds come last. A field that has one value in each group is not pooled over.

    Args:
        view: the rows.
        by: the columns that make a group.

    Raises:
        QueryError: an unknown column.
    """
    fields = [name for name in view.zoo.varying if name not in by]
    columns = {name: view.column(name) for name in (*by, *fields)}
    return pooled_values(columns, by, fields)


def unfinished(view: View) -> dict[str, int]:
    """Return how many runs of a view were not trained to the end: status -> runs."""
    first = group_codes([view.column("run_id")])[1]
    return {s: int(n) for s, n in view.take(first).counts("status").items() if s != "done"}


def pooled_words(fields: Mapping[str, Sequence[Any]]) -> str:
    """Return pooled fields as text: ``"norm (batch, none), lr (0.01, 0.1) and 5 seeds"``."""
    parts = []
    for name, values in fields.items():
        if name == "seed":
            parts.append(f"{len(values)} seeds")
        else:
            shown = value_span([v for v in values if v is not None])
            parts.append(
                f"{name} ({', '.join(['none'] * (None in values) + [shown] * bool(shown))})"
            )
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def split_order(
    columns: Mapping[str, NDArray[Any]], groups: Sequence[str], names: Sequence[str]
) -> list[str]:
    """Return the fields to split groups by so that nothing but seeds is pooled, in order.

    Fields of data diets come first, since a diet is not to be mixed with its random baseline, then
    the norm, then the others in their order. A field that tells nothing new is left out.

    Args:
        columns: of the runs, name -> ``[n]``.
        groups: the columns that make a group.
        names: the fields that may be split by.
    """

    def rank(name: str) -> int:
        return 0 if is_diet(name) else 1 if name == "norm" else 2

    chosen: list[str] = []
    for name in sorted(names, key=rank):
        chosen += varies_within(columns, [*groups, *chosen], [name])
    return chosen


def split_fields(
    columns: Mapping[str, NDArray[Any]], groups: Sequence[str], names: Sequence[str]
) -> tuple[str, ...]:
    """Return the fields that panels are made by: those of :func:`split_order` that fit.

    There are at most six panels, or twelve where they are diets.
    """
    chosen: list[str] = []
    for name in split_order(columns, groups, names):
        panels = len(group_codes([columns[f] for f in (*chosen, name)])[1])
        if panels <= (MOST_DIETS if is_diet(name) else MOST_PANELS):
            chosen.append(name)
    return tuple(chosen)


def _plain(value: Any) -> Any:
    return None if value != value or value == "" else value
