"""Before a sweep file is read: how many runs it has, and whether that many are meant."""

from __future__ import annotations

import sys
from os import PathLike

from zoo.cli.show import plural
from zoo.errors import Problem, SpecError

__all__ = ["LARGE", "check_size"]

#: Runs that are made without a question: some seconds.
LARGE = 20_000
#: Runs that are made, checked and planned per second, about.
_RUNS_PER_S = 1_500


def check_size(path: str | PathLike[str], *, yes: bool) -> None:
    """Ask before the runs of a large sweep are made; nothing is asked about a store.

    Args:
        path: a sweep file, or a store.
        yes: whether the answer was given on the command line.

    Raises:
        SpecError: a large sweep without a yes, or a file that cannot be read.
    """
    from zoo.launch.progress import duration
    from zoo.spec import count_runs
    from zoo.store import is_store

    if is_store(path):
        return
    count = count_runs(path)
    if count <= LARGE:
        return
    words = f"about {plural(count, 'run')}, {duration(count / _RUNS_PER_S)} to work out"
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        print(f"{path}: {words}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        yes = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not yes:
        fix = "give --yes if they are meant"
        raise SpecError([Problem("sweep", None, words, f"{LARGE:,} without --yes", fix)], str(path))
    print(f"{path}: {words} ...", file=sys.stderr, flush=True)
