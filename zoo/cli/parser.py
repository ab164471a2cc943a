"""The arguments of every verb; imports nothing heavy, so that ``zoo --help`` is quick."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

from zoo.cli import (
    arguments,
    bench,
    completion,
    dataset,
    diets,
    doctor,
    failures,
    landscape,
    submit,
)
from zoo.cli import label as label_verb
from zoo.cli import report as report_verb
from zoo.cli.data_option import add_data_option
from zoo.cli.help_text import (
    DESCRIPTION,
    EXAMPLES,
    GROUPS,
    PLAN_EXAMPLES,
    QUERY_EXAMPLES,
    RUN_EXAMPLES,
)
from zoo.version import __version__

__all__ = ["build_parser"]

_Parser = argparse.ArgumentParser
_BACKENDS = ("auto", "eager", "compiled", "reference")
_DEVICES = ("cpu", "cuda")


def _lazily(place: str) -> Callable[[argparse.Namespace], int]:
    """Return a verb that imports its module when it is called."""
    module, name = place.split(":")

    def verb(args: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module(module), name)(args)
        return code

    return verb


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        msg = f"{text!r} is not an integer >= 0"
        raise argparse.ArgumentTypeError(msg)
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        msg = f"{text!r} is not a number of seconds >= 0"
        raise argparse.ArgumentTypeError(msg)
    return value


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        msg = "give one or more column names with commas between them"
        raise argparse.ArgumentTypeError(msg)
    return names


def build_parser() -> arguments.RootParser:
    """Return the parser of the command ``zoo``; each verb is in ``args.verb``."""
    parser = arguments.RootParser(
        groups=GROUPS,
        prog="zoo",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"phasezoo {__version__}")
    verbs = parser.verbs
    _add_making(verbs)
    _add_reading(verbs)
    _add_landscape(verbs)
    _add_labelling(verbs)
    _add_diets(verbs)
    _add_dataset(verbs)
    _add_checking(verbs)
    for room in (submit, failures, doctor):
        room.add_verbs(verbs, _verb, _json)
    _add_about(verbs)
    for one in verbs.choices.values():
        one.add_argument(
            "--plugin", metavar="FILE", action="append", default=[],
            help="a Python file with entries of your own: networks, losses, norms, data, metrics "
            "(docs/extend.md); repeatable",
        )  # fmt: skip
    return parser


def _verb(verbs: Any, name: str, place: str, short: str, epilog: str = "") -> _Parser:
    parser: _Parser = verbs.add_parser(
        name,
        help=short,
        description=short[0].upper() + short[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(verb=_lazily(place))
    return parser


def _json(parser: _Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def _yes(parser: _Parser) -> None:
    parser.add_argument(
        "--yes", "-y", action="store_true", help="a sweep of very many runs is meant"
    )


def _store(parser: _Parser) -> None:
    parser.add_argument("store", metavar="STORE", help="a zoo (STORE.zarr)")


def _workers(parser: _Parser) -> None:
    parser.add_argument(
        "--workers", "-j", type=_count, metavar="N",
        help="processes of one thread each (default: what the sweep says, or one per core; "
        "0 = none, train in this process)",
    )  # fmt: skip
    parser.add_argument(
        "--backend", choices=_BACKENDS,
        help="how a step is computed (default: what the sweep says, or auto: compiled where that "
        "pays)",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=_DEVICES,
        help="what trains a new store (default: what the sweep says, or cpu); cuda: one worker a "
        "GPU, and larger groups",
    )  # fmt: skip


def _add_making(verbs: Any) -> None:
    plan = _verb(
        verbs, "plan", "zoo.cli.run:plan",
        "show what a sweep means: runs, cohorts, tasks, bytes, time; trains nothing",
        PLAN_EXAMPLES,
    )  # fmt: skip
    plan.add_argument("sweeps", nargs="+", metavar="SWEEP", help="a sweep file (.toml)")
    plan.add_argument("--out", metavar="STORE", help="an existing store: show what it lacks")
    plan.add_argument(
        "--check", action="store_true",
        help="only say what is wrong with the files; needs no data; exit code 2 if anything is",
    )  # fmt: skip
    plan.add_argument(
        "--calibrate", type=_seconds, default=8.0, metavar="S",
        help="spend about S seconds measuring, to estimate the time (default 8; 0 = guess)",
    )  # fmt: skip
    _workers(plan)
    add_data_option(plan)
    _json(plan)

    run = _verb(
        verbs, "run", "zoo.cli.run:run", "train a sweep into a store, extend it or finish it",
        RUN_EXAMPLES,
    )  # fmt: skip
    run.add_argument("sweep", metavar="SWEEP", help="a sweep file (.toml), or a store to finish")
    run.add_argument("--out", metavar="STORE", help="the store; made if there is none")
    _workers(run)
    run.add_argument("--limit", type=_count, metavar="N", help="end after N tasks")
    run.add_argument("--dry-run", action="store_true", help="say what would be done, and end")
    run.add_argument("--quiet", "-q", action="store_true", help="no progress")
    add_data_option(run)
    _json(run)
    for one in (plan, run):
        _yes(one)

    init = _verb(
        verbs, "init", "zoo.cli.init:init", "write a small, commented sweep file to start from"
    )
    init.add_argument(
        "file", nargs="?", default="sweep.toml", metavar="FILE", help="default: sweep.toml"
    )
    init.add_argument(
        "--from", dest="data", default="digits", metavar="DATA",
        help="the data set that it trains on (default digits; `zoo list data` names all)",
    )  # fmt: skip
    _json(init)


def _add_reading(verbs: Any) -> None:
    status = _verb(
        verbs, "status", "zoo.cli.status:status",
        "show how far a store is, from its files; also while it trains",
    )  # fmt: skip
    _store(status)
    status.add_argument("--watch", action="store_true", help="show it again and again")
    status.add_argument(
        "--every", type=_seconds, default=2.0, metavar="S", help="seconds between (default 2)"
    )
    status.add_argument("--tasks", action="store_true", help="also list every task")
    _json(status)

    query = _verb(
        verbs, "query", "zoo.cli.query:query", "print the checkpoints that meet a predicate",
        QUERY_EXAMPLES,
    )  # fmt: skip
    _store(query)
    query.add_argument("predicate", nargs="?", metavar="PREDICATE", help="default: all of them")
    query.add_argument("--columns", "-c", type=_names, metavar="A,B", help="which columns")
    query.add_argument(
        "--sort", type=_names, metavar="A,B",
        help="order by columns; --sort=-A for descending",
    )  # fmt: skip
    query.add_argument(
        "--limit", "-n", type=_count, metavar="N",
        help="at most N rows (default 20 in a table, otherwise all; 0 = all)",
    )  # fmt: skip
    query.add_argument("--count", action="store_true", help="print the number of rows only")
    query.add_argument("--csv", action="store_true", help="print CSV")
    _json(query)

    _add_summaries(verbs)


def _add_summaries(verbs: Any) -> None:
    info = _verb(verbs, "info", "zoo.cli.query:info", "show what a store holds")
    _store(info)
    info.add_argument("--columns", action="store_true", help="list every column and its meaning")
    info.add_argument("--layout", action="store_true", help="list the parameters of each cohort")
    _json(info)

    report = _verb(
        verbs, "report", "zoo.cli.report:report",
        "print a table of means by axis (each run's last checkpoint), and draw a picture",
    )  # fmt: skip
    _store(report)
    report.add_argument(
        "--by", type=_names, metavar="A,B", help="columns to group by (default: what varies)"
    )
    report.add_argument(
        "--value",
        metavar="COLUMN",
        help="default: test_accuracy, or test_r2 of floats",
    )
    report.add_argument("--where", metavar="PREDICATE", help="only these checkpoints")
    report_verb.add_arguments(report)
    add_data_option(report)
    _json(report)


def _add_landscape(verbs: Any) -> None:
    measure = _verb(
        verbs, "landscape", "zoo.cli.landscape:landscape",
        "measure the loss landscape: curvature, connectivity, similarity and more",
        landscape.EXAMPLES,
    )  # fmt: skip
    measure.add_argument("store", nargs="?", metavar="STORE", help="a zoo (STORE.zarr)")
    landscape.add_arguments(measure)
    add_data_option(measure)
    measure.add_argument(
        "--workers", "-j", type=_count, metavar="N",
        help="processes of one thread each (default: one per core; 0 = none)",
    )  # fmt: skip
    _json(measure)


def _add_diets(verbs: Any) -> None:
    score = _verb(
        verbs, "score", "zoo.cli.diets:score",
        "score the training examples that data diets choose from, before training",
        diets.SCORE_EXAMPLES,
    )  # fmt: skip
    _store(score)
    diets.add_score_arguments(score)
    add_data_option(score)
    _json(score)

    view = _verb(
        verbs, "diets", "zoo.cli.diets:diets",
        "show what was scored, how far scores agree, and how accurate the diets are",
        diets.DIETS_EXAMPLES,
    )  # fmt: skip
    _store(view)
    diets.add_view_arguments(view)
    add_data_option(view)
    _json(view)


def _add_labelling(verbs: Any) -> None:
    label = _verb(
        verbs, "label", "zoo.cli.label:label",
        "give every cell its phase, by a rule with explicit thresholds", label_verb.LABEL_EXAMPLES,
    )  # fmt: skip
    label_verb.add_arguments(label)


def _add_dataset(verbs: Any) -> None:
    dataset.add_verbs(verbs, _verb, _json)
    measure = _verb(
        verbs, "bench", "zoo.cli.bench:bench",
        "predict accuracy, hyper-parameters and phase from weights, beside the controls",
        bench.EXAMPLES,
    )  # fmt: skip
    _store(measure)
    bench.add_arguments(measure, _names)
    _json(measure)


def _add_checking(verbs: Any) -> None:
    verify = _verb(
        verbs, "verify", "zoo.cli.verify:verify",
        "read every byte of a store and check it against its checksums",
    )  # fmt: skip
    _store(verify)
    verify.add_argument("--hash", action="store_true", help="also print the hash of all content")
    _json(verify)

    repair = _verb(
        verbs, "repair", "zoo.cli.verify:repair",
        "write damaged metadata and columns anew, and take back damaged checkpoints",
    )  # fmt: skip
    _store(repair)
    repair.add_argument("--dry-run", action="store_true", help="say what is damaged, and end")
    _json(repair)

    reproduce = _verb(
        verbs, "reproduce", "zoo.cli.verify:reproduce",
        "train one model again and compare every bit with the store",
    )  # fmt: skip
    _store(reproduce)
    reproduce.add_argument("run_id", metavar="RUN_ID", help="a run id, or its beginning")
    add_data_option(reproduce)
    _json(reproduce)


def _add_about(verbs: Any) -> None:
    names = _verb(
        verbs, "list", "zoo.cli.list:names",
        "list what a sweep or a query can name: fields, optimizers, norms, data sets, metrics, ...",
    )  # fmt: skip
    names.add_argument("kind", nargs="?", metavar="KIND", help="of what (default: the kinds)")
    _json(names)
    version = _verb(verbs, "version", "zoo.cli.machine:version", "show versions and this machine")
    _json(version)
    shell = _verb(
        verbs, "completion", "zoo.cli.completion:completion",
        "print a script with which a shell completes verbs and options", completion.EXAMPLES,
    )  # fmt: skip
    shell.add_argument("shell", choices=completion.SHELLS, help="which shell")
