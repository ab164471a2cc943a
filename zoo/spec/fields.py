"""What a run-spec field may be: its type, its bounds, its vocabulary, and the check of a value."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from zoo.errors import Problem, nearest
from zoo.registry import vocabulary

__all__ = ["FieldInfo", "check_value", "spec_field"]


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """What a run-spec field is: its type, its bounds and one line of prose.

    Args:
        name: the field's name.
        kind: ``"int"``, ``"float"``, ``"str"`` or ``"bool"``.
        optional: whether None is allowed (the meaning of None is in ``doc``).
        low, high: closed bounds, or None.
        open_low, open_high: whether the bound itself is excluded.
        doc: one line, with the unit.
    """

    name: str
    kind: str
    optional: bool
    low: float | None
    high: float | None
    open_low: bool
    open_high: bool
    doc: str

    def bounds(self) -> str:
        """Return the allowed range in words, empty where there is none."""
        parts = []
        if self.low is not None:
            parts.append(f"{'>' if self.open_low else '>='} {self.low:g}")
        if self.high is not None:
            parts.append(f"{'<' if self.open_high else '<='} {self.high:g}")
        return " and ".join(parts)


def spec_field(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Return a dataclass field of a run spec, with its bounds and one line of prose."""
    meta = {
        "doc": doc,
        "low": above if above is not None else low,
        "high": below if below is not None else high,
        "open_low": above is not None,
        "open_high": below is not None,
    }
    return dataclasses.field(default=default, metadata=meta)


def check_value(info: FieldInfo, value: Any, place: str = "") -> tuple[Any, Problem | None]:
    """Return ``value`` in the field's own type, and what is wrong with it if anything is.

    Args:
        info: the field.
        value: what the user gave.
        place: where, for the message; the field's name by default.
    """
    place = place or info.name
    if value is None and info.optional:
        return None, None
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if info.kind == "float" and type(value) in (int, float):
        with contextlib.suppress(OverflowError):
            value = float(value) + 0.0  # -0.0 becomes 0.0: equal values, one run id
    if info.kind == "int" and type(value) is float and value.is_integer():
        value = int(value)
    if type(value).__name__ != info.kind:
        article = "an" if info.kind == "int" else "a"
        names = {"int": "integer", "str": "string", "float": "number", "bool": "boolean"}
        message = f"is {type(value).__name__}, not {article} {names[info.kind]}"
        return value, Problem(place, value, message, info.bounds() or names[info.kind])
    problem = _range_problem(info, value, place) or _name_problem(info, value, place)
    return value, problem


def _range_problem(info: FieldInfo, value: Any, place: str) -> Problem | None:
    if info.kind not in ("int", "float"):
        return None
    low = -math.inf if info.low is None else info.low
    high = math.inf if info.high is None else info.high
    inside = (low < value if info.open_low else low <= value) and (
        value < high if info.open_high else value <= high
    )
    if inside and math.isfinite(value):
        return None
    return Problem(place, value, "out of range", info.bounds() or "a finite number")


def _name_problem(info: FieldInfo, value: Any, place: str) -> Problem | None:
    registry = vocabulary(info.name) if info.kind == "str" else None
    if registry is None or value in registry:
        return None
    close = nearest(value, registry.names())
    fix = f"did you mean {close!r}?" if close else ""
    return Problem(place, value, f"unknown {registry.kind}", ", ".join(registry.names()), fix)
