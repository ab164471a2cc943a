"""Run specs for people: the fields as a Markdown table, a run as the fields that are its own."""

from __future__ import annotations

from zoo.fields import Field
from zoo.spec.catalogue import catalogue
from zoo.spec.run import RunSpec

__all__ = ["field_table", "own_fields"]

_KINDS = {"int": "integer", "float": "number", "str": "name", "bool": "boolean"}


def field_table() -> str:
    """Return a Markdown table with a row for each run-spec field: type, range, default, meaning."""
    found = catalogue()
    rows = ["| field | type | allowed | default | meaning |", "|---|---|---|---|---|"]
    for info in found.fields.values():
        shown = [_shown(value) for value in found.defaults_of(info.name)]
        cells = (f"`{info.name}`", _KINDS[info.kind], _allowed(info), ", ".join(shown))
        rows.append(f"| {' | '.join(cells)} | {info.doc} |")
    return "\n".join(rows) + "\n"


def own_fields(run: RunSpec) -> dict[str, object]:
    """Return the fields that ``RunSpec()`` would not fill in: ``RunSpec(**these) == run``."""
    values = {name: value for name, value in run.to_dict().items() if value is not None}
    found = catalogue()
    entries = {name: value for name, value in values.items() if name in found.owners}
    choice = found.choose(entries)
    filled = dict(zip(choice.names, choice.start, strict=True))
    filled |= {name: run.seed for name, info in found.fields.items() if info.follows == "seed"}
    if run.steps is None:
        filled["epochs"] = 20.0
    return {name: value for name, value in values.items() if value != filled.get(name)}


def _allowed(info: Field) -> str:
    parts = [info.bounds()] if info.bounds() else []
    if info.kind == "bool":
        parts.append("true, false")
    if info.optional:
        parts.append('`"none"`')
    return " or ".join(parts)


def _shown(default: object) -> str:
    return "" if default is None else f"`{default}`"
