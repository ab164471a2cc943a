"""``zoo verify``, ``zoo repair`` and ``zoo reproduce``: whether what is stored is right."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from zoo.cli.data_option import given_data
from zoo.cli.show import human_bytes, plural, print_json
from zoo.errors import StoreBusyError

__all__ = ["repair", "reproduce", "verify"]


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
    """Write anew what follows from other files, and take back what is damaged."""
    from zoo.store import read_plan, repair_added, repair_task, rewrite_planned, verify_store

    report = verify_store(args.store)
    before = report.problems
    taken: list[dict[str, Any]] = []
    written: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    busy: list[str] = []
    left = before
    if (before or report.strays) and not args.dry_run:
        written = rewrite_planned(args.store)
        plan, ends = read_plan(args.store), list[str]()
        for task in plan.tasks():
            try:
                first = repair_task(args.store, task)
            except StoreBusyError as error:
                busy.append(str(error))
                continue
            if first == plan.cohort(task.cohort).checkpoints:  # all of them are sound
                ends.append(f"task {task.index} of {task.cohort}: outcomes and seal written anew")
            elif first is not None:
                taken.append({"cohort": task.cohort, "task": task.index, "first": first})
        added = (*ends, *repair_added(args.store))
        left = verify_store(args.store).problems
    if args.json:
        facts = {"problems": list(before), "written": list(written), "taken_back": taken}
        print_json({**facts, "added": list(added), "busy": busy, "left": list(left)})
        return 2 if left else 0
    for problem in before if args.dry_run else left:
        print(f"  problem: {problem}")
    for name in written:
        print(f"  {name}: written anew")
    for entry in taken:
        print(
            f"  task {entry['task']} of {entry['cohort']}: taken back from checkpoint"
            f" {entry['first']} on"
        )
    for line in (*added, *(f"left alone: {reason}" for reason in busy)):
        print(f"  {line}")
    print(f"{plural(len(before), 'problem')} found, {len(before) - len(left):,} repaired")
    if taken:
        print(f"`zoo run {args.store}` trains what was taken back.")
    return 2 if left else 0


def reproduce(args: argparse.Namespace) -> int:
    """Train one model again and compare every bit."""
    from zoo.launch.reproduce import reproduce as again

    result = again(args.store, args.run_id, paths=given_data(args))
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
