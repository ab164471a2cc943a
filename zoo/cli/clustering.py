"""Verbs for a cluster: ``zoo submit``, ``extend``, ``retry``, ``cancel``, ``hold``, ``release``."""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.show import human_bytes, plural, print_json
from zoo.errors import Problem, SpecError

if TYPE_CHECKING:
    from zoo.launch.cluster import ClusterStatus
    from zoo.launch.drafting import Prepared
    from zoo.launch.profile import ClusterProfile
    from zoo.launch.submissions import Submission

__all__ = ["add_verbs", "cancel", "extend", "hold", "print_jobs", "release", "retry", "submit"]

_EXAMPLES = """\
Returns when the scheduler has the jobs. Safe to repeat: tasks that are done, or that sit in the
queue already, are not submitted again. `zoo status STORE` shows how far they are.

examples:
  zoo submit sweeps/quickstart.toml --out q.zarr --cluster gpu --dry-run
  zoo submit sweeps/quickstart.toml --out q.zarr --cluster gpu
  zoo submit q.zarr --cluster slurm/mine.toml             # go on with a store
"""
_RETRY = """\
Without a choice: all three. What is done, or in the queue, is left alone.

examples:
  zoo retry q.zarr --failed --mem x2 --time x2
  zoo retry q.zarr --stale
  zoo retry q.zarr --failed --task mlp-0123456789/4
"""


def add_verbs(verbs: Any, verb: Callable[..., Any], json: Callable[..., None]) -> None:
    """Add the verbs of this module."""
    place = "zoo.cli.clustering:"
    for name, short in (
        ("submit", "submit a sweep, or what is left of a store, to a SLURM cluster"),
        ("extend", "add the runs of a sweep that a store lacks, and submit those"),
    ):
        one = verb(verbs, name, place + name, short, _EXAMPLES if name == "submit" else "")
        one.add_argument("sweep", metavar="SWEEP", help="a sweep file (.toml), or a store")
        one.add_argument("--out", metavar="STORE", help="the store")
        one.add_argument("--cluster", required=True, metavar="PROFILE", help=_PROFILE)
        one.add_argument("--backend", metavar="NAME", help="of new cohorts (default: auto)")
        one.add_argument(
            "--then", action="append", default=[], metavar="'VERB ...'",
            help="run this verb on the store when training has ended (--then landscape"
            " --then 'label --dry-run'); may be given again, and runs in order",
        )  # fmt: skip
        _common(one)
        json(one)
    one = verb(verbs, "retry", place + "retry", "submit again what did not get done", _RETRY)
    one.add_argument("store", metavar="STORE", help="a zoo (STORE.zarr)")
    one.add_argument("--failed", action="store_true", help="tasks that were given up")
    one.add_argument("--missing", action="store_true", help="tasks that never began")
    one.add_argument("--stale", action="store_true", help="tasks that began, and nobody is at them")
    one.add_argument("--task", metavar="TASK", help="this one only (COHORT/INDEX)")
    one.add_argument("--mem", type=_factor, default=1.0, metavar="xN", help="more memory: x2")
    one.add_argument("--time", type=_factor, default=1.0, metavar="xN", help="more time: x2")
    one.add_argument("--cluster", metavar="PROFILE", help="default: that of the last submission")
    _common(one)
    json(one)
    for name, short in (
        ("cancel", "take a store's jobs out of the queue; everything committed stays"),
        ("hold", "keep a store's waiting jobs from starting"),
        ("release", "let held jobs start"),
    ):
        one = verb(verbs, name, place + name, short)
        one.add_argument("store", metavar="STORE", help="a zoo (STORE.zarr)")
        one.add_argument("--submission", type=int, metavar="N", help="this one only")
        one.add_argument("--dry-run", action="store_true", help="say which, and end")
        json(one)


_PROFILE = "the name of a file in slurm/, or its path (docs/slurm.md)"


def _common(one: argparse.ArgumentParser) -> None:
    one.add_argument("--limit", type=int, metavar="N", help="at most N array elements")
    one.add_argument(
        "--calibrate", type=float, default=8.0, metavar="S",
        help="measure for about so many seconds to size the elements (default 8; 0 = guess)",
    )  # fmt: skip
    one.add_argument(
        "--dry-run", action="store_true", help="print the script and the cost, and end"
    )
    one.add_argument("--test-only", action="store_true", help="ask the scheduler, submit nothing")


def _factor(text: str) -> float:
    try:
        value = float(text.removeprefix("x"))
    except ValueError:
        value = 0.0
    if not 0 < value < 1000:
        msg = f"{text!r} is not a factor like x2"
        raise argparse.ArgumentTypeError(msg)
    return value


# -- submit, extend, retry ----------------------------------------------------------------


def submit(args: argparse.Namespace) -> int:
    """Submit a sweep, or what is left of a store."""
    from zoo.launch.profile import load_profile

    return _submit(args, load_profile(args.cluster), {})


