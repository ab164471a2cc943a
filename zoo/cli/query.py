"""``zoo query`` and ``zoo info``: what a store holds."""

from __future__ import annotations

import argparse
import csv
import sys
from typing import TYPE_CHECKING, Any

from zoo.cli.show import plural, print_json

if TYPE_CHECKING:
    from zoo.dataset import View

__all__ = ["info", "query"]

#: Rows that a table shows where nothing is said.
_SHOWN = 20


def query(args: argparse.Namespace) -> int:
    """Print the checkpoints that meet a predicate."""
    import zoo

    opened = zoo.open(args.store)
    view = opened.query(args.predicate)
    for name in reversed(args.sort or []):
        view = view.sort(name.removeprefix("-"), descending=name.startswith("-"))
    total = len(view)
    always = dict.fromkeys(["epoch", "train_loss", "test_loss", opened.headline(), "status"])
    columns = args.columns or ["run_id", *opened.varying, *always]
    if args.count:
        print_json({"rows": total}) if args.json else print(total)
        return 0
    table = not (args.csv or args.json)
    limit = args.limit if args.limit is not None else _SHOWN if table else 0
    shown = view[:limit] if limit else view
    if args.csv:
        _write_csv(shown, columns)
    elif args.json:
        from zoo.report import json_rows

        print_json(json_rows(shown, columns))
    else:
        _print_rows(view, columns, len(shown))
    return 0


def _write_csv(view: View, columns: list[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    values = [view.column(name).tolist() for name in columns]
    for row in zip(*values, strict=True):
        writer.writerow(["" if v is None or v != v else v for v in row])


def _print_rows(view: View, columns: list[str], shown: int) -> None:
    from zoo.dataset.summary import known_values
    from zoo.report import format_table

    if not len(view):
        view.table(columns)  # an unknown column is an error also where there is no row
        print("no checkpoints")
        if known := known_values(view):
            print(known)
        return
    print(format_table(view, columns, limit=shown))
    if shown == len(view):
        print(plural(len(view), "row"))
    else:
        print("(--limit 0 shows all)")


def info(args: argparse.Namespace) -> int:
    """Show what a store holds."""
    import zoo
    from zoo.report import format_table
    from zoo.store import read_provenance

    opened = zoo.open(args.store)
    columns = [
        {"column": c.name, "per": c.per, "meaning": c.doc} for c in opened.column_info.values()
    ]
    layouts = {c.id: _segments(c.layout) for c in opened.plan.cohorts}
    if args.json:
        facts = {**opened.info(), "provenance": read_provenance(args.store)}
        if args.columns:
            facts["columns"] = columns
        if args.layout:
            facts["layouts"] = layouts
        print_json(facts)
        return 0
    print(opened.describe())
    if args.columns:
        print()
        print(format_table(columns))
    if args.layout:
        for name, segments in layouts.items():
            print(f"\n{name}")
            print(format_table(segments))
    return 0


def _segments(layout: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": s.name,
            "shape": " x ".join(map(str, s.shape)) or "1",
            "offset": s.offset,
            "role": s.role,
        }
        for s in layout.segments
    ]
