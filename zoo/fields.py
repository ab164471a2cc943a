"""What a field of a run is: one record, for those of every run and those that an entry brings.

A field is declared once, by whoever reads it. Sweep files, checks and their messages, the identity
of a run, what splits a cohort, the columns of a store, ``zoo list`` and the tables of the docs all
follow from the declaration.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["FLOAT32", "KINDS", "MAX_INTEGER", "Field", "Fields", "named"]

#: What values may be.
KINDS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
#: How runs that differ in a field stack.
PER = ("model", "cohort", "switch")

#: What TOML and the store's columns hold.
MAX_INTEGER = 2**63 - 1
#: Models train in float32.
FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True, slots=True)
class Field:
    """What a field of a run is: its type, its bounds, its default and one line of prose.

    Args:
        name: what sweeps, queries and columns call it.
        kind: ``"int"``, ``"float"``, ``"str"`` or ``"bool"``; ``"str"`` is a name of the registry
            for this field, where there is one.
        default: its value where nobody gives one; None = unset, which must then mean something.
            It is no part of a run's identity, so changing it gives old run ids another meaning.
        doc: one line, with the unit.
        low, high: closed bounds, or None.
        above, below: open bounds, or None.
        per: ``"model"``: a vector over the models of a cohort. ``"cohort"``: runs that differ in it
            do not stack. ``"switch"``: a vector, but runs that have it at its default, which means
            off, do not stack with runs that have it on.
        follows: the field whose value it takes where it is not given.
        planned: it is set when planning, to the hash of a file's content.
        aka: what other libraries call it, with spaces between.
        first, last: the smallest and the largest number that is accepted. A number that lies within
            the bounds but rounds to an excluded one in float32 is not.

    Raises:
        ValueError: a declaration that makes no sense, such as a default out of bounds.
    """

    name: str
    kind: str
    default: Any
    doc: str
    _: dataclasses.KW_ONLY
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    per: str = "model"
    follows: str = ""
    planned: bool = False
    aka: str = ""
    first: float = dataclasses.field(init=False, repr=False)
    last: float = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or not self.doc:
            msg = f"field {self.name!r} needs a Python name and one line of prose"
            raise ValueError(msg)
        for word, value, words in (("kind", self.kind, tuple(KINDS)), ("per", self.per, PER)):
            if value not in words:
                message = f"field {self.name!r}: {word} = {value!r}; allowed: {', '.join(words)}"
                raise ValueError(message)
        first, last = (_edges if self.kind == "float" else _whole_edges)(self)
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "last", last)
        if self.default is not None and not self._is_value(self.default):
            allowed = " ".join(filter(None, (self.kind, self.bounds())))
            message = f"field {self.name!r}: default = {self.default!r}; allowed: {allowed}"
            raise ValueError(message)

    def _is_value(self, value: Any) -> bool:
        if isinstance(value, str) != (self.kind == "str"):
            return False
        inside = self.kind not in ("int", "float") or self.first <= value <= self.last
        return inside and type(value) is KINDS[self.kind]

    @property
    def optional(self) -> bool:
        """Whether None is a value of it; what None means is in ``doc``."""
        return self.default is None

    def at(self, default: Any) -> Field:
        """Return the same field with another default."""
        return dataclasses.replace(self, default=default)

    def agrees(self, other: Field) -> bool:
        """Return whether two declarations are the same but for the default."""
        return self.at(None) == other.at(None)

    def bounds(self) -> str:
        """Return the allowed range in words, empty where there is none."""
        style = "d" if self.kind == "int" else "g"
        limits = ((">=", self.low), (">", self.above), ("<=", self.high), ("<", self.below))
        return " and ".join(f"{sign} {x:{style}}" for sign, x in limits if x is not None)

    def admits(self, value: float) -> bool:
        """Return whether a number lies within the bounds, float32 left aside."""
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )


#: The fields of an entry, by name.
Fields = Mapping[str, Field]


def named(*fields: Field) -> dict[str, Field]:
    """Return fields by their names, as an entry declares them."""
    return {field.name: field for field in fields}


def _whole_edges(field: Field) -> tuple[float, float]:
    low = -MAX_INTEGER if field.low is None else field.low
    high = MAX_INTEGER if field.high is None else field.high
    low = low if field.above is None else math.floor(field.above) + 1
    return low, high if field.below is None else math.ceil(field.below) - 1


def _edges(field: Field) -> tuple[float, float]:
    """Return the smallest and the largest float64 that keeps its meaning as a float32."""
    low = -float(FLOAT32.max) if field.low is None else float(field.low)
    high = float(FLOAT32.max) if field.high is None else float(field.high)
    if field.above is not None:
        # below the normal numbers, processors may round to zero
        low = float(FLOAT32.tiny) if field.above == 0 else _beyond_half(field.above, math.inf)
    if field.below is not None:
        high = _beyond_half(field.below, -math.inf)
    return low, high


def _beyond_half(bound: float, towards: float) -> float:
    """Return the float64 nearest to ``bound`` that does not round to it in float32."""
    neighbour = float(np.nextafter(np.float32(bound), np.float32(towards)))
    return math.nextafter((bound + neighbour) / 2, towards)
