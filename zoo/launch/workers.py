"""The executor of this machine: worker processes, or this very process, work through a stage.

``zoo run``, every other stage and each job of a cluster come here: there is one loop, one way to
count attempts and one place where a failure is written down.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from zoo.errors import TrainError
from zoo.launch.executor import Command, Step
from zoo.launch.pool import WORKER, WorkerPool
from zoo.launch.progress import Reporter, RunProgress
from zoo.launch.queue import Failed, Queue
from zoo.provenance import usable_cores
from zoo.stages import BUSY, Part, Talk, Work
from zoo.stages.base import ALMOST

__all__ = ["Ended", "Local"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step ended.

    Args:
        parts: every part of the stage, as it was before.
        open: how many of them were not done.
        done: parts that this step brought to their end.
        failed: parts that were given up.
        workers: processes.
        seconds: wall time.
        stopped: whether a signal ended it early.
        saved: whether that was the signal to save.
        published: whether every part is done, and the results are in the store.
    """

    parts: tuple[Part, ...] = ()
    open: int = 0
    done: tuple[Part, ...] = ()
    failed: tuple[Failed[Part], ...] = ()
    workers: int = 0
    seconds: float = 0.0
    stopped: bool = False
    saved: bool = False
    published: bool = False


@dataclass(frozen=True, slots=True)
class Local:
    """Works through a step here, the most expensive parts first.

    Args:
        workers: processes of one thread each, and never more than there are parts; 0 = in this
            process; None = one per core.
        command: how a worker process is started.
        seats: environment of the n-th worker, such as the one GPU that it sees.
        save_signal: a signal on which every worker saves what it has, and then all end.
        progress: told of every change; counts the models of the parts.
        choose: picks what is to be done now from the open parts.
        on_start: told of each part that a worker has begun.
        on_change: told of the queue, after every event and a few times a second.
        on_failure: told of each part that is given up.
    """

    workers: int | None = None
    command: Sequence[str] = WORKER
    seats: Sequence[Mapping[str, str]] = ()
    save_signal: signal.Signals | None = None
    progress: Reporter | None = None
    choose: Callable[[Sequence[Part]], Sequence[Part]] = lambda parts: parts
    on_start: Callable[[Part], None] = lambda part: None
    on_change: Callable[[Queue[Part]], None] = lambda queue: None
    on_failure: Callable[[Failed[Part]], None] = lambda failed: None

    def carry_out(self, step: Step, before: Sequence[Ended] = ()) -> Ended:
        """Do a step to its end; what was done before it is of no account.

        Raises:
            TrainError: a command fails, or the workers cannot be started.
            StoreError: the store cannot be read or written.
        """
        if isinstance(step.does, Command):
            return _run(step.does)
        work, start = step.does, time.monotonic()
        parts = tuple(work.parts())
        open_parts = sorted((part for part in parts if part.done < 1), key=lambda p: -p.cost)
        queue = Queue(self.choose(open_parts))
        count = usable_cores() if self.workers is None else self.workers
        count = min(count, len(queue.pending))
        tracker = _Tracker(work.phase, parts, queue, self.progress)

        def changed() -> None:
            tracker.report()
            self.on_change(queue)

        def gave_up(failed: Failed[Part]) -> None:
            self.on_failure(failed)
            work.give_up(failed.task.key, failed.reason, failed.traceback)

        tracker.report()
        stopped = saved = False
        if count:
            pool = WorkerPool(
                work, queue, count, seats=self.seats, save_signal=self.save_signal,
                on_start=self.on_start, on_change=changed, on_failure=gave_up,
                command=self.command,
            )  # fmt: skip
            stopped, saved = not pool.run(), pool.saved
        else:
            _work_here(work, queue, self.on_start, changed, gave_up)
        tracker.report(ended=True)
        whole = len(open_parts) == len(queue.done)
        if whole:
            work.finish()
        return Ended(
            parts=parts, open=len(open_parts), done=tuple(queue.done),
            failed=tuple(queue.failed), workers=count, seconds=time.monotonic() - start,
            stopped=stopped, saved=saved, published=whole,
        )  # fmt: skip


def _run(command: Command) -> Ended:
    """Run a command in a process of its own; a signal ends both."""
    start = time.monotonic()
    words = [*command.program, *command.words]
    code = subprocess.run([sys.executable, *words], check=False).returncode
    if code:
        msg = f"`zoo {' '.join(command.words)}` ended with exit code {code}; its log says why"
        raise TrainError(msg)
    return Ended(seconds=time.monotonic() - start, published=True)


def _work_here(
    work: Work,
    queue: Queue[Part],
    on_start: Callable[[Part], None],
    changed: Callable[[], None],
    gave_up: Callable[[Failed[Part]], None],
) -> None:
    """Work through a queue in this process."""
    begun: Part | None = None

    def committed(count: int) -> None:
        nonlocal begun
        queue.progress(part, count)
        if begun is not part:
            begun = part
            on_start(part)
        changed()

    do = work.worker(Talk(committed=committed))
    while queue.open:
        waiting = queue.next(time.monotonic())
        if waiting is None:
            time.sleep(0.1)
            continue
        part = waiting
        try:
            outcome = do(part.key)
        except Exception as error:
            if not work.keeps_failures:
                raise
            reason = f"{type(error).__name__}: {error}"
            failed = queue.broke(part, reason, traceback.format_exc())
            if failed is not None:
                gave_up(failed)
        else:
            if outcome == BUSY:
                queue.owned_elsewhere(part, time.monotonic())
            else:
                queue.finished(part)
        changed()


class _Tracker:
    """Turns what a queue was told of into progress."""

    def __init__(
        self,
        phase: str,
        parts: Sequence[Part],
        queue: Queue[Part],
        progress: Reporter | None,
    ) -> None:
        self.phase = phase
        self.parts = parts
        self.queue = queue
        self.progress = progress
        self.start = time.monotonic()
        self.models = sum(part.models for part in parts)
        self.at_start = self.done()

    def done(self) -> float:
        """Return the models that are done, in parts."""
        ended = set(self.queue.done)
        total = 0.0
        for part in self.parts:
            told = ALMOST * self.queue.committed(part) / part.commits
            total += part.models * (1.0 if part in ended else max(part.done, told))
        return total

    def report(self, *, ended: bool = False) -> None:
        """Tell whoever wants to know."""
        if self.progress is None:
            return
        self.progress(
            RunProgress(
                models=self.models,
                done=self.done(),
                at_start=self.at_start,
                failed=sum(f.task.models for f in self.queue.failed),
                elsewhere=self.queue.elsewhere,
                elapsed_s=time.monotonic() - self.start,
                ended=ended,
                phase=self.phase,
            )
        )
