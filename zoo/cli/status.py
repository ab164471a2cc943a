"""``zoo status``: how far a store is."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from zoo.cli.show import print_json
from zoo.cli.submit import print_jobs

if TYPE_CHECKING:
    from zoo.launch.status import StoreStatus

__all__ = ["status"]

_CLEAR = "\x1b[H\x1b[2J"


def status(args: argparse.Namespace) -> int:
    """Show how far a store is."""
    from zoo.launch.cluster import cluster_status

    while True:
        whole = cluster_status(args.store)
        found = whole.store
        if args.watch and not args.json and sys.stdout.isatty():
            print(_CLEAR, end="")
        if args.json:
            print_json(whole.to_json() if whole.elements else found.to_json())
        else:
            _print_status(found, tasks=args.tasks)
            print_jobs(whole)
        sys.stdout.flush()
        if not args.watch or found.complete or whole.over:
            return 0 if found.complete else 2
        time.sleep(args.every)


def _print_status(found: StoreStatus, *, tasks: bool) -> None:
    from zoo.launch.cluster import WORDS
    from zoo.report import format_table

    committed, planned = found.checkpoints
    share = committed / planned if planned else 1.0
    counts = ", ".join(f"{n:,} {state}" for state, n in found.counts.items())
    print(f"Zoo {found.name!r} at {found.path}")
    print(f"  models       {found.models:,}: {counts}")
    print(f"  checkpoints  {committed:,} of {planned:,} committed ({share:.1%})")
    numbers = {s: sum(line.state == s for line in found.tasks) for s in WORDS}
    print("  tasks        " + ", ".join(f"{n:,} {s}" for s, n in numbers.items() if n))
    for line in found.tasks:
        if line.reason:
            print(f"  failed       task {line.task} of {line.cohort}: {line.reason}")
    busy = ("running", "assigned", "queued", "held", "unknown")
    if not found.complete and not any(numbers[state] for state in busy):
        print(f"No process is working on it; `zoo run {found.path}` resumes.")
    if tasks:
        print()
        print(format_table([_task_row(line.to_json()) for line in found.tasks]))


def _task_row(line: dict[str, Any]) -> dict[str, Any]:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line["updated"]))
    return {
        "cohort": line["cohort"],
        "task": line["task"],
        "models": line["models"],
        "state": line["state"],
        "checkpoints": f"{line['committed']}/{line['checkpoints']}",
        "updated": stamp if line["updated"] else None,
    }
