"""The rows of a planned cohort, in JSON: id, origin and spec of each.

Reading checks what a value is and not whether today's rules would allow it: a bound or a name that
is ruled out later locks no store.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.fields import Field
from zoo.spec.origin import Origin, TrainedOrigin, is_run_id, origin_from_json, origin_to_json
from zoo.spec.run import RunSpec, field_infos

__all__ = ["PlannedRow", "row_to_json", "rows_from_json"]

_MOST = 2**63


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """One row.

    Args:
        run_id: its id.
        origin: where it comes from.
        spec: its fields; of a row that was not trained here, None is what nobody knows.
    """

    run_id: str
    origin: Origin
    spec: RunSpec


def row_to_json(row: PlannedRow, fields: Iterable[str]) -> dict[str, Any]:
    """Return a row, JSON-ready, with these fields of its spec."""
    return {
        "id": row.run_id,
        "origin": origin_to_json(row.origin),
        "spec": {name: getattr(row.spec, name) for name in fields},
    }


def rows_from_json(raw: Any, place: str) -> tuple[PlannedRow, ...]:
    """Return what :func:`row_to_json` made of each row.

    Args:
        raw: the rows.
        place: what they are called in messages.

    Raises:
        ValueError: they are not that; a clause that names the place.
    """
    if not isinstance(raw, list) or not raw:
        msg = f"{place} is no list of rows"
        raise ValueError(msg)
    infos = field_infos()
    found = tuple(_row(row, f"{place}[{number}]", infos) for number, row in enumerate(raw))
    if len({row.run_id for row in found}) < len(found):
        msg = f"{place} has a run twice"
        raise ValueError(msg)
    return found


def _row(raw: Any, place: str, infos: Mapping[str, Field]) -> PlannedRow:
    spec = raw.get("spec") if isinstance(raw, Mapping) else None
    if not isinstance(spec, Mapping) or not is_run_id(raw.get("id")):
        msg = f"{place} is no row of a run id, an origin and a spec"
        raise ValueError(msg)
    try:
        origin = origin_from_json(raw.get("origin"))
    except ValueError as error:
        msg = f"{place} {error}"
        raise ValueError(msg) from None
    trained = isinstance(origin, TrainedOrigin)
    for name, value in spec.items():
        info = infos.get(name)
        if value is None:
            good = info is None or info.optional or not trained
        else:
            good = _is_kind(value, info.kind if info is not None else "")
        if not (good and name.isidentifier()):
            msg = f"{place}.spec.{name:.40} is not what that field holds"
            raise ValueError(msg)
    return PlannedRow(raw["id"], origin, RunSpec.stored(spec))


def _is_kind(value: Any, kind: str) -> bool:
    """Return whether a value is of the kind of a field; "" is a field that nobody declares now."""
    if type(value) is str:
        return kind in ("str", "")
    if type(value) is bool:
        return kind in ("bool", "")
    if type(value) is int:
        return kind in ("int", "float", "") and -_MOST <= value < _MOST
    return type(value) is float and kind in ("float", "") and math.isfinite(value)
