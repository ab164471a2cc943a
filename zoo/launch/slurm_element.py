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
from collections.abc import Sequence
from typing import Any

from zoo.errors import TrainError
from zoo.launch.attempts import Attempts
from zoo.launch.executor import Command, Step
from zoo.launch.gpus import gpu_seats
from zoo.launch.progress import line_reporter
from zoo.launch.queue import ATTEMPTS, Failed, Queue
from zoo.launch.submissions import Submission, read_submission
from zoo.launch.workers import Local
from zoo.plugins import reload_recorded
from zoo.stages import Part, Work, open_stage
from zoo.stages.train import Training, task_key
from zoo.store import data_paths, read_plan, task_states
from zoo.store.states import task_progress

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
        reload_recorded(submission.plugins)
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
    training = Training(store, read_plan(store), {"save_s": profile.save_s}, data_paths(store))
    attempts = Attempts(submission.folder)
    started: set[Part] = set()

    def choose(parts: Sequence[Part]) -> list[Part]:
        found = _open_parts(submission, number, training, attempts, parts)
        _LOG.info("element %d as job %s: %d tasks to do", number, job_id(), len(found))
        return found

    def begin(part: Part) -> None:
        task = training.task(part.key)
        started.add(part)
        attempts.begin(task, task_progress(store, task))
        _LOG.info("task %d of %s begins", task.index, task.cohort)

    ended = Local(
        # always a process of its own: a signal to save is for a worker to answer
        workers=max(profile.processes, 1),
        seats=gpu_seats(),
        save_signal=signal.SIGUSR2,
        choose=choose,
        on_start=begin,
        on_change=_Lines(),
        on_failure=lambda failed: _log_failure(training, failed),
    ).carry_out(Step(training))
    _LOG.info("%d tasks done, %d given up", len(ended.done), len(ended.failed))
    if ended.stopped:
        for part in started - {*ended.done, *(f.task for f in ended.failed)}:
            attempts.end(training.task(part.key))
        if ended.saved:
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


def _open_parts(
    submission: Submission,
    number: int,
    training: Training,
    attempts: Attempts,
    parts: Sequence[Part],
) -> list[Part]:
    """Return what is left of an element; give up what got nowhere in so many attempts."""
    open_parts = {part.key: part for part in parts}
    mine = set(submission.elements[number])
    found = []
    for state in task_states(submission.store):
        key = (state.task.cohort, state.task.index)
        part = open_parts.get(task_key(state.task))
        if key not in mine or part is None:
            continue
        if state.failed and state.failures > submission.failures.get(key, 0):
            continue  # given up before, in this very submission
        idle = attempts.idle(state.task, task_progress(submission.store, state.task))
        if len(idle) < ATTEMPTS:
            found.append(part)
            continue
        places = ", ".join(f"job {line['job']} on {line['host']}" for line in idle)
        reason = f"{len(idle)} attempts died without any progress ({places})"
        words = "Killed from outside, so there is no traceback. The end of the last log:\n"
        failed = Failed(part, reason, words + _last_log(submission, number))
        _log_failure(training, failed)
        training.give_up(part.key, failed.reason, failed.traceback)
    return found


def _last_log(submission: Submission, number: int) -> str:
    logs = submission.logs(number)
    with contextlib.suppress(OSError):
        if logs is not None:
            return logs[1].read_text(encoding="utf-8", errors="replace")[-4000:]
    return ""


def _log_failure(training: Training, failed: Failed[Part]) -> None:
    task = training.task(failed.task.key)
    _LOG.error("task %d of %s: %s", task.index, task.cohort, failed.reason)


def _stage(submission: Submission) -> None:
    """Carry out a stage, or a verb of the command line.

    Raises:
        TrainError: it did not come to its end.
    """
    about, store = submission.stage, submission.store
    does: Work | Command
    if "words" in about:
        does = Command(tuple(about["words"]), tuple(about["program"]))
        _LOG.info("zoo %s", " ".join(does.words))
    else:
        does = open_stage(about["stage"], store, about["settings"], data_paths(store))
        _LOG.info("stage %s", does.name)
    ended = Local(progress=line_reporter(sys.stderr)).carry_out(Step(does))
    if ended.failed:
        reasons = "; ".join(f"{f.task.key}: {f.reason}" for f in ended.failed)
        msg = f"parts of the stage were given up: {reasons}"
        raise TrainError(msg)
    if ended.stopped:
        msg = "told to end (SIGTERM) before the stage was done; the parts that are done are kept"
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
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False
        )
        answer = done.stderr.strip() or "accepted"
    except (OSError, subprocess.SubprocessError) as error:  # in a container, mostly
        answer = f"{error}; `zoo retry` submits what is left"
    _LOG.info("saved; requeue of %s: %s", job, answer)
    sys.exit(1)  # without a result; where SLURM refused, the job counts as failed


class _Lines:
    """Logs a line about the progress now and then."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, queue: Queue[Part]) -> None:
        if time.monotonic() - self.last >= _LINE_EVERY_S:
            self.last = time.monotonic()
            done, left = len(queue.done), queue.waiting
            _LOG.info("%d tasks done, %d waiting, %d elsewhere", done, left, queue.elsewhere)
