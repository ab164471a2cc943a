"""``zoo label``: the phase of each cell, of a store or of a CSV file."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from typing import TYPE_CHECKING, Any

from zoo.cli.show import plural, print_json

if TYPE_CHECKING:
    from zoo.phases import CsvCells, Labels, Thresholds

__all__ = ["LABEL_EXAMPLES", "add_arguments", "label"]

LABEL_EXAMPLES = """\
With STORE: labels every cell from what `zoo landscape` measured, and publishes the columns phase,
phase_confidence, phase_margin, phase_boundary (and phase_v<N>, which stays), each cell's phase for
all of its models. Weights are never touched; the same again does nothing new.

With --cells: labels the rows of a CSV with the columns load, temperature and any of train_loss
(nats), train_error, lambda_max, trace, mode_connectivity, cka; also <name>_se, classes. The
defaults are the published setting; units are found out where they are not said, and the output
says which were taken, and why. docs/phases.md has the rule.

examples:
  zoo label z.zarr
  zoo label z.zarr --threshold cka=0.88 --threshold connected=2 --hard train_loss --dry-run
  zoo query z.zarr "phase == 'IV-A' and epoch == -1"
  zoo label --cells grid.csv --csv > labels.csv
  zoo label --cells grid.csv --error-unit percent --cka-outputs softmax --classes 10
