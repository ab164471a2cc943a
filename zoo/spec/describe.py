"""The run-spec fields as a Markdown table, for the guide to the sweep format."""

from __future__ import annotations

import dataclasses

from zoo.spec.run import FieldInfo, RunSpec, field_infos

__all__ = ["field_table"]

_KINDS = {"int": "integer", "float": "number", "str": "name", "bool": "boolean"}


def field_table() -> str:
    """Return a Markdown table with a row for each run-spec field: type, range, default, meaning."""
    defaults = {item.name: item.default for item in dataclasses.fields(RunSpec)}
    rows = ["| field | type | allowed | default | meaning |", "|---|---|---|---|---|"]
    for info in field_infos().values():
        cells = (f"`{info.name}`", _KINDS[info.kind], _allowed(info), _shown(defaults[info.name]))
        rows.append(f"| {' | '.join(cells)} | {info.doc} |")
    return "\n".join(rows) + "\n"


def _allowed(info: FieldInfo) -> str:
    parts = [info.bounds()] if info.bounds() else []
    if info.kind == "bool":
        parts.append("true, false")
    if info.optional:
        parts.append('`"none"`')
    return " or ".join(parts)


def _shown(default: object) -> str:
    return "" if default is None else f"`{default}`"
