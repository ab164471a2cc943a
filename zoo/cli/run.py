"""``zoo plan`` and ``zoo run``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zoo.cli.data_option import given_data, print_data, shown_data
from zoo.cli.diets import scoring_line
from zoo.cli.show import human_bytes, plural, print_json
from zoo.cli.size import check_size
from zoo.errors import Problem, SpecError
from zoo.paths import absolute

if TYPE_CHECKING:
    from zoo.diets.demand import ScoringJob
    from zoo.launch.calibrate import PlanCost
    from zoo.launch.local import RunSummary
    from zoo.spec import Sweep
    from zoo.store import Footprint
    from zoo.train.plan import Plan

__all__ = ["plan", "run", "tell_change"]


def plan(args: argparse.Namespace) -> int:
    """Show what a sweep means."""
    from zoo.launch.calibrate import plan_cost

    if args.check:
        return _check(args)
    if len(args.sweeps) > 1:
        fix = "give --check to check several"
        raise SpecError([Problem("SWEEP", None, "more than one to plan", "one", fix)], "plan")
    args.sweep = args.sweeps[0]
    sweep, planned, missing = _planned(args)
    workers = _workers(args, planned)
    cost = plan_cost(missing, workers=workers, paths=planned.paths, budget_s=args.calibrate)
    if args.json:
        facts = _plan_json(planned, missing, cost, sweep)
        print_json({**facts, "data": shown_data(planned, planned.paths)})
        return 0
    _print_plan(planned, missing, cost, sweep, args)
    return 0


def _planned(args: argparse.Namespace) -> tuple[Sweep | None, Plan, Plan]:
    """Return the sweep, its plan, and the part of the plan that ``--out`` does not have.

    A store has its plan, and its sweeps are not read again.
    """
    from dataclasses import replace

    from zoo.spec import load_sweep
    from zoo.stages.plan import placed, plan_extension
    from zoo.store import data_paths, is_store, read_plan
    from zoo.train import planner

    given = given_data(args)
    if is_store(args.sweep):
        whole = replace(read_plan(args.sweep), paths=data_paths(args.sweep, given))
        return None, whole, replace(whole, cohorts=())
    check_size(args.sweep, yes=args.yes)
    sweep = placed(load_sweep(args.sweep), given)
    backend = args.backend or sweep.options.get("backend", "auto")
    device = args.device or sweep.options.get("device")
    if not args.out or not is_store(args.out):
        whole = planner.plan(sweep, backend=backend, device=device, paths=sweep.paths)
        return sweep, whole, whole
    tell_change(sweep, args.out)
    base, whole = plan_extension(sweep, absolute(args.out), backend=backend, device=device)
    return sweep, whole, replace(whole, cohorts=whole.cohorts[len(base.cohorts) :])


def _workers(args: argparse.Namespace, planned: Plan) -> int:
    from zoo.launch.gpus import gpu_seats
    from zoo.provenance import usable_cores

    wanted = args.workers if args.workers is not None else planned.options.get("workers")
    if wanted is None:
        on_gpus = any(cohort.device == "cuda" for cohort in planned.cohorts)
        wanted = len(gpu_seats()) if on_gpus else usable_cores()
    return max(wanted, 1)


def _plan_json(planned: Plan, missing: Plan, cost: PlanCost, sweep: Sweep | None) -> dict[str, Any]:
    counts = {} if sweep is None else {"sweep": _sweep_json(sweep)}
    return {
        "name": planned.name,
        "runs": planned.models,
        "new_runs": missing.models,
        **counts,
        "cohorts": len(planned.cohorts),
        "tasks": len(list(planned.tasks())),
        "checkpoints": sum(c.models * c.checkpoints for c in planned.cohorts),
        "axes": dict(planned.axes),
        "record": planned.record.to_dict(),
        "scoring": [job.to_json() for job in _scoring(missing)],
        "cost": cost.to_json(),
        "files": asdict(_footprint(planned, missing)),
    }


def _sweep_json(sweep: Sweep) -> dict[str, int]:
    runs = len(sweep.runs())
    return {"runs": runs, "excluded": sweep.excluded, "collapsed": sweep.collapsed}


def _footprint(planned: Plan, missing: Plan) -> Footprint:
    from zoo.store import footprint

    return footprint(missing, extends=len(missing.cohorts) < len(planned.cohorts))


def _print_plan(
    planned: Plan, missing: Plan, cost: PlanCost, sweep: Sweep | None, args: argparse.Namespace
) -> None:
    from zoo.launch.progress import duration
    from zoo.report import format_table

    print(f"Sweep {planned.name!r}: {sweep.description if sweep else ''}".rstrip(": "))
    left_out = [] if sweep is None else _left_out(sweep)
    print(f"  runs      {planned.models:,}{' (' + ', '.join(left_out) + ')' if left_out else ''}")
    if missing.models != planned.models:
        print(f"  new       {missing.models:,}, the store has the others")
    if planned.axes:
        print("  axes      " + ", ".join(f"{a} = {name}" for a, name in planned.axes.items()))
    print_data(shown_data(planned, planned.paths))
    for job in _scoring(missing):
        print(f"  scoring   {scoring_line(job)}")
    if not missing.cohorts:
        print("  to train  nothing that a store does not have planned already")
        return
    points = sum(c.models * c.checkpoints for c in missing.cohorts)
    tasks = len(list(missing.tasks()))
    size = _footprint(planned, missing)
    print(f"  cohorts   {len(missing.cohorts):,}, in {plural(tasks, 'task')}")
    print(f"  records   {points:,} model checkpoints in {plural(cost.shards, 'shard')}")
    print(f"  bytes     {human_bytes(cost.bytes)}, before compression")
    print(
        f"  files     {size.files:,} in {size.folders:,} folders; once trained,"
        f" {size.trained_files:,} in {size.trained_folders:,} folders"
    )
    how = "measured" if args.calibrate > 0 else "guessed"
    print(
        f"  time      about {duration(cost.seconds)} with {plural(cost.workers, 'worker')}"
        f" ({how}; {duration(cost.core_seconds)} of one core)"
    )
    for note in _one_by_one(missing):
        print(f"  note      {note}")
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


def _one_by_one(plan: Plan) -> list[str]:
    """Return a sentence for each network of a user's own whose models cannot be stacked."""
    found = {}
    for cohort in plan.cohorts:
        for op in cohort.architecture["ops"]:
            if "one_by_one" in op:
                found[cohort.key["architecture"]] = op["one_by_one"]
    return [
        f"{name}: models are trained one by one, since torch.func.vmap cannot take it: {why}"
        for name, why in found.items()
    ]


