"""``zoo plan``, ``zoo run`` and ``zoo sweep check``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.diets import scoring_line
from zoo.cli.show import human_bytes, plural, print_json
from zoo.errors import Problem, SpecError

if TYPE_CHECKING:
    from zoo.diets.demand import ScoringJob
    from zoo.launch.calibrate import PlanCost
    from zoo.launch.local import RunSummary
    from zoo.spec import Sweep
    from zoo.train.plan import Plan

__all__ = ["check", "plan", "run"]


def plan(args: argparse.Namespace) -> int:
    """Show what a sweep means."""
    from zoo.launch.calibrate import plan_cost

    sweep, planned, missing = _planned(args)
    workers = _workers(args, sweep, planned)
    cost = plan_cost(missing, workers=workers, paths=sweep.paths, budget_s=args.calibrate)
    if args.json:
        print_json(_plan_json(planned, missing, cost, sweep))
        return 0
    _print_plan(planned, missing, cost, sweep, args)
    return 0


def _planned(args: argparse.Namespace) -> tuple[Sweep, Plan, Plan]:
    """Return the sweep, its plan, and the part of the plan that ``--out`` does not have."""
    from dataclasses import replace

    from zoo.launch.prepare import check_extension
    from zoo.spec import Sweep, load_sweep
    from zoo.store import is_store, read_plan, read_sweep
    from zoo.train import planner

    if is_store(args.sweep):
        sweep = Sweep.from_toml(read_sweep(args.sweep), source=f"{args.sweep} (sweep)")
        whole = read_plan(args.sweep)
        return sweep, whole, replace(whole, cohorts=())
    sweep = load_sweep(args.sweep)
    backend = args.backend or sweep.options.get("backend", "auto")
    device = args.device or sweep.options.get("device")
    if not args.out or not is_store(args.out):
        whole = planner.plan(sweep, backend=backend, device=device)
        return sweep, whole, whole
    base = read_plan(args.out)
    check_extension(sweep, base, backend=backend, device=device, source=args.out)
    whole = planner.plan(sweep, base=base, backend=backend, device=device)
    return sweep, whole, replace(whole, cohorts=whole.cohorts[len(base.cohorts) :])


def _workers(args: argparse.Namespace, sweep: Sweep, planned: Plan) -> int:
    from zoo.launch.gpus import gpu_seats
    from zoo.launch.provenance import usable_cores

    wanted = args.workers if args.workers is not None else sweep.options.get("workers")
    if wanted is None:
        on_gpus = any(cohort.device == "cuda" for cohort in planned.cohorts)
        wanted = len(gpu_seats()) if on_gpus else usable_cores()
    return max(wanted, 1)


def _plan_json(planned: Plan, missing: Plan, cost: PlanCost, sweep: Sweep) -> dict[str, Any]:
    return {
        "name": planned.name,
        "runs": planned.models,
        "new_runs": missing.models,
        "sweep": {
            "runs": len(sweep.runs()),
            "excluded": sweep.excluded,
            "collapsed": sweep.collapsed,
        },
        "cohorts": len(planned.cohorts),
        "tasks": len(list(planned.tasks())),
        "checkpoints": sum(c.models * c.checkpoints for c in planned.cohorts),
        "axes": dict(planned.axes),
        "record": planned.record.to_dict(),
        "scoring": [job.to_json() for job in _scoring(missing)],
        "cost": cost.to_json(),
    }


def _print_plan(
    planned: Plan, missing: Plan, cost: PlanCost, sweep: Sweep, args: argparse.Namespace
) -> None:
    from zoo.launch.progress import duration
    from zoo.report import format_table

    print(f"Sweep {planned.name!r}: {sweep.description}".rstrip(": "))
    left_out = [f"{n:,} {what}" for n, what in _left_out(sweep) if n]
    left_out += [f"{sweep.baselines:,} random diets added"] if sweep.baselines else []
    print(f"  runs      {planned.models:,}{' (' + ', '.join(left_out) + ')' if left_out else ''}")
    if missing.models != planned.models:
        print(f"  new       {missing.models:,}, the store has the others")
    if planned.axes:
        print("  axes      " + ", ".join(f"{a} = {name}" for a, name in planned.axes.items()))
    for job in _scoring(missing):
        print(f"  scoring   {scoring_line(job)}")
    if not missing.cohorts:
        print("  to train  nothing that a store does not have planned already")
        return
    points = sum(c.models * c.checkpoints for c in missing.cohorts)
    tasks = len(list(missing.tasks()))
    print(f"  cohorts   {len(missing.cohorts):,}, in {plural(tasks, 'task')}")
    print(f"  records   {points:,} model checkpoints in {plural(cost.shards, 'shard')}")
    print(f"  bytes     {human_bytes(cost.bytes)}, before compression")
    how = "measured" if args.calibrate > 0 else "guessed"
    print(
        f"  time      about {duration(cost.seconds)} with {plural(cost.workers, 'worker')}"
        f" ({how}; {duration(cost.core_seconds)} of one core)"
    )
    rows = [
        {
            "cohort": c.cohort,
            "models": c.models,
            "checkpoints": c.checkpoints,
            "parameters": c.params,
            "tasks": c.tasks,
            "backend": planned.cohort(c.cohort).backend,
            "device": planned.cohort(c.cohort).device,
            "seconds": c.seconds,
        }
        for c in cost.cohorts
    ]
    print()
    print(format_table(rows, limit=30))


def _scoring(plan: Plan) -> tuple[ScoringJob, ...]:
    """Return what the diets of a plan need before training."""
    from zoo.launch.scoring import OWN, jobs_of

    return jobs_of(plan, OWN)


def _left_out(sweep: Sweep) -> list[tuple[int, str]]:
    return [(sweep.excluded, "excluded"), (sweep.collapsed, "equivalent ones dropped")]


def run(args: argparse.Namespace) -> int:
    """Train a sweep into a store."""
    from zoo.launch.local import run as train
    from zoo.launch.progress import reporter

    if args.dry_run:
        return _dry_run(args)
    progress = None if args.quiet else reporter(sys.stderr)
    summary = train(
        args.sweep,
        args.out,
        workers=args.workers,
        backend=args.backend,
        device=args.device,
        progress=progress,
        limit=args.limit,
    )
    if args.json:
        print_json(summary.to_json())
    else:
        _print_summary(summary)
    return 0 if summary.complete else 2


def _print_summary(summary: RunSummary) -> None:
    from zoo.launch.progress import duration

    counts = ", ".join(f"{n:,} {state}" for state, n in summary.status.items())
    if summary.trained:
        rate = summary.trained / max(summary.seconds, 1e-9)
        workers = plural(summary.workers, "worker") if summary.workers else "no worker"
        print(
            f"Trained {plural(summary.trained, 'model')} in {duration(summary.seconds)}"
            f" ({rate:.3g} models/s, {workers})."
        )
    elif summary.complete:
        print("Nothing to do: every model is there.")
    print(f"{summary.path}: {plural(summary.models, 'model')} ({counts})")
    for failed in summary.failures:
        print(
            f"  failed: task {failed.task.index} of {failed.task.cohort}"
            f" ({plural(failed.task.models, 'model')}): {failed.reason}"
        )
    if summary.stopped:
        print("Stopped before the end; the same command again goes on.")
    elif not summary.complete:
        print("Not complete; the same command again tries what is missing.")


def _dry_run(args: argparse.Namespace) -> int:
    """Say what ``zoo run`` would do, and write nothing."""
    from zoo.store import is_store, task_states

    if not args.out and not is_store(args.sweep):
        problem = Problem("out", None, "is missing", "the path of a store", "give --out PATH.zarr")
        raise SpecError([problem], "run")
    sweep, planned, missing = _planned(args)
    target = Path(args.out or args.sweep)
    there = task_states(target) if is_store(target) else []
    opened = [state for state in there if not state.sealed]
    tasks = len(list(missing.tasks()))
    if not there:
        action = "create"
    else:
        action = "extend" if missing.cohorts else "finish" if opened else "nothing"
    facts: dict[str, Any] = {
        "store": str(target),
        "action": action,
        "runs": planned.models,
        "new_runs": missing.models,
        "tasks_to_do": len(opened) + tasks,
        "tasks_done": len(there) - len(opened),
        "workers": min(_workers(args, sweep, planned), len(opened) + tasks),
    }
    if args.json:
        print_json(facts)
        return 0
    print(f"Would {action if action != 'nothing' else 'do nothing with'} {target}:")
    print(f"  runs   {planned.models:,}, of them {missing.models:,} new")
    print(f"  tasks  {facts['tasks_to_do']:,} to do, {facts['tasks_done']:,} done")
    print(f"  with   {plural(facts['workers'], 'worker')}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Read sweep files and say all that is wrong with them."""
    from zoo.spec import load_sweep

    results: list[dict[str, Any]] = []
    for path in args.sweeps:
        try:
            sweep = load_sweep(path)
        except SpecError as error:
            problems = [str(problem) for problem in error.problems]
            results.append({"file": path, "runs": None, "problems": problems})
        else:
            results.append({"file": path, "runs": len(sweep.runs()), "problems": []})
    if args.json:
        print_json(results)
    else:
        for result in results:
            if not result["problems"]:
                print(f"{result['file']}: {plural(result['runs'], 'run')}, nothing wrong")
                continue
            print(f"{result['file']}: {plural(len(result['problems']), 'problem')}")
            for problem in result["problems"]:
                print(f"  - {problem}")
    return 2 if any(result["problems"] for result in results) else 0
