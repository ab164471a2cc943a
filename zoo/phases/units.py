"""Units of someone else's table: percent or fractions, plain or logarithms, softmax or logits.

What a column can prove is used; what is left open is settled by a documented default, and the
choice is always told together with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.errors import Problem, SpecError

__all__ = ["UNITS", "UnitChoice", "settle_units"]

_F64 = NDArray[np.float64]

#: Column → what its unit may be said to be.
UNITS: Mapping[str, tuple[str, ...]] = {
    "train_error": ("auto", "percent", "fraction"),
    "mode_connectivity": ("auto", "percent", "fraction"),
    "lambda_max": ("auto", "plain", "log"),
    "trace": ("auto", "plain", "log"),
    "cka": ("auto", "softmax", "logits"),
}

#: Rounding in a table may break a strict bound by so much.
_SLACK = 1.02
#: e³⁰: no curvature is that large, so a larger number is no logarithm.
_LARGEST_LOG = 30.0
#: The published similarities of softmax outputs end at 0.80; those of logits are cut at 0.82.
_SOFTMAX_TOP = 0.82
_TOP = 90


@dataclass(frozen=True, slots=True)
class UnitChoice:
    """How a column is read.

    Args:
        column: its name.
        unit: one of :data:`UNITS`.
        why: the reason, as a clause.
    """

    column: str
    unit: str
    why: str

    def __str__(self) -> str:
        return f"{self.column}: read as {self.unit}, {self.why}"


def settle_units(values: Mapping[str, _F64], said: Mapping[str, str]) -> dict[str, UnitChoice]:
    """Return the unit of each column that has one to settle.

    Args:
        values: column → ``[N]``, NaN where missing.
        said: column → unit; ``"auto"`` or absent = find out.

    Raises:
        SpecError: an unknown column or unit.
    """
    problems = [
        Problem(f"unit of {name}", unit, "unknown", ", ".join(UNITS.get(name, UNITS)))
        for name, unit in said.items()
        if unit not in UNITS.get(name, ())
    ]
    if problems:
        raise SpecError(problems, "units")
    found: dict[str, UnitChoice] = {}
    for name in UNITS:
        column = values.get(name)
        if column is None or not np.isfinite(column).any():
            continue
        unit = said.get(name, "auto")
        if unit != "auto":
            found[name] = UnitChoice(name, unit, "as you say")
        elif name == "train_error":
            found[name] = _error_unit(column, values.get("train_loss"))
        elif name == "mode_connectivity":
            found[name] = _connectivity_unit(column, found.get("train_error"))
        elif name == "cka":
            found[name] = _cka_kind(column)
        else:
            found[name] = _scale(name, column)
    return found


def _error_unit(error: _F64, loss: _F64 | None) -> UnitChoice:
    """Use that an example that is classified wrongly costs ln 2 at least: error * ln 2 <= loss."""
    name, top = "train_error", float(np.nanmax(error))
    if top > 1.0:
        return UnitChoice(name, "percent", f"since it reaches {top:.4g}, and a fraction ends at 1")
    if loss is not None:
        broken = int((error * math.log(2) > loss * _SLACK + 1e-6).sum())
        if broken:
            why = f"since as fractions {broken} cells had less loss than that takes (ln 2 * error)"
            return UnitChoice(name, "percent", why)
    if top == 0.0:
        return UnitChoice(name, "percent", "though every value is 0, so that it does not matter")
    why = f"since it ends at {top:.4g}, and no cell has less loss than that takes (ln 2 * error)"
    return UnitChoice(name, "fraction", why)


def _connectivity_unit(mc: _F64, error: UnitChoice | None) -> UnitChoice:
    name, top = "mode_connectivity", float(np.nanmax(np.abs(mc)))
    if top > 1.0:
        return UnitChoice(name, "percent", f"since it reaches {top:.4g} either way")
    ends = f"since it ends at {top:.4g} either way, which decides nothing, and"
    if error is not None:
        return UnitChoice(name, error.unit, f"{ends} the training error is read so")
    return UnitChoice(name, "percent", f"{ends} percent is the published unit")


def _scale(name: str, column: _F64) -> UnitChoice:
    low, top = float(np.nanmin(column)), float(np.nanmax(column))
    if top > _LARGEST_LOG:
        return UnitChoice(name, "plain", f"since it reaches {top:.4g}")
    if low <= 0.0:
        why = f"since it falls to {low:.4g}, and the mean curvature of a trained cell is above 0"
        return UnitChoice(name, "log", why)
    why = f"since nothing between {low:.4g} and {top:.4g} says otherwise"
    return UnitChoice(name, "plain", why)


def _cka_kind(cka: _F64) -> UnitChoice:
    top = float(np.nanpercentile(cka, _TOP))
    if top > _SOFTMAX_TOP:
        why = (
            f"since a tenth of the cells is above {top:.3f}, and the published similarities of"
            " softmax outputs end at 0.80"
        )
        return UnitChoice("cka", "logits", why)
    why = f"since nine tenths of the cells are below {top:.3f}, as in the published grid"
    return UnitChoice("cka", "softmax", why)
