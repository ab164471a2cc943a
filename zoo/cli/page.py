"""``zoo report STORE --html FILE``: the page of a labelled zoo."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from zoo.cli.show import plural

if TYPE_CHECKING:
    from zoo.dataset import Zoo

__all__ = ["add_arguments", "write_page"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the page to those of ``zoo report``."""
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


def write_page(opened: Zoo, args: argparse.Namespace) -> None:
    """Write the page, and say where it is."""
    from zoo.errors import QueryError
    from zoo.report.page import write_report

    told = sys.stderr.isatty() and not args.json

    def tell(part: str) -> None:
        if told:
            print(f"\rdrawing: {part:<40}", end="", file=sys.stderr, flush=True)

    try:
        files = write_report(
            opened, args.html, table=args.labels, surfaces=not args.no_surfaces, progress=tell
        )
    except OSError as error:
        from zoo.errors import ZooError

        if isinstance(error, ZooError):
            raise
        msg = f"cannot write {args.html}: {error}; give a path in a folder that can be written"
        raise QueryError(msg) from error
    if told:
        print(file=sys.stderr)
    if not args.json:
        print(f"\npage: {files.page}, {plural(len(files.pictures), 'picture')} beside it")
        for note in files.notes:
            print(f"note: {note}")
