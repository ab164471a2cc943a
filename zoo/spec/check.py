"""The check of a value against its field: type, bounds, vocabulary."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo.errors import Problem, unknown_name
from zoo.fields import FLOAT32, MAX_INTEGER, Field
from zoo.registry import vocabulary

__all__ = ["check_value"]

_ARTICLES = {"int": "an integer", "str": "a string", "float": "a number", "bool": "a boolean"}


def check_value(info: Field, value: Any, place: str = "") -> tuple[Any, Problem | None]:
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
        try:
            value = float(value) + 0.0  # -0.0 becomes 0.0: equal values, one run id
        except OverflowError:
            return value, Problem(place, value, "out of range", info.bounds() or "a finite number")
    if info.kind == "int" and type(value) is float and value.is_integer():
        value = int(value)
    if type(value).__name__ != info.kind:
        article, _, noun = _ARTICLES[info.kind].partition(" ")
        message = f"is {type(value).__name__}, not {article} {noun}"
        return value, Problem(place, value, message, info.bounds() or noun)
    if info.kind in ("int", "float"):
        inside = info.first <= value <= info.last
        return value, None if inside else _range_problem(info, value, place)
    return value, _name_problem(info, value, place) if info.kind == "str" else None


def _range_problem(info: Field, value: Any, place: str) -> Problem:
    """Return the problem of a number below the first or above the last."""
    meant = info.admits(value)
    if info.kind == "int":
        limit = f"<= {MAX_INTEGER}"
        allowed = " and ".join(filter(None, (info.bounds(), limit if meant else "")))
        return Problem(place, value, "out of range", allowed)
    if not meant or not math.isfinite(value):
        return Problem(place, value, "out of range", info.bounds() or "a finite number")
    with np.errstate(over="ignore", under="ignore"):
        near = np.float32(value)
    rounded = "infinity" if np.isinf(near) else f"{0 if abs(near) < FLOAT32.tiny else near:g}"
    message = f"rounds to {rounded} in float32, which models train in"
    nearest = FLOAT32.tiny if value < info.first else np.float32(info.last)
    fix = f"nearest allowed: {_in_bounds(info, float(nearest))}"
    return Problem(place, value, message, info.bounds() or "a finite number", fix)


def _in_bounds(info: Field, value: float) -> str:
    """Return the fewest digits of a number at the edge that are still inside."""
    for digits in range(1, 17):
        for shown in (f"{value:.{digits}g}", f"{value * (1 + 10.0 ** (1 - digits)):.{digits}g}"):
            close = math.isclose(float(shown), value, rel_tol=0.02)
            if close and info.first <= float(shown) <= info.last:
                return shown
    return repr(value)


def _name_problem(info: Field, value: str, place: str) -> Problem | None:
    registry = vocabulary(info.name)
    if registry is None or value in registry:
        return None
    return unknown_name(place, value, f"unknown {registry.kind}", registry.names())
