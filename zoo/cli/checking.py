"""``zoo status``, ``zoo verify``, ``zoo repair`` and ``zoo reproduce``."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from zoo.cli.clustering import print_jobs
from zoo.cli.show import human_bytes, plural, print_json

if TYPE_CHECKING:
    from zoo.launch.status import StoreStatus

__all__ = ["repair", "reproduce", "status", "verify"]

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
        print(f"Nobody is at it; `zoo run {found.path}` goes on.")
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


def verify(args: argparse.Namespace) -> int:
    """Hold every byte of a store against its checksums."""
    from zoo.store import content_hash, verify_store

    report = verify_store(args.store)
    digest = content_hash(args.store) if args.hash else None
    if args.json:
        facts = {
            "shards": report.shards,
            "bytes": report.bytes,
            "problems": list(report.problems),
            "strays": list(report.strays),
        }
        print_json(facts if digest is None else {**facts, "content_hash": digest})
        return 2 if report.problems else 0
    print(f"{args.store}: {plural(report.shards, 'shard')}, {human_bytes(report.bytes)} read")
    if report.strays:
        print(f"  {plural(len(report.strays), 'unfinished file')}, which do no harm")
    for problem in report.problems:
        print(f"  problem: {problem}")
    print(f"{plural(len(report.problems), 'problem')} found")
    if digest is not None:
        print(f"content {digest}")
    return 2 if report.problems else 0


def repair(args: argparse.Namespace) -> int:
    """Take back damaged checkpoints."""
    from zoo.store import read_plan, repair_task, verify_store

    before = verify_store(args.store).problems
    taken: list[dict[str, Any]] = []
    left = before
    if before and not args.dry_run:
        for task in read_plan(args.store).tasks():
            first = repair_task(args.store, task)
            if first is not None:
                taken.append({"cohort": task.cohort, "task": task.index, "first": first})
        left = verify_store(args.store).problems
    if args.json:
        print_json({"problems": list(before), "taken_back": taken, "left": list(left)})
        return 2 if left else 0
    for problem in before if args.dry_run else left:
        print(f"  problem: {problem}")
    for entry in taken:
        print(
            f"  task {entry['task']} of {entry['cohort']}: taken back from checkpoint"
            f" {entry['first']} on"
        )
    print(f"{plural(len(before), 'problem')} found, {len(before) - len(left):,} mended")
    if taken:
        print(f"`zoo run {args.store}` trains what was taken back.")
    return 2 if left else 0


def reproduce(args: argparse.Namespace) -> int:
    """Train one model again and compare every bit."""
    from zoo.launch.reproduce import reproduce as again

    result = again(args.store, args.run_id)
    if args.json:
        print_json(_without_nan(result.to_json()))
        return 0 if result.matches else 2
    for warning in result.warnings:
        print(f"warning: {warning}; the bits may differ for that", file=sys.stderr)
    points = plural(result.checkpoints, "checkpoint")
    if result.difference is None:
        print(f"match: run {result.run_id} ({result.backend}), {points}, every bit is the same")
        return 0
    first = result.difference
    print(
        f"differs: run {result.run_id} ({result.backend}), first at checkpoint {first.checkpoint}"
        f" (step {first.step}): {first.what}, {first.differing:,} of"
        f" {plural(first.values, 'value')}, largest difference {first.largest:.3g}"
    )
    return 2


def _without_nan(facts: dict[str, Any]) -> dict[str, Any]:
    first = facts["difference"]
    if first is not None and first["largest"] != first["largest"]:
        facts = {**facts, "difference": {**first, "largest": None}}
    return facts
