"""What ``zoo submit`` prints: the jobs that were handed in, or every script of a dry run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.cli.show import human_bytes, plural, print_json

if TYPE_CHECKING:
    from zoo.launch.drafting import Prepared
    from zoo.launch.executor import Step
    from zoo.launch.submissions import Submission
    from zoo.launch.submit_steps import Script

__all__ = ["show_dry_run", "show_submitted", "word_counts"]


def show_submitted(args: argparse.Namespace, ready: Prepared, done: Sequence[Submission]) -> None:
    """Print what was submitted."""
    from zoo.launch.submit import advice

    draft = ready.draft
    if args.json:
        jobs = [
            {"submission": s.number, "stage": s.stage.get("name"), "jobs": list(s.jobs.values())}
            for s in done
        ]
        facts = {"store": str(ready.path), "submitted": jobs, "notes": advice(draft)}
        print_json({**draft.to_json(), **facts})
        return
    if not draft.elements:
        print(f"Nothing to submit for {ready.path}: {word_counts(draft.skipped)}")
        if draft.skipped.get("failed"):
            print(f"`zoo errors {ready.path}` says why tasks failed, `zoo retry` submits them.")
    for one in done:
        ids = ", ".join(str(job) for job in one.jobs.values())
        if one.stage:
            after = ", after the ones before it" if one is not done[0] else ""
            print(f"Submitted stage {one.stage['name']} as job {ids}{after}.")
            continue
        print(
            f"Submitted {plural(draft.tasks, 'task')} ({plural(draft.models, 'model')}) as"
            f" {plural(len(draft.elements), 'array element')}: job {ids}"
        )
        if draft.skipped:
            print(f"  left out  {word_counts(draft.skipped)}")
        _print_cost(ready)
    if done:
        print(f"`zoo status {ready.path} --watch` shows how far they are.")


def word_counts(counts: Mapping[str, int]) -> str:
    """Return ``"3 done, 1 queued"``."""
    return ", ".join(f"{n:,} {word}" for word, n in counts.items()) or "no tasks"


def _print_cost(ready: Prepared) -> None:
    from zoo.launch.progress import duration
    from zoo.launch.submit import advice

    draft, profile = ready.draft, ready.draft.profile
    workers = plural(profile.processes, "worker")
    print(
        f"  time      up to {duration(draft.longest() * 3600)} per element with {workers};"
        f" each asks for {duration(profile.limit_s)}"
    )
    print(f"  cost      {draft.core_hours:.3g} core-hours, {draft.gpu_hours:.3g} GPU-hours")
    print(f"  bytes     {human_bytes(ready.cost.bytes)}, before compression")
    for text in advice(draft):
        print(f"  note      {text}")


def show_dry_run(args: argparse.Namespace, ready: Prepared, steps: Sequence[Step]) -> int:
    """Print what would be submitted, and what the scheduler says to it where it is asked."""
    from zoo.launch.slurm import test_only
    from zoo.launch.submit import advice
    from zoo.launch.submit_steps import dry_run

    draft, scripts = ready.draft, dry_run(ready, steps)
    answers = [test_only(one.alone, one.profile) for one in scripts] if args.test_only else []
    if args.json:
        facts: dict[str, Any] = {
            "store": str(ready.path),
            "sbatch": [one.text for one in scripts],
            "scripts": [{"title": one.title, "sbatch": one.text} for one in scripts],
            "scheduler": answers,
            "notes": advice(draft),
        }
        print_json({**draft.to_json(), **facts})
        return 0
    print(
        f"Would submit {plural(draft.tasks, 'task')} ({plural(draft.models, 'model')}) as"
        f" {plural(len(draft.elements), 'array element')} in {plural(draft.arrays, 'array')}"
    )
    if draft.skipped:
        print(f"  left out  {word_counts(draft.skipped)}")
    if draft.elements:
        _print_cost(ready)
    for one, answer in zip(scripts, answers, strict=False):
        print(f"  scheduler {one.title}: {answer}")
    if not args.test_only:
        _print_scripts(scripts)
    return 0


def _print_scripts(scripts: Sequence[Script]) -> None:
    for number, one in enumerate(scripts, 1):
        print(f"\n# ---- script {number} of {len(scripts)}: {one.title}")
        print(one.text.strip())
    if len(scripts) > 1:
        print("\n# JOB_1, JOB_2, ... stand for the job ids of the scripts above.")
