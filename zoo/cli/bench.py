"""``zoo bench``: what can be read from a store's weights, beside the controls."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from zoo.cli.show import plural, print_json

if TYPE_CHECKING:
    from zoo.dataset import View

__all__ = ["EXAMPLES", "add_arguments", "bench"]

EXAMPLES = """\
Tasks are the accuracy, the gap between training and test accuracy, what varies in the sweep, and
the phase; inputs are layer statistics, raw weights and, as controls, what is known without weights.
Every score is on held-out groups, with an interval from resampled configurations.

examples:
  zoo bench z.zarr --plot bench.png
  zoo bench z.zarr --tasks test_accuracy --by run,seed,cell      # how much a split flatters
  zoo bench z.zarr "epoch == -1" --by cell --apart seed     # new recipes from new starts
  zoo bench z.zarr "epoch == -1" --models ridge,boosting --json
"""


def add_arguments(parser: argparse.ArgumentParser, names: Callable[[str], list[str]]) -> None:
    """Add the verb's own arguments.

    Args:
        parser: of the verb.
        names: reads a list of names.
    """
    parser.add_argument("predicate", nargs="?", metavar="PREDICATE", help="default: all rows")
    parser.add_argument("--tasks", type=names, metavar="A,B", help="columns to predict, or gap")
    parser.add_argument("--inputs", type=names, metavar="A,B", help="default: all")
    parser.add_argument(
        "--models", type=names, metavar="A,B", help="ridge, boosting, 'neural graph' (default: all)"
    )
    parser.add_argument(
        "--by", type=names, default=["seed"], metavar="A,B",
        help="what is held out together: run, seed (default), cell, architecture or a column; "
        "several give a table each",
    )  # fmt: skip
    parser.add_argument("--apart", metavar="A", help="held out as well: --by cell --apart seed")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--rows", type=int, default=3000, metavar="N", help="at most (3000)")
    parser.add_argument("--epochs", type=int, default=15, metavar="N", help="of the network (15)")
    parser.add_argument("--plot", metavar="FILE", help="also draw a picture (.png, .pdf, .svg)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and end")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")


def bench(args: argparse.Namespace) -> int:
    """Run the benchmark and print its table."""
    import zoo
    from zoo.dataset.benchmark import INPUTS, MODELS, benchmark, make_targets
    from zoo.report.bench import bench_plot, bench_table
    from zoo.report.picture_file import check_picture
    from zoo.report.pooling import pooled_fields, pooled_words

    view = zoo.open(args.store).query(args.predicate)
    inputs, models = args.inputs or list(INPUTS), args.models or list(MODELS)
    targets = make_targets(view, args.tasks)
    if args.dry_run:
        return _dry_run(args, view, [t.name for t in targets], inputs, models)
    over = pooled_words(pooled_fields(view, []))
    differ = f"runs differ in {over}" if over else ""
    for number in range(len(args.by) if args.plot else 0):
        check_picture(_numbered(args.plot, number))
    documents = []
    for number, by in enumerate(args.by):
        what = f"held out by {by}" + (f" and {args.apart}" if args.apart else "")
        report, close = _progress(quiet=args.quiet, what=what)
        try:
            rows = benchmark(
                view, tasks=args.tasks, inputs=inputs, models=models, by=by, apart=args.apart,
                folds=args.folds,
                limit=args.rows, epochs=args.epochs, progress=report,
            )  # fmt: skip
        finally:
            close()
        used = f"{_span([r.rows for r in rows], 'row')} of {_span([r.runs for r in rows], 'run')}"
        used += f", {what}"
        documents.append({"by": by, "apart": args.apart, "rows": [row.to_json() for row in rows]})
        if args.plot:
            path = _numbered(args.plot, number)
            bench_plot(rows, path, title=f"{view.zoo.name}: {used}\n{differ}".rstrip())
        if not args.json:
            print(("\n" if number else "") + used + (f"\n{differ}" if differ else ""))
            print(bench_table(rows))
            if args.plot:
                print(f"picture: {path}")
    if args.json:
        print_json(documents)
    return 0


def _dry_run(
    args: argparse.Namespace, view: View, tasks: list[str], inputs: list[str], models: list[str]
) -> int:
    plain = [m for m in models if m != "neural graph"]
    folds = min(args.folds, 3) ** 2 if args.apart else args.folds
    fits = len(args.by) * folds * (len(inputs) * len(plain) + (len(models) > len(plain)))
    facts = {
        "rows": min(len(view), args.rows),
        "tasks": tasks,
        "inputs": list(inputs),
        "models": list(models),
        "held out by": args.by,
        "fits": fits,
    }
    if args.json:
        print_json(facts)
    else:
        for name, value in facts.items():
            print(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    return 0


def _span(counts: list[int], noun: str) -> str:
    """Return ``"40 rows"``, or ``"38 to 40 rows"`` where tasks use different numbers of them."""
    low, high = min(counts), max(counts)
    return (f"{low:,} to " if low < high else "") + plural(high, noun)


def _numbered(path: str, number: int) -> str:
    stem, dot, ending = path.rpartition(".")
    return path if number == 0 else f"{stem}-{number + 1}{dot}{ending}"


def _progress(*, quiet: bool, what: str) -> tuple[Callable[[float], None], Callable[[], None]]:
    """Return what is told of the share done, and what ends the bar."""
    if quiet:
        return (lambda share: None), (lambda: None)
    from tqdm import tqdm

    bar = tqdm(total=100, unit="%", desc=what, file=sys.stderr, dynamic_ncols=True, mininterval=0.5)

    def report(share: float) -> None:
        bar.update(round(100 * share, 1) - bar.n)

    return report, bar.close