def extend(args: argparse.Namespace) -> int:
    """Submit what a store lacks of a sweep."""
    from zoo.launch.profile import load_profile
    from zoo.store import is_store

    if args.out is None or not is_store(args.out):
        problem = Problem("out", args.out, "is no store", "a store to extend", "or `zoo submit`")
        raise SpecError([problem], "extend")
    return _submit(args, load_profile(args.cluster), {})


def retry(args: argparse.Namespace) -> int:
    """Submit again what did not get done."""
    from zoo.launch.profile import load_profile
    from zoo.launch.submissions import submissions
    from zoo.launch.submit import SELECTIONS, check_selection

    known = submissions(args.store)
    if args.cluster is None and not known:
        message = "the store was never submitted"
        fix = "give --cluster PROFILE, or use `zoo submit`"
        raise SpecError([Problem("cluster", None, message, fix=fix)], "retry")
    profile = load_profile(args.cluster) if args.cluster else known[-1].profile
    names = [name for name in SELECTIONS if getattr(args, name)] or list(SELECTIONS)
    args.sweep, args.out, args.backend, args.then = args.store, None, None, []
    return _submit(
        args,
        profile.scaled(memory=args.mem, time=args.time),
        {"wanted": check_selection(names), "only": _task_key(args.task)},
    )