def _scoring(plan: Plan) -> tuple[ScoringJob, ...]:
    """Return what the diets of a plan need before training."""
    from zoo.stages.score import OWN, jobs_of

    return jobs_of(plan, OWN)


def _left_out(sweep: Sweep) -> list[str]:
    counts = {
        "excluded": sweep.excluded,
        "equivalent ones dropped": sweep.collapsed,
        "random diets added": sweep.baselines,
    }
    return [f"{n:,} {what}" for what, n in counts.items() if n]


def run(args: argparse.Namespace) -> int:
    """Train a sweep into a store."""
    from zoo.launch.local import run as train
    from zoo.launch.progress import reporter

    if args.dry_run:
        return _dry_run(args)
    progress = None if args.quiet else reporter(sys.stderr)
    summary = train(
        _read(args),
        args.out,
        workers=args.workers,
        backend=args.backend,
        device=args.device,
        progress=progress,
        limit=args.limit,
        paths=given_data(args),
    )
    if args.json:
        print_json(summary.to_json())
    else:
        _print_summary(summary)
    return 0 if summary.complete else 2


def _read(args: argparse.Namespace) -> Sweep | str:
    """Return the sweep, or the path of the store to finish; say how a sweep differs from a store's.

    What is wrong with the arguments is left for :func:`zoo.launch.local.run` to say.
    """
    from zoo.spec import load_sweep
    from zoo.store import is_store

    if is_store(args.sweep):
        return str(args.sweep)
    check_size(args.sweep, yes=args.yes)
    sweep = load_sweep(args.sweep)
    if args.out and is_store(args.out):
        tell_change(sweep, args.out)
    return sweep


def tell_change(sweep: Sweep, store: str) -> None:
    """Print to standard error how a sweep differs from that of a store, if it does."""
    from zoo.launch.difference import sweep_change

    change = sweep_change(sweep, store)
    if change is not None:
        lines = "".join(f"\n  {line}" for line in change.lines())
        print(f"The sweep differs from that of {store}:{lines}", file=sys.stderr, flush=True)


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
        print("Nothing to do: every model is done.")
    print(f"{summary.path}: {plural(summary.models, 'model')} ({counts})")
    for failed in summary.failures:
        print(
            f"  failed: task {failed.task.index} of {failed.task.cohort}"
            f" ({plural(failed.task.models, 'model')}): {failed.reason}"
        )
    if summary.stopped:
        print("Stopped before the end; the same command resumes.")
    elif not summary.complete:
        print("Not complete; the same command retries what is missing.")


def _dry_run(args: argparse.Namespace) -> int:
    """Say what ``zoo run`` would do, and write nothing."""
    from zoo.store import is_store, task_states

    if not args.out and not is_store(args.sweep):
        problem = Problem("out", None, "is missing", "the path of a store", "give --out PATH.zarr")
        raise SpecError([problem], "run")
    _, planned, missing = _planned(args)
    target = absolute(args.out or args.sweep)
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
        "workers": min(_workers(args, planned), len(opened) + tasks),
    }
    if args.json:
        print_json(facts)
        return 0
    print(f"Would {action if action != 'nothing' else 'do nothing with'} {target}:")
    print(f"  runs   {planned.models:,}, of them {missing.models:,} new")
    print(f"  tasks  {facts['tasks_to_do']:,} to do, {facts['tasks_done']:,} done")
    print(f"  with   {plural(facts['workers'], 'worker')}")
    return 0


def _check(args: argparse.Namespace) -> int:
    """Read sweep files and say all that is wrong with them."""
    from zoo.spec import load_sweep

    results: list[dict[str, Any]] = []
    for path in args.sweeps:
        try:
            check_size(path, yes=args.yes)
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
