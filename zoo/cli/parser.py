"""The arguments of every verb; imports nothing heavy, so that ``zoo --help`` is quick."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

from zoo import __version__
from zoo.cli import bench, clustering, dataset, diets, doctoring, faults, labelling, landscape, page

__all__ = ["build_parser"]

_DESCRIPTION = """\
phasezoo: train a zoo of neural networks from one sweep file, and query it as a dataset.

A sweep file (TOML) names axes; every combination is a model. `zoo run` trains them stacked, many
at a time, and records each one's whole trajectory in one Zarr store.
"""

_EXAMPLES = """\
examples:
  zoo plan sweeps/quickstart.toml
  zoo run sweeps/quickstart.toml --out datasets_out/quickstart.zarr
  zoo status datasets_out/quickstart.zarr --watch
  zoo query datasets_out/quickstart.zarr "width >= 64 and norm == 'layer' and epoch == 20" \\
      --columns run_id,width,test_accuracy --sort=-test_accuracy --limit 10
  zoo report datasets_out/quickstart.zarr --by width,norm --plot quickstart.png

exit codes: 0 as asked, 1 an error, 2 incomplete or problems found.
ZOO_DEBUG=1 shows the traceback of an error.
"""

_QUERY_EXAMPLES = """\
A row is a recorded checkpoint. The predicate is Python comparisons over the columns, with
and, or, not, in; a negative epoch or step counts from each run's end (-1: its last checkpoint).

examples:
  zoo query z.zarr "epoch == -1" --sort=-test_accuracy --limit 5
  zoo query z.zarr "norm in ['batch', 'layer'] and 0.5 < test_accuracy < 0.9" --csv > rows.csv
  zoo query z.zarr "status == 'diverged'" --columns run_id,lr,diverged_step --json
"""

_RUN_EXAMPLES = """\
Safe to interrupt (Ctrl-C, kill, power cut) and to repeat: the same command again goes on where the
last checkpoint is, retries tasks that failed, and does nothing where all is done. A sweep with more
runs extends the store. Two of these at the same time on one store share the work.

examples:
  zoo run sweeps/quickstart.toml --out datasets_out/quickstart.zarr
  zoo run sweeps/quickstart.toml --out datasets_out/quickstart.zarr --dry-run
  zoo run datasets_out/quickstart.zarr --workers 4        # finish a store