"""

#: Inputs that are shown in the table of a file.
_SHOWN = ("load", "temperature", "phase", "candidates", "confidence", "margin", "boundary")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``zoo label``; imports nothing heavy."""
    parser.add_argument("store", metavar="STORE", nargs="?", help="a zoo (STORE.zarr)")
    parser.add_argument("--cells", metavar="FILE", help="label the rows of this CSV instead")
    parser.add_argument(
        "--setting", metavar="NAME",
        help="thresholds to start from: zoo (default with STORE) or published (with --cells)",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", "-t", action="append", default=[], metavar="NAME=VALUE",
        help="replace one: train_loss, train_error, lambda_max, trace, optimised, connected, cka, "
        "collapse, bad_share, boundary; VALUE a number, 'off', or for cka 'data' (Otsu's cut)",
    )  # fmt: skip
    parser.add_argument(
        "--hard", metavar="A,B",
        help="what says that training is unfinished, first the one that counts: train_loss, "
        "train_error, lambda_max, trace",
    )  # fmt: skip
    parser.add_argument(
        "--draws", type=int, default=1000, metavar="N", help="of the confidence (default 1000)"
    )
    units = parser.add_argument_group("with --cells")
    for option, column, choices in _UNIT_OPTIONS:
        units.add_argument(
            option, choices=("auto", *choices), default="auto", help=f"of {column} (default auto)"
        )
    units.add_argument("--classes", type=int, metavar="C", help="classes, to see collapsed cells")
    units.add_argument("--csv", action="store_true", help="print CSV: the inputs and the labels")
    parser.add_argument(
        "--rule", default="taxonomy", metavar="NAME",
        help="with STORE: the rule (default taxonomy; `zoo list rule` names all)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="show the labels, write nothing")
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


_UNIT_OPTIONS = (
    ("--error-unit", "train_error", ("percent", "fraction")),
    ("--connectivity-unit", "mode_connectivity", ("percent", "fraction")),
    ("--lambda-scale", "lambda_max", ("plain", "log")),
    ("--trace-scale", "trace", ("plain", "log")),
    ("--cka-outputs", "cka", ("softmax", "logits")),
)


def label(args: argparse.Namespace) -> int:
    """Label a store or a CSV file."""
    from zoo.errors import Problem, SpecError

    if (args.store is None) == (args.cells is None):
        given = "neither is given" if args.store is None else "both are given"
        raise SpecError([Problem("STORE, --cells", None, given, "one of the two")], "zoo label")
    if args.draws < 1:
        raise SpecError([Problem("--draws", args.draws, "too few", ">= 1")], "zoo label")
    return _label_store(args) if args.cells is None else _label_file(args)


def _limits(args: argparse.Namespace, setting: str, *, logits: bool = False) -> Thresholds:
    """Return the thresholds that the command line asks for."""
    from zoo.errors import Problem, SpecError
    from zoo.phases import cka_of_logits, thresholds

    values: dict[str, float | None] = {}
    problems = []
    for text in args.threshold:
        name, mark, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if value in ("off", "none") or (name, value) in (("cka", "data"), ("cka", "otsu")):
            values[name] = None
            continue
        try:
            values[name] = float(value)
        except ValueError:
            message = "no value" if not mark else "not a number"
            problems.append(Problem(f"--threshold {name}", value or None, message, "NAME=NUMBER"))
    if problems:
        raise SpecError(problems, "zoo label")
    hard = tuple(n.strip().replace("-", "_") for n in (args.hard or "").split(",") if n.strip())
    base = thresholds(args.setting or setting)
    if logits and base.setting == "published":
        base = cka_of_logits(base)
    return base.but(values, hard) if values or hard else base


def _check_rule(args: argparse.Namespace) -> None:
    """Refuse an unknown rule, and thresholds for one that has none.

    Raises:
        SpecError: that is so.
    """
    from zoo.errors import Problem, SpecError, unknown_name
    from zoo.phases import RULES, TAXONOMY
    from zoo.registry import vocabularies

    vocabularies()  # those of installed packages
    if args.rule not in RULES:
        problem = unknown_name("--rule", args.rule, "unknown phase rule", RULES.names())
        raise SpecError([problem], "zoo label")
    if args.rule != TAXONOMY and (args.threshold or args.hard or args.setting):
        message = f"the rule {args.rule!r} has no thresholds"
        fix = "leave out --threshold, --hard and --setting"
        raise SpecError([Problem("--rule", args.rule, message, fix=fix)], "zoo label")


def _label_store(args: argparse.Namespace) -> int:
    from zoo.phases import label_store
    from zoo.phases.publish import labels_of_store

    limits = _limits(args, "zoo")
    _check_rule(args)
    if args.dry_run:
        source, labels = labels_of_store(args.store, limits, draws=args.draws, rule=args.rule)
        table = None
    else:
        published = label_store(args.store, limits, draws=args.draws, rule=args.rule)
        source, labels, table = published.source, published.labels, published.table
    if args.json:
        facts = {"store": args.store, "table": table, "axes": dict(source.axes)}
        print_json({**facts, **_facts(labels), "cells": _rows(labels, source.rest.tolist())})
        return 0
    print(f"{args.store}: {plural(len(labels.cells), 'cell')} of {', '.join(source.names)}")
    _print_labels(labels, source.axes, source.rest.tolist())
    if table is None:
        print("nothing was written (--dry-run)")
    else:
        state = "new" if published.new else "the same cells and thresholds as before"
        print(f"published as {table} ({state}); the column phase is this version")
    return 0


def _label_file(args: argparse.Namespace) -> int:
    from zoo.phases import label as label_cells
    from zoo.phases import read_cells

    said = {
        column: getattr(args, option.removeprefix("--").replace("-", "_"))
        for option, column, _ in _UNIT_OPTIONS
    }
    units = {column: unit for column, unit in said.items() if unit != "auto"}
    found = read_cells(args.cells, units=units, classes=args.classes)
    cka = found.units.get("cka")
    limits = _limits(args, "published", logits=cka is not None and cka.unit == "logits")
    labels = label_cells(found.cells, limits, draws=args.draws)
    if args.json:
        how = {n: {"unit": c.unit, "why": c.why} for n, c in found.units.items()}
        facts = {"file": args.cells, "units": how, "ignored": list(found.ignored)}
        print_json({**facts, **_facts(labels), "cells": _rows(labels, [""] * len(labels.cells))})
    elif args.csv:
        sys.stdout.write(_as_csv(labels))
        _print_notes(found, labels, sys.stderr)
    else:
        from zoo.report import format_table

        print(format_table(_rows(labels, [""] * len(labels.cells)), _SHOWN))
        _print_labels(labels, {}, [""] * len(labels.cells))
        _print_notes(found, labels, sys.stdout)
    return 0


def _facts(labels: Labels) -> dict[str, Any]:
    return {
        "rule": labels.rule,
        **({"thresholds": labels.limits.to_json()} if labels.rule == "taxonomy" else {}),
        "confidence_from": labels.confidence_from,
        "counts": labels.counts(),
    }


def _rows(labels: Labels, rest: list[str]) -> list[dict[str, Any]]:
    """Return one mapping per cell, JSON-ready."""
    from zoo.phases import INPUTS
    from zoo.report import json_rows

    cells, decision = labels.cells, labels.decision
    columns = {
        "load": cells.load,
        "temperature": cells.temperature,
        "rest": rest,
        "phase": decision.phases,
        "candidates": decision.candidates,
        "confidence": labels.confidence,
        "margin": decision.margin,
        "boundary": [None if near != near else bool(near) for near in decision.boundary.tolist()],
        "hard_by": decision.hard_by,
        "cka_cut": labels.cut.cka,
        **{name: cells.value(name) for name in INPUTS},
    }
    rows = zip(*columns.values(), strict=True)
    return json_rows([dict(zip(columns, row, strict=True)) for row in rows])


def _as_csv(labels: Labels) -> str:
    rows = _rows(labels, [""] * len(labels.cells))
    names = [name for name in rows[0] if name != "rest"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([["" if row[n] is None else row[n] for n in names] for row in rows])
    return out.getvalue()


def _print_labels(labels: Labels, axes: Any, rest: list[str]) -> None:
    """Print the diagram as text, one for each value of what else varies, and what it rests on."""
    import numpy as np

    from zoo.phases.thresholds import AGREEMENT, PUBLISHED
    from zoo.report.cells import phase_grids

    for title, text in phase_grids(labels, axes, rest):
        print("\n" + (f"{title}\n" if title else "") + text)
    counts = ", ".join(f"{name} {n}" for name, n in labels.counts().items() if n)
    near = labels.decision.boundary
    unknown = int(np.isnan(near).sum())
    told = f"; {unknown} with an unknown margin" if unknown else ""
    print(f"\ncells: {counts}; {int((near == 1).sum())} on a boundary (marked ~){told}")
    if labels.rule != "taxonomy":
        print(f"rule: {labels.rule}; confidence from {labels.confidence_from}")
        return
    limits = labels.limits
    print(f"published grid: {PUBLISHED}")
    agree = ", ".join(f"{percent:g} % by {name!r}" for name, percent in AGREEMENT.items())
    print(f"its cells that get the phase drawn there, by setting: {agree}")
    print(f"thresholds ({limits.setting}; unfinished by {', '.join(limits.active)}):")
    for name, value in limits.numbers().items():
        source = limits.sources.get(name, "")
        shown = "off" if value is None else f"{value:g}"
        if name == "cka" and value is None:
            cuts = dict(zip(labels.cut.source.tolist(), labels.cut.cka.tolist(), strict=True))
            for why, cut in cuts.items():
                print(f"  cka          {cut:<8.4g} {why}")
        elif value is not None or name in limits.hard_tests:
            print(f"  {name:<12} {shown:<8} {source}")
    print(f"confidence from {labels.confidence_from}")


def _print_notes(found: CsvCells, labels: Labels, out: Any) -> None:
    for choice in found.units.values():
        print(f"note: {choice}", file=out)
    if found.ignored:
        print(f"note: columns that nothing reads: {', '.join(found.ignored)}", file=out)
    if labels.limits.setting == "published" and labels.limits.cka is not None:
        text = "thresholds of the published grid; for another task try --threshold cka=data"
        print(f"note: {text}", file=out)
