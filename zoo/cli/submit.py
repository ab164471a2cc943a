"""Verbs for a cluster: ``zoo submit``, ``retry``, ``cancel``, ``hold``, ``release``."""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments import RootParser
from zoo.cli.data_option import add_data_option, given_data
from zoo.cli.run import tell_change
from zoo.cli.show import plural, print_json
from zoo.cli.size import check_size
from zoo.cli.submit_show import show_dry_run, show_submitted, word_counts
from zoo.errors import Problem, SpecError
from zoo.paths import absolute

if TYPE_CHECKING:
    from zoo.launch.cluster import ClusterStatus
    from zoo.launch.profile import ClusterProfile
    from zoo.launch.submit_steps import StageWish

__all__ = ["add_verbs", "cancel", "hold", "print_jobs", "release", "retry", "submit"]

_EXAMPLES = """\
Returns when the scheduler has the jobs. Safe to repeat: tasks that are done, or that sit in the
queue already, are not submitted again. `zoo status STORE` shows how far they are.

examples:
  zoo submit sweeps/quickstart.toml --out q.zarr --cluster gpu --dry-run
  zoo submit sweeps/quickstart.toml --out q.zarr --cluster gpu
  zoo submit q.zarr --cluster slurm/mine.toml             # whatever a store still lacks
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
    place = "zoo.cli.submit:"
    one = verb(
        verbs, "submit", place + "submit",
        "submit a sweep, or what is left of a store, to a SLURM cluster", _EXAMPLES,
    )  # fmt: skip
    one.add_argument("sweep", metavar="SWEEP", help="a sweep file (.toml), or a store")
    one.add_argument(
        "--out", metavar="STORE", help="the store: made, or extended by what it lacks of the sweep"
    )
    one.add_argument("--cluster", required=True, metavar="PROFILE", help=_PROFILE)
    one.add_argument("--backend", metavar="NAME", help="of new cohorts (default: auto)")
    one.add_argument(
        "--then", action="append", default=[], metavar="'VERB ...'",
        help="run this verb on the store when training has ended (--then landscape"
        " --then 'label --dry-run'); may be given again, and runs in order",
    )  # fmt: skip
    one.add_argument("--yes", "-y", action="store_true", help="a sweep of very many runs is meant")
    _common(one)
    json(one)
    one = verb(verbs, "retry", place + "retry", "submit again what did not get done", _RETRY)
    one.add_argument("store", metavar="STORE", help="a zoo (STORE.zarr)")
    one.add_argument("--failed", action="store_true", help="tasks that were given up")
    one.add_argument("--missing", action="store_true", help="tasks that never began")
    one.add_argument(
        "--stale", action="store_true", help="tasks that began, and no process is working on"
    )
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


#: How a job starts the command line: what follows ``python``.
_PROGRAM = ("-P", "-m", "zoo.cli")
_PROFILE = "the name of a file in slurm/, or its path (docs/slurm.md)"


def _common(one: argparse.ArgumentParser) -> None:
    add_data_option(one)
    one.add_argument("--limit", type=int, metavar="N", help="at most N array elements")
    one.add_argument(
        "--calibrate", type=float, default=8.0, metavar="S",
        help="measure for about so many seconds to size the elements (default 8; 0 = guess)",
    )  # fmt: skip
    one.add_argument(
        "--dry-run", action="store_true", help="print every script and the cost, submit nothing"
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
    # a stage's own profile asks for what the stage needs, not for what training does
    trained = [one.profile for one in known if not one.stage] or [one.profile for one in known]
    profile = load_profile(args.cluster) if args.cluster else trained[-1]
    names = [name for name in SELECTIONS if getattr(args, name)] or list(SELECTIONS)
    args.sweep, args.out, args.backend, args.then, args.yes = args.store, None, None, [], True
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
    from zoo.launch.drafting import Wish, drafted
    from zoo.launch.slurm import check_submitit
    from zoo.launch.slurm_client import slurm_config
    from zoo.launch.submit import one_at_a_time
    from zoo.launch.submit_steps import hand_in_steps, plan_steps

    dry = args.dry_run or args.test_only
    profile = _with_data(profile, given_data(args))
    wishes = _stage_wishes(args.then, args.root)
    _check_source(args)  # before the scheduler is asked, and before there is a folder for the jobs
    if not dry:
        check_submitit()
    try:
        max_array = slurm_config().max_array
    except SchedulerError:
        if not args.dry_run or args.test_only:
            raise
        max_array = profile.max_array or 1001
    wish = Wish(
        **more, max_array=max_array, limit=args.limit, calibrate_s=args.calibrate,
        backend=args.backend, create=not dry, paths=given_data(args), notice=_notice,
    )  # fmt: skip
    if dry:
        ready = drafted(args.sweep, args.out, profile, wish)
        return show_dry_run(args, ready, plan_steps(ready, wishes))
    store = absolute(args.out or args.sweep)
    with one_at_a_time(store):
        ready = drafted(args.sweep, args.out, profile, wish)
        if ready.status is not None and ready.status.trouble:
            raise SchedulerError(ready.status.trouble)
        done = hand_in_steps(ready, plan_steps(ready, wishes))
    show_submitted(args, ready, done)
    return 0


def _with_data(profile: ClusterProfile, given: Mapping[str, str]) -> ClusterProfile:
    """Return a profile whose jobs find data where the option says: the variables go into them."""
    from zoo.data.places import variable
    from zoo.launch.profile import ClusterProfile

    variables = {variable(name): str(absolute(path)) for name, path in given.items()}
    raw = {**profile.to_json(), "environment": {**profile.environment, **variables}}
    return ClusterProfile.from_raw(raw, name=profile.name, source="--data") if given else profile


def _notice(text: str) -> None:
    print(f"zoo: {text}", file=sys.stderr, flush=True)


def _check_source(args: argparse.Namespace) -> None:
    from zoo.launch.batch_script import check_folder
    from zoo.spec import load_sweep
    from zoo.store import is_store

    check_folder(absolute(args.out or args.sweep).resolve())
    if is_store(args.sweep):
        return
    check_size(args.sweep, yes=args.yes)
    sweep = load_sweep(args.sweep)
    if args.out and is_store(args.out):
        tell_change(sweep, args.out)
    if args.out is None:
        problem = Problem("out", None, "is missing", "the path of a store", "give --out PATH.zarr")
        raise SpecError([problem], "submit")


def _stage_wishes(texts: list[str], root: RootParser) -> list[StageWish]:
    """Return the stages; each verb and its options are understood before anything is submitted."""
    from zoo.launch.submit_steps import StageWish

    found = []
    for text in texts:
        try:
            words = shlex.split(text) or [""]
        except ValueError as error:
            raise SpecError(
                [Problem("--then", text, f"cannot be read: {error}")], "submit"
            ) from None
        if not text.isprintable():
            message = "has a line break or a control character"
            raise SpecError([Problem("--then", text, message)], "submit")
        try:
            with contextlib.redirect_stderr(io.StringIO()) as said:
                parsed = root.parse_args([words[0], "STORE", *words[1:]])
        except SystemExit:
            why = said.getvalue().strip().splitlines()[-1:] or ["is no verb with its options"]
            raise SpecError([Problem("--then", text, why[0])], "submit") from None
        found.append(StageWish(tuple(words), parallel="workers" in parsed, program=_PROGRAM))
    return found


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
        print(f"  scheduler    cannot be asked: {status.trouble}")
    for number, lines in by_number(status.elements).items():
        words: dict[str, int] = {}
        for line in lines:
            word = "HELD" if line.held else line.state
            words[word] = words.get(word, 0) + 1
        stage = f" ({lines[0].stage})" if lines[0].stage else ""
        reasons = sorted({e.reason for e in lines if e.state == "PENDING" and e.reason})
        why = f"; waiting for {', '.join(reasons)}" if reasons else ""
        print(f"  submission   {number}{stage}: {word_counts(words)}{why}")
