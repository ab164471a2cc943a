"""What one array element does: its tasks, with the workers of ``zoo run``, until all are sealed.

Nothing here is relied on for progress: that is in the store, and a signal is no more than a hint.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from zoo.errors import StoreError, TrainError
from zoo.launch.attempts import Attempts
from zoo.launch.gpus import gpu_seats
from zoo.launch.pool import Pool
from zoo.launch.schedule import ATTEMPTS, Failed, Schedule
from zoo.launch.submissions import Submission, read_submission
from zoo.spec import Sweep
from zoo.store import TaskWriter, claim_task, read_plan, read_sweep, task_states
from zoo.store.states import task_progress
from zoo.train.plan import Plan, Task

__all__ = ["Element", "work"]

_LOG = logging.getLogger("zoo.slurm")
#: Seconds between two lines about the progress.
_LINE_EVERY_S = 60.0


class Element:
    """The function that submitit pickles: a reference to this class, and a folder's name.

    Args:
        folder: of the submission.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, number: int) -> None:
        """Do element ``number``.

        Raises:
            TrainError: tasks are left, or were given up; the job then counts as failed.
        """
        logging.basicConfig(
            level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(message)s", force=True
        )
        submission = read_submission(self.folder)
        os.environ["ZOO_JOB"] = job_id()
        os.environ["ZOO_LEASE_S"] = str(submission.profile.lease_s)
        _remove_leftovers(submission, number)
        if submission.stage:
            _stage(submission)
        elif work(submission, number):
            _requeue()

    def checkpoint(self, number: int) -> Any:
        """Return the same work again, for submitit, where a signal comes before ``work`` does."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number)


def job_id() -> str:
    """Return what SLURM calls this element."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    if job:
        return f"{job}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID", "")


def work(submission: Submission, number: int) -> bool:
    """Train the tasks of an element; return whether it was told to save and come again.

    Raises:
        TrainError: tasks are left, or were given up.
        StoreError: the store cannot be read.
    """
    store, profile = submission.store, submission.profile
    plan = read_plan(store)
    paths = Sweep.from_toml(read_sweep(store), source=f"{store} (sweep)").paths
    attempts = Attempts(submission.folder)
    schedule = Schedule(_open_tasks(submission, number, plan, attempts))
    _LOG.info("element %d as job %s: %d tasks to do", number, job_id(), len(schedule.pending))
    started: set[Task] = set()

    def begin(task: Task) -> None:
        started.add(task)
        attempts.begin(task, task_progress(store, task))
        _LOG.info("task %d of %s begins", task.index, task.cohort)

    pool = Pool(
        store=store,
        schedule=schedule,
        workers=min(profile.processes, max(len(schedule.pending), 1)),
        order={"save_s": profile.save_s},
        paths=paths,
        seats=gpu_seats(),
        save_signal=signal.SIGUSR2,
        on_start=begin,
        on_change=_Lines(schedule),
        on_failure=lambda failed: _give_up(store, plan, failed),
    )
    ended = not schedule.open or pool.run()
    _LOG.info("%d tasks done, %d given up", len(schedule.done), len(schedule.failed))
    if not ended:
        for task in started - {*schedule.done, *(f.task for f in schedule.failed)}:
            attempts.end(task)
        if pool.saved:
            return True
        msg = "told to end (SIGTERM) before its tasks were done; everything committed is kept"
        raise TrainError(msg)
    _check_end(submission, number)
    return False


def _check_end(submission: Submission, number: int) -> None:
    mine = set(submission.elements[number])
    states = [s for s in task_states(submission.store) if (s.task.cohort, s.task.index) in mine]
    left = [s for s in states if not s.sealed]
    if left:
        names = ", ".join(f"{s.task.index} of {s.task.cohort}" for s in left[:5])
        msg = f"{len(left)} of {len(states)} tasks were given up ({names}); `zoo errors` says why"
        raise TrainError(msg)


def _open_tasks(submission: Submission, number: int, plan: Plan, attempts: Attempts) -> list[Task]:
    """Return what is left of an element; give up what got nowhere in so many attempts."""
    mine = set(submission.elements[number])
    found = []
    for state in task_states(submission.store):
        key = (state.task.cohort, state.task.index)
        if key not in mine or state.sealed:
            continue
        if state.failed and state.updated >= submission.created:
            continue  # given up before, in this very submission
        idle = attempts.idle(state.task, task_progress(submission.store, state.task))
        if len(idle) < ATTEMPTS:
            found.append(state.task)
            continue
        places = ", ".join(f"job {line['job']} on {line['host']}" for line in idle)
        reason = f"{len(idle)} attempts died without any progress ({places})"
        words = "Killed from outside, so there is no traceback. The end of the last log:\n"
        _give_up(
            submission.store,
            plan,
            Failed(state.task, reason, words + _last_log(submission, number)),
        )
    return found


def _last_log(submission: Submission, number: int) -> str:
    logs = submission.logs(number)
    with contextlib.suppress(OSError):
        if logs is not None:
            return logs[1].read_text(encoding="utf-8", errors="replace")[-4000:]
    return ""


def _give_up(store: Path, plan: Plan, failed: Failed[Task]) -> None:
    """Record why a task was given up, unless it is somebody else's by now or the disk refuses."""
    _LOG.error("task %d of %s: %s", failed.task.index, failed.task.cohort, failed.reason)
    try:
        with claim_task(store, failed.task) as owned:
            if owned:
                writer = TaskWriter(store, plan.cohort(failed.task.cohort), failed.task)
                writer.fail(failed.reason, failed.traceback)
    except StoreError as error:
        _LOG.error("%s", error)


def _stage(submission: Submission) -> None:
    """Run a verb of the command line, in a process of its own; a signal ends both."""
    words = [str(word) for word in submission.stage["words"]]
    _LOG.info("zoo %s", " ".join(words))
    code = subprocess.run([sys.executable, "-P", "-m", "zoo.cli", *words], check=False).returncode
    if code:
        msg = f"`zoo {' '.join(words)}` ended with exit code {code}; its log says why"
        raise TrainError(msg)


def _remove_leftovers(submission: Submission, number: int) -> None:
    """Delete what a kill left of submitit's files: with it, submitit refuses to write its own."""
    array, _ = submission.place(number)
    for path in submission.array_folder(array).glob(f"{job_id()}_*.save_tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def _requeue() -> None:
    """Ask SLURM to start this element again, and end; `zoo retry --stale` does where it cannot."""
    job = job_id()
    done = subprocess.run(
        ["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False
    )
    _LOG.info("saved; requeue of %s: %s", job, done.stderr.strip() or "accepted")
    sys.exit(1)  # without a result; where SLURM refused, the job counts as failed


class _Lines:
    """Logs a line about the progress now and then."""

    def __init__(self, schedule: Schedule[Task]) -> None:
        self.schedule = schedule
        self.last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self.last >= _LINE_EVERY_S:
            self.last = time.monotonic()
            done, left = len(self.schedule.done), self.schedule.waiting
            _LOG.info(
                "%d tasks done, %d waiting, %d elsewhere", done, left, self.schedule.elsewhere
            )