"""

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


def build_parser() -> _Parser:
    """Return the parser of the command ``zoo``; each verb is in ``args.verb``."""
    parser = _Parser(
        prog="zoo",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"phasezoo {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_making(verbs)
    _add_reading(verbs)
    _add_landscape(verbs)
    _add_labelling(verbs)
    _add_diets(verbs)
    _add_dataset(verbs)
    _add_checking(verbs)
    for room in (clustering, faults, doctoring):
        room.add_verbs(verbs, _verb, _json)
    _add_about(verbs)
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


def _store(parser: _Parser) -> None:
    parser.add_argument("store", metavar="STORE", help="a zoo (STORE.zarr)")


def _workers(parser: _Parser) -> None:
    parser.add_argument(
        "--workers", "-j", type=_count, metavar="N",
        help="processes of one thread each (default: what the sweep says, or one a core; "
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
        verbs, "plan", "zoo.cli.making:plan",
        "show what a sweep means: runs, cohorts, tasks, bytes, time; trains nothing",
    )  # fmt: skip
    plan.add_argument("sweep", metavar="SWEEP", help="a sweep file (.toml)")
    plan.add_argument("--out", metavar="STORE", help="a store that is there: show what it lacks")
    plan.add_argument(
        "--calibrate", type=_seconds, default=8.0, metavar="S",
        help="measure for about so many seconds to estimate the time (default 8; 0 = guess)",
    )  # fmt: skip
    _workers(plan)
    _json(plan)

    run = _verb(
        verbs, "run", "zoo.cli.making:run", "train a sweep into a store, or go on with it",
        _RUN_EXAMPLES,
    )  # fmt: skip
    run.add_argument("sweep", metavar="SWEEP", help="a sweep file (.toml), or a store to finish")
    run.add_argument("--out", metavar="STORE", help="the store; made if it is not there")
    _workers(run)
    run.add_argument("--limit", type=_count, metavar="N", help="end after N tasks")
    run.add_argument("--dry-run", action="store_true", help="say what would be done, and end")
    run.add_argument("--quiet", "-q", action="store_true", help="no progress")
    _json(run)

    sweep = _verb(verbs, "sweep", "zoo.cli.making:check", "check sweep files without running them")
    actions = sweep.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = _verb(
        actions, "check", "zoo.cli.making:check", "read sweep files and say all that is wrong"
    )
    check.add_argument("sweeps", nargs="+", metavar="SWEEP", help="sweep files (.toml)")
    _json(check)


def _add_reading(verbs: Any) -> None:
    status = _verb(
        verbs, "status", "zoo.cli.checking:status",
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
        verbs, "query", "zoo.cli.reading:query", "print the checkpoints that meet a predicate",
        _QUERY_EXAMPLES,
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
    info = _verb(verbs, "info", "zoo.cli.reading:info", "show what a store holds")
    _store(info)
    info.add_argument("--columns", action="store_true", help="list every column and its meaning")
    info.add_argument("--layout", action="store_true", help="list the parameters of each cohort")
    _json(info)

    report = _verb(
        verbs, "report", "zoo.cli.reading:report",
        "print a table of means by axis (each run's last checkpoint), and draw a picture",
    )  # fmt: skip
    _store(report)
    report.add_argument(
        "--by", type=_names, metavar="A,B", help="columns to group by (default: what varies)"
    )
    report.add_argument(
        "--value", default="test_accuracy", metavar="COLUMN", help="default: test_accuracy"
    )
    report.add_argument("--where", metavar="PREDICATE", help="only these checkpoints")
    report.add_argument("--plot", metavar="FILE", help="also draw a picture (.png, .pdf, .svg)")
    page.add_arguments(report)
    _json(report)

    plot = _verb(verbs, "plot", "zoo.cli.reading:plot", "draw the accuracy picture of a store")
    _store(plot)
    plot.add_argument("file", metavar="FILE", help=".png, .pdf or .svg")
    plot.add_argument("--value", default="test_accuracy", metavar="METRIC")
    plot.add_argument("--load", metavar="COLUMN", help="x axis (default: the sweep's load axis)")
    plot.add_argument("--temperature", metavar="COLUMN", help="y axis, the same way")
    plot.add_argument("--panel", metavar="COLUMN", help="one map for each value of this column")


def _add_landscape(verbs: Any) -> None:
    measure = _verb(
        verbs, "landscape", "zoo.cli.landscape:landscape",
        "measure the loss landscape: curvature, connectivity, similarity and more",
        landscape.EXAMPLES,
    )  # fmt: skip
    _store(measure)
    landscape.add_arguments(measure)
    measure.add_argument(
        "--workers", "-j", type=_count, metavar="N",
        help="processes of one thread each (default: one a core; 0 = none)",
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
    _json(score)

    view = _verb(
        verbs, "diets", "zoo.cli.diets:diets",
        "show what was scored, how far scores agree, and how accurate the diets are",
        diets.DIETS_EXAMPLES,
    )  # fmt: skip
    _store(view)
    diets.add_view_arguments(view)
    _json(view)


def _add_labelling(verbs: Any) -> None:
    label = _verb(
        verbs, "label", "zoo.cli.labelling:label",
        "give every cell its phase, by a rule with explicit thresholds", labelling.LABEL_EXAMPLES,
    )  # fmt: skip
    labelling.add_arguments(label)


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
        verbs, "verify", "zoo.cli.checking:verify",
        "read every byte of a store and hold it against its checksums",
    )  # fmt: skip
    _store(verify)
    verify.add_argument("--hash", action="store_true", help="also print the hash of all content")
    _json(verify)

    repair = _verb(
        verbs, "repair", "zoo.cli.checking:repair",
        "take back damaged checkpoints, so that `zoo run STORE` trains them again",
    )  # fmt: skip
    _store(repair)
    repair.add_argument("--dry-run", action="store_true", help="say what is damaged, and end")
    _json(repair)

    reproduce = _verb(
        verbs, "reproduce", "zoo.cli.checking:reproduce",
        "train one model again and compare every bit with the store",
    )  # fmt: skip
    _store(reproduce)
    reproduce.add_argument("run_id", metavar="RUN_ID", help="a run id, or its beginning")
    _json(reproduce)


def _add_about(verbs: Any) -> None:
    data = _verb(verbs, "data", "zoo.cli.about:data", "list the data sets, and what is missing")
    _json(data)
    version = _verb(verbs, "version", "zoo.cli.about:version", "show versions and this machine")
    _json(version)
