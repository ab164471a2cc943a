"""``zoo report``: a table, a picture, and the page of a labelled zoo."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from zoo.cli.data_option import given_data
from zoo.cli.show import plural, print_json
from zoo.errors import Problem, SpecError

if TYPE_CHECKING:
    from zoo.dataset import Zoo

__all__ = ["add_arguments", "report"]

_MOST_GROUPS = 3
_OF_A_PICTURE = ("load", "temperature", "panel")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of pictures and page to those of ``zoo report``."""
    picture = parser.add_argument_group("picture")
    picture.add_argument("--plot", metavar="FILE", help="also draw one (.png, .pdf, .svg)")
    picture.add_argument("--load", metavar="COLUMN", help="x axis (default: the sweep's load axis)")
    picture.add_argument("--temperature", metavar="COLUMN", help="y axis, the same way")
    picture.add_argument("--panel", metavar="COLUMN", help="one map for each value of this column")
    parser = parser.add_argument_group("page")  # type: ignore[assignment]
    parser.add_argument(
        "--html", metavar="FILE",
        help="also write a page with phase diagram, heat maps, trajectories and loss surfaces, and "
        "its pictures as FILE-<name>.png; needs `zoo landscape` and `zoo label` before",
    )  # fmt: skip
    parser.add_argument(
        "--labels", metavar="TABLE", help="labels of the page (phases-v<N>; default: the current)"
    )
    parser.add_argument(
        "--no-surfaces", action="store_true", help="no loss surfaces, which take some seconds"
    )


def _write_page(opened: Zoo, args: argparse.Namespace) -> None:
    """Write the page, and say where it is."""
    from zoo.report.page import write_report

    told = sys.stderr.isatty() and not args.json

    def tell(part: str) -> None:
        if told:
            print(f"\rdrawing: {part:<40}", end="", file=sys.stderr, flush=True)

    files = write_report(
        opened, args.html, table=args.labels, surfaces=not args.no_surfaces, progress=tell
    )
    if told:
        print(file=sys.stderr)
    if not args.json:
        print(f"\npage: {files.page}, {plural(len(files.pictures), 'picture')} beside it")
        for note in files.notes:
            print(f"note: {note}")


def report(args: argparse.Namespace) -> int:
    """Print a table of means by axis, and draw a picture."""
    import zoo
    from zoo.report import format_table, group_table, json_rows, pooled_fields
    from zoo.report.pooling import unfinished

    lost = [f"--{name}" for name in _OF_A_PICTURE if getattr(args, name) and not args.plot]
    if lost:
        problem = Problem(lost[0], None, "is of the picture", "beside --plot", "give --plot FILE")
        raise SpecError([problem], "report")
    opened = zoo.open(args.store, paths=given_data(args))
    where = f"({args.where}) and epoch == -1" if args.where else "epoch == -1"
    view = opened.query(where)
    value = args.value or opened.headline()
    by = args.by or _groups(opened)
    try:
        table = group_table(view, by, value)
        pooled = pooled_fields(view, by)
    except ValueError as error:
        from zoo.errors import QueryError

        raise QueryError(str(error)) from None
    if args.json:
        facts = {"by": by, "value": value, "pooled": pooled, "unfinished": unfinished(view)}
        print_json({**facts, "rows": json_rows(table)})
    else:
        print(f"{value} of each run's last checkpoint, {plural(len(view), 'model')}")
        print()
        print(format_table(table))
        _print_pooled(by, pooled, unfinished(view), 0 if args.where else len(opened) - len(view))
    if args.plot:
        axes = {name: getattr(args, name) for name in _OF_A_PICTURE}
        _draw(opened, args.plot, value=value, quiet=args.json, **axes)
    if args.html:
        _write_page(opened, args)
    return 0


def _print_pooled(
    by: list[str], pooled: dict[str, list[Any]], lost: dict[str, int], absent: int
) -> None:
    """Print below the table what its rows hold together, and how to take it apart."""
    from zoo.report.pooling import is_seed, pooled_words

    print()
    if pooled:
        print(f"pooled over: {pooled_words(pooled)}")
    more = [name for name in pooled if not is_seed(name)]
    if more:
        print(f"  to split by them too: --by {','.join([*by, *more])}")
    if lost:
        states = ", ".join(f"{count:,} {state}" for state, count in lost.items())
        print(f"not trained to the end: {states}; they count with their last recorded checkpoint")
    if absent:
        print(f"not in the table: {plural(absent, 'model')} without a checkpoint")


def _groups(opened: Zoo) -> list[str]:
    """Return the columns of a report where none are named: the axes, diets, then what varies."""
    from zoo.report.pooling import is_diet, is_seed, split_order

    axes = list(dict.fromkeys(opened.axes.values()))
    names = [name for name in opened.varying if name not in axes and not is_seed(name)]
    runs = opened.runs(columns=[*axes, *names])
    chosen = list(axes)
    for name in split_order({n: runs[n] for n in (*axes, *names)}, axes, names):
        if is_diet(name) or len(chosen) < _MOST_GROUPS:
            chosen.append(name)
    return chosen or ["architecture"]


def _draw(opened: Zoo, file: str, *, value: str, quiet: bool, **names: str | None) -> None:
    from zoo.errors import QueryError, ZooError
    from zoo.report import accuracy_plot

    try:
        written = accuracy_plot(opened, file, value=value, **names)
    except ValueError as error:
        if isinstance(error, ZooError):
            raise
        msg = f"cannot draw {file}: {error}"
        raise QueryError(msg) from error
    if not quiet:
        print(f"\npicture: {written}")