def _task_key(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    cohort, _, index = text.rpartition("/")
    if not cohort or not index.isdecimal():
        problem = Problem("task", text, "is no task", "COHORT/INDEX, as `zoo status --tasks` shows")
        raise SpecError([problem], "task")
    return cohort, int(index)


def _submit(args: argparse.Namespace, profile: ClusterProfile, more: dict[str, Any]) -> int:
    from zoo.errors import SchedulerError
    from zoo.launch.drafting import prepare
    from zoo.launch.slurm_client import slurm_config
    from zoo.launch.submit import one_at_a_time

    dry = args.dry_run or args.test_only
    _check_stages(args.then)
    try:
        max_array = slurm_config().max_array
    except SchedulerError:
        if not args.dry_run or args.test_only:
            raise
        max_array = profile.max_array or 1001
    options = {
        **more, "max_array": max_array, "limit": args.limit, "calibrate_s": args.calibrate,
        "backend": args.backend, "create": not dry,
    }  # fmt: skip
    if dry:
        return _show(args, prepare(args.sweep, args.out, profile, **options))
    _check_source(args)  # before there is a folder for the jobs
    store = Path(args.out or args.sweep)
    with one_at_a_time(store):
        ready = prepare(args.sweep, args.out, profile, **options)
        if ready.status is not None and ready.status.trouble:
            raise SchedulerError(ready.status.trouble)
        done = _hand_in(args, ready)
    _print_submitted(args, ready, done)
    return 0


def _check_source(args: argparse.Namespace) -> None:
    from zoo.spec import load_sweep
    from zoo.store import is_store

    if is_store(args.sweep):
        return
    load_sweep(args.sweep)
    if args.out is None:
        problem = Problem("out", None, "is missing", "the path of a store", "give --out PATH.zarr")
        raise SpecError([problem], "submit")


def _check_stages(texts: list[str]) -> None:
    """Make sure that each verb and its options are understood, before anything is submitted."""
    from zoo.cli.parser import build_parser

    for text in texts:
        words = shlex.split(text) or [""]
        try:
            with contextlib.redirect_stderr(io.StringIO()) as said:
                build_parser().parse_args([words[0], "STORE", *words[1:]])
        except SystemExit:
            why = said.getvalue().strip().splitlines()[-1:] or ["is no verb with its options"]
            raise SpecError([Problem("--then", text, why[0])], "submit") from None


def _hand_in(args: argparse.Namespace, ready: Prepared) -> list[Submission]:
    from zoo.launch.diets import unscored
    from zoo.launch.submit import hand_in, hand_in_stage
    from zoo.store import read_plan

    done: list[Submission] = []
    if ready.draft.elements:
        first = None
        if unscored(ready.path, read_plan(ready.path)):  # training waits for its diets
            done.append(hand_in_stage(ready.path, ready.draft.profile, ["score"], []))
            first = "afterok:" + ":".join(str(job) for job in done[0].jobs.values())
        done.append(hand_in(ready.path, ready.draft, dependency=first))
    for text in args.then:
        after = [job for one in done[-1:] for job in one.jobs.values()]
        done.append(hand_in_stage(ready.path, ready.draft.profile, shlex.split(text), after))
    return done


def _print_submitted(args: argparse.Namespace, ready: Prepared, done: list[Submission]) -> None:
    draft = ready.draft
    if args.json:
        jobs = [
            {"submission": s.number, "stage": s.stage.get("name"), "jobs": list(s.jobs.values())}
            for s in done
        ]
        print_json({**draft.to_json(), "store": str(ready.path), "submitted": jobs})
        return
    if not draft.elements:
        print(f"Nothing to submit for {ready.path}: {_words(draft.skipped)}")
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
            print(f"  left out  {_words(draft.skipped)}")
        _print_cost(ready)
    if done:
        print(f"`zoo status {ready.path} --watch` shows how far they are.")


def _words(counts: Any) -> str:
    return ", ".join(f"{n:,} {word}" for word, n in counts.items()) or "no tasks"


def _print_cost(ready: Prepared) -> None:
    from zoo.launch.progress import duration

    draft, profile = ready.draft, ready.draft.profile
    workers = plural(profile.processes, "worker")
    print(
        f"  time      up to {duration(draft.longest() * 3600)} an element with {workers},"
        f" limit {duration(profile.limit_s)}"
    )
    print(f"  cost      {draft.core_hours:.3g} core-hours, {draft.gpu_hours:.3g} GPU-hours")
    print(f"  bytes     {human_bytes(ready.cost.bytes)}, before compression")
    if draft.longest() * 3600 > profile.limit_s:
        print(
            "  note      the longest element needs more than one turn: it saves, and queues again"
        )


def _show(args: argparse.Namespace, ready: Prepared) -> int:
    """Print what would be submitted, and what the scheduler says to it."""
    from zoo.launch.slurm import sbatch_text, test_only
    from zoo.launch.submissions import record_folder

    draft = ready.draft
    folder = record_folder(ready.path).absolute()
    sizes = [min(draft.chunk, len(draft.elements) - i * draft.chunk) for i in range(draft.arrays)]
    texts = [
        sbatch_text(
            draft.profile,
            name=f"zoo-{ready.path.stem}-dry.{array}",
            folder=folder / "NEXT" / f"array-{array}",
            elements=size,
        )
        for array, size in enumerate(sizes)
    ]
    answers = [test_only(text) for text in texts] if args.test_only else []
    if args.json:
        print_json({**draft.to_json(), "sbatch": texts, "scheduler": answers})
        return 0
    print(
        f"Would submit {plural(draft.tasks, 'task')} ({plural(draft.models, 'model')}) as"
        f" {plural(len(draft.elements), 'array element')} in {plural(draft.arrays, 'array')}"
    )
    if draft.skipped:
        print(f"  left out  {_words(draft.skipped)}")
    if draft.elements:
        _print_cost(ready)
    for answer in answers:
        print(f"  scheduler {answer}")
    for text in texts[:1] if not args.test_only else []:
        print()
        print(text.strip())
    return 0


# -- cancel, hold, release ----------------------------------------------------------------


def cancel(args: argparse.Namespace) -> int:
    """Take a store's jobs out of the queue."""
    return _control(args, ["scancel"], "cancelled", lambda line: bool(line.live))


def hold(args: argparse.Namespace) -> int:
    """Keep a store's waiting jobs from starting."""
    return _control(
        args, ["scontrol", "hold"], "held", lambda line: line.state == "PENDING" and not line.held
    )


def release(args: argparse.Namespace) -> int:
    """Let held jobs start."""
    return _control(args, ["scontrol", "release"], "released", lambda line: line.held)


def _control(
    args: argparse.Namespace, command: list[str], word: str, wanted: Callable[[Any], bool]
) -> int:
    from zoo.errors import SchedulerError
    from zoo.launch.cluster import cluster_status
    from zoo.launch.slurm_client import ask

    status = cluster_status(args.store)
    if status.trouble:
        raise SchedulerError(status.trouble)
    jobs = [
        line.job
        for line in status.elements
        if wanted(line) and line.job and args.submission in (None, line.submission)
    ]
    if not args.dry_run:
        for start in range(0, len(jobs), 200):
            ask([*command, *jobs[start : start + 200]])
    if args.json:
        print_json({"action": word, "jobs": jobs, "dry_run": args.dry_run})
    else:
        would = "would be " if args.dry_run else ""
        print(f"{plural(len(jobs), 'array element')} {would}{word}")
    return 0


def print_jobs(status: ClusterStatus) -> None:
    """Print the scheduler's view of a store; nothing where it was never submitted."""
    from zoo.launch.cluster import by_number

    if status.trouble:
        print(f"  scheduler    not to be asked: {status.trouble}")
    for number, lines in by_number(status.elements).items():
        words: dict[str, int] = {}
        for line in lines:
            word = "HELD" if line.held else line.state
            words[word] = words.get(word, 0) + 1
        stage = f" ({lines[0].stage})" if lines[0].stage else ""
        reasons = sorted({e.reason for e in lines if e.state == "PENDING" and e.reason})
        why = f"; waiting for {', '.join(reasons)}" if reasons else ""
        print(f"  submission   {number}{stage}: {_words(words)}{why}")
