"""``zoo errors`` and ``zoo logs``: why something did not get done, and what it said."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.cli.show import plural, print_json
from zoo.errors import Problem, SpecError

__all__ = ["add_verbs", "errors", "logs"]

_SHOWN_TASKS = 6
_LOGS = """\
TASK is COHORT/INDEX, as `zoo status STORE --tasks` shows it, or SUBMISSION.ELEMENT (1.0).

examples:
  zoo logs q.zarr mlp-0123456789/4
  zoo logs q.zarr 1.0 --lines 0 --out       # all of its standard output
  zoo logs q.zarr mlp-0123456789/4 --path   # where the files are
"""


def add_verbs(verbs: Any, verb: Callable[..., Any], json: Callable[..., None]) -> None:
    """Add the verbs of this module."""
    one = verb(
        verbs,
        "errors",
        "zoo.cli.failures:errors",
        "show why tasks failed, one entry for each cause",
    )
    one.add_argument("store", metavar="STORE", help="a zoo (STORE.zarr)")
    one.add_argument("--all", action="store_true", help="also what a later attempt made good")
    one.add_argument("--traceback", action="store_true", help="whole tracebacks")
    json(one)
    one = verb(verbs, "logs", "zoo.cli.failures:logs", "show what the jobs of a task wrote", _LOGS)
    one.add_argument("store", metavar="STORE", help="a zoo (STORE.zarr)")
    one.add_argument("task", metavar="TASK", help="COHORT/INDEX, or SUBMISSION.ELEMENT")
    one.add_argument("--lines", type=int, default=40, metavar="N", help="the last N (0 = all)")
    one.add_argument("--out", action="store_true", help="standard output instead of errors")
    one.add_argument("--path", action="store_true", help="print the files' names only")
    json(one)


def errors(args: argparse.Namespace) -> int:
    """Show why tasks failed."""
    from zoo.launch.cluster import cluster_status
    from zoo.launch.faults import faults, job_faults

    found = faults(args.store, every=args.all)
    jobs = job_faults(cluster_status(args.store))
    if args.json:
        print_json(
            {
                "faults": [fault.to_json() for fault in found],
                "jobs": {word: [line.to_json() for line in lines] for word, lines in jobs.items()},
            }
        )
        return 2 if found or jobs else 0
    for fault in found:
        names = [f"{cohort}/{index}" for cohort, index in fault.tasks[:_SHOWN_TASKS]]
        more = len(fault.tasks) - len(names)
        print(f"{plural(len(fault.tasks), 'task')}: {fault.reason}")
        if fault.where:
            print(f"  at     {fault.where}")
        print(f"  tasks  {', '.join(names)}{f', and {more:,} more' if more else ''}")
        if args.traceback:
            print("\n".join(f"    {line}" for line in fault.traceback.splitlines()))
    for word, lines in jobs.items():
        places = sorted({line.node for line in lines if line.node})
        where = f" on {', '.join(places[:_SHOWN_TASKS])}" if places else ""
        names = [f"{line.submission}.{line.element}" for line in lines[:_SHOWN_TASKS]]
        more = len(lines) - len(names)
        print(f"{plural(len(lines), 'array element')} ended {word}{where}, with tasks undone")
        print(f"  logs   {', '.join(names)}{f', and {more:,} more' if more else ''}")
    if not found and not jobs:
        print("No task failed.")
        return 0
    print(f"`zoo logs {args.store} TASK` shows more, `zoo retry {args.store}` submits them again.")
    return 2


def logs(args: argparse.Namespace) -> int:
    """Show what the jobs of a task wrote."""
    from zoo.launch.submissions import submissions

    chosen = _chosen(args)
    if not chosen:
        known = submissions(args.store)
        message = "was in no job that the scheduler accepted" if known else "was never submitted"
        raise SpecError([Problem("task", args.task, message)], "logs")
    files: list[Path] = []
    for submission, number, _ in chosen:
        out, err = submission.logs(number) or (None, None)
        files += [path for path in (out if args.out else err,) if path is not None]
    if args.json:
        print_json(
            [{"path": str(path), "there": path.exists(), "text": _tail(path, args.lines)}
             for path in files]
        )  # fmt: skip
        return 0
    for path in files:
        if args.path:
            print(path)
            continue
        stamp = ""
        if path.exists():
            stamp = time.strftime(", %Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime))
        print(f"==> {path}{stamp or ' (nothing written yet)'} <==")
        print(_tail(path, args.lines), end="")
    return 0


def _chosen(args: argparse.Namespace) -> list[tuple[Any, int, str]]:
    from zoo.launch.faults import logs_of
    from zoo.launch.submissions import submissions

    first, dot, second = args.task.partition(".")
    if dot and first.isdecimal() and second.isdecimal():
        return [
            (one, int(second), job)
            for one in submissions(args.store)
            if one.number == int(first) and int(second) < len(one.elements)
            and (job := one.job_id(int(second))) is not None
        ]  # fmt: skip
    cohort, _, index = args.task.rpartition("/")
    if not cohort or not index.isdecimal():
        allowed = "COHORT/INDEX, or SUBMISSION.ELEMENT"
        raise SpecError([Problem("task", args.task, "is no task", allowed)], "logs")
    return logs_of(args.store, (cohort, int(index)))


def _tail(path: Path, lines: int) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    kept = text.splitlines(keepends=True)
    return "".join(kept[-lines:] if lines else kept)
