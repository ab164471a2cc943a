"""``zoo list``: what a sweep, a query or a verb can name, from the registries."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.cli.show import print_json
from zoo.errors import SpecError, unknown_name

if TYPE_CHECKING:
    from zoo.fields import Field
    from zoo.registry import Registry

__all__ = ["names"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of names.

    Args:
        doc: one line.
        rows: returns a mapping per name: ``name``, ``what`` and whatever else the kind has.
    """

    doc: str
    rows: Callable[[], list[dict[str, Any]]]


def names(args: argparse.Namespace) -> int:
    """List the kinds, or the names of one kind."""
    kinds = _kinds()
    rows: list[dict[str, Any]]
    if args.kind is None:
        rows = [{"kind": name, "names": len(k.rows()), "what": k.doc} for name, k in kinds.items()]
    else:
        if args.kind not in kinds:
            others = {f"{name}s": name for name in kinds} | _PLURALS
            raise SpecError([unknown_name("KIND", args.kind, "unknown", kinds, others)], "list")
        rows = kinds[args.kind].rows()
    if args.json:
        print_json(rows)
        return 0
    _print_table([{**row, "fields": _defaults(row)} if "fields" in row else row for row in rows])
    fields = {name: about for row in rows for name, about in row.get("fields", {}).items()}
    if fields:
        print("\nFields that they read, each with its own default:")
        hidden = ("default",)
        _print_table([{"field": name, **about} for name, about in fields.items()], hidden)
    if args.kind is None:
        print("\n`zoo list KIND` lists the names of one kind.")
    missing = [row for row in rows if row.get("how")]
    if missing:
        print("\nTo get those that are not there:")
        for row in missing:
            print(f"  {row['name']}: {row['how']}")
    return 0


#: Plurals that are more than an s.
_PLURALS = {
    "schedules": "schedule", "data_sets": "data", "datasets": "data", "columns": "metric",
    "dataset": "data", "losses": "metric",
}  # fmt: skip


def _kinds() -> dict[str, _Kind]:
    """Return every kind: the fields, each vocabulary of a field, and what verbs name."""
    from zoo.dataset.exports import EXPORTS
    from zoo.dataset.torch_dataset import FORMS
    from zoo.phases.rules import RULES
    from zoo.phases.thresholds import SETTINGS
    from zoo.registry import vocabulary
    from zoo.spec import field_infos
    from zoo.spec.points import POINT_METHODS

    kinds = {"field": _Kind("fields of a run: what a sweep sets and sweeps over", _fields)}
    for name, info in field_infos().items():
        registry = vocabulary(name) if info.kind == "str" else None
        if registry is not None:
            rows = _data if name == "data" else _entries_of(registry)
            kinds[name] = _Kind(info.doc, rows)
    return kinds | {
        "method": _Kind("sampling methods of [sample]", _entries_of(POINT_METHODS)),
        "metric": _Kind("landscape metrics of `zoo landscape --metrics`", _metrics),
        "setting": _Kind("sets of thresholds of `zoo label --setting`", _entries_of(SETTINGS)),
        "rule": _Kind("rules of `zoo label --rule`", _entries_of(RULES)),
        "format": _Kind("formats of `zoo export --format`", _entries_of(EXPORTS)),
        "form": _Kind("forms of a torch data set", _entries_of(FORMS)),
    }


def _about_field(field: Field) -> dict[str, Any]:
    return {
        "type": field.kind,
        "allowed": field.bounds() or None,
        "default": field.default,
        "per": field.per,
        "what": field.doc,
    }


def _fields() -> list[dict[str, Any]]:
    from zoo.spec import field_infos
    from zoo.spec.effects import readers

    return [
        {"name": info.name, **_about_field(info), "read_by": readers(info.name) or None}
        for info in field_infos().values()
    ]


def _data() -> list[dict[str, Any]]:
    """Return the data sets as they are on this machine, with what is known of each."""
    from zoo.cli.machine import data_rows
    from zoo.data import DATASETS

    entries = {row["name"]: row for row in _entries_of(DATASETS)()}
    found = []
    for row in data_rows():
        entry = entries[row["name"]]
        more = {"citation": entry["source"], "fields": entry["fields"]}
        found.append({"name": row["name"], "what": entry["what"], **row, **more})
    return found


def _metrics() -> list[dict[str, Any]]:
    from zoo.landscape import CELL_METRICS, MODEL_METRICS
    from zoo.stages.landscape_settings import metric_options

    options = metric_options()
    rows = []
    for of, registry in (("models", MODEL_METRICS), ("cells", CELL_METRICS)):
        for name in registry:
            entry: Any = registry[name]
            about = registry.about(name)
            rows.append(
                {
                    "name": name,
                    "what": about.doc,
                    "source": about.source,
                    "of": of,
                    "default": bool(getattr(entry, "default", True)),
                    "options": dict(options[name]),
                    "columns": [column.name for column in entry.columns],
                }
            )
    return rows


def _entries_of(registry: Registry[Any]) -> Callable[[], list[dict[str, Any]]]:
    def rows() -> list[dict[str, Any]]:
        found = []
        for name in registry:
            about = registry.about(name)
            fields = {field.name: _about_field(field) for field in about.fields.values()}
            found.append(
                {"name": name, "what": about.doc, "source": about.source, "fields": fields}
            )
        return found

    return rows


def _print_table(rows: list[dict[str, Any]], hidden: Sequence[str] = ("how",)) -> None:
    """Print a table without the columns that are empty or hidden."""
    from zoo.report import format_table

    text = [{name: _text(value) for name, value in row.items()} for row in rows]
    shown = [
        name
        for name in rows[0]
        if name not in hidden and any(row[name] is not None and row[name] != "" for row in text)
    ]
    print(format_table(text, shown, limit=len(rows)))


def _defaults(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that an entry reads with its defaults."""
    return {name: about["default"] for name, about in row["fields"].items()}


def _text(value: Any) -> Any:
    """Return a value as a table shows it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else value
