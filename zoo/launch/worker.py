"""One task, from claim to seal; what every worker does, on one machine or on a cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from zoo.errors import StoreError
from zoo.launch.kept import kept_of_task
from zoo.launch.provenance import fingerprint
from zoo.store import TaskWriter, claim_task
from zoo.store.leases import LeaseLostError
from zoo.train.pause import PausePoint
from zoo.train.plan import Plan, Task
from zoo.train.trainer import TaskTrainer

__all__ = ["BUSY", "DONE", "SAVE_S", "Saver", "one_thread", "run_task"]

#: The task is sealed, now or before.
DONE = "done"
#: Another live process owns the task.
BUSY = "busy"

#: Seconds between saves of an unfinished checkpoint.
SAVE_S = 180.0

#: Called with the number of committed checkpoints, at the start and after each commit.
OnCommit = Callable[[int], None]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread for the block: sums over threads are not bit-stable."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Saver:
    """Saves a task between two checkpoints: every so often, and soon after :meth:`ask`.

    Args:
        every_s: seconds between saves.
        on_save: told of every save that was asked for.
    """

    def __init__(
        self, every_s: float = SAVE_S, *, on_save: Callable[[], None] = lambda: None
    ) -> None:
        self.every_s = every_s
        self.on_save = on_save
        self.writer: TaskWriter | None = None
        self._asked = False
        self._last = time.monotonic()

    def ask(self) -> None:
        """Want a save at the next chance; safe to call from a signal handler."""
        self._asked = True

    def committed(self) -> None:
        """Note a commit, which is as good as a save."""
        self._last = time.monotonic()
        self._answer()

    def due(self) -> bool:
        """Return whether it is time."""
        return self._asked or time.monotonic() - self._last >= self.every_s

    def save(self, point: PausePoint) -> None:
        """Save; if the disk refuses, training goes on without.

        Raises:
            LeaseLostError: another host owns the task by now.
        """
        assert self.writer is not None
        try:
            self.writer.save_pause(point)
        except LeaseLostError:
            raise
        except StoreError as error:
            logging.getLogger(__name__).warning("%s", error)
        self._last = time.monotonic()
        self._answer()

    def _answer(self) -> None:
        if self._asked:
            self._asked = False
            self.on_save()


def run_task(
    store: str | Path,
    plan: Plan,
    task: Task,
    *,
    backend: str = "auto",
    device: str = "auto",
    paths: Mapping[str, str] | None = None,
    on_commit: OnCommit | None = None,
    saver: Saver | None = None,
) -> str:
    """Train a task to its end, from its last committed checkpoint; return ``DONE`` or ``BUSY``.

    Args:
        store: the store.
        plan: the store's plan.
        task: one of its tasks.
        backend: ``"auto"`` takes the one that the cohort was planned with.
        device: a torch device; ``"auto"`` takes the type that the cohort was planned for.
        paths: user paths of data sets.
        on_commit: told of every durable checkpoint.
        saver: saves between checkpoints; None = every ``SAVE_S`` seconds.

    Raises:
        ZooError: the data, the plan or the store do not allow it.
    """
    try:
        return _run_task(store, plan, task, backend, device, paths, on_commit, saver or Saver())
    except LeaseLostError:
        return BUSY


def _run_task(
    store: str | Path,
    plan: Plan,
    task: Task,
    backend: str,
    device: str,
    paths: Mapping[str, str] | None,
    on_commit: OnCommit | None,
    saver: Saver,
) -> str:
    told = on_commit or (lambda committed: None)
    cohort = plan.cohort(task.cohort)
    with claim_task(store, task) as owned:
        if not owned:
            return BUSY
        writer = TaskWriter(store, cohort, task)
        told(writer.committed)
        if writer.sealed:
            return DONE
        saver.writer = writer
        start = time.monotonic()
        with one_thread():
            trainer = TaskTrainer(
                plan, cohort, task, backend=backend, device=device, paths=paths,
                kept=kept_of_task(store, cohort, task),
            )  # fmt: skip
            resume, pause = writer.resume_point(), writer.pause_point()
            for checkpoint in trainer.run(resume, pause=pause, pauses=saver):
                writer.commit(checkpoint)
                saver.committed()
                told(writer.committed)
            writer.seal(
                {
                    "backend": trainer.backend,
                    # of the process that finished it; the commits have the seconds of each part
                    "last_process_s": time.monotonic() - start,
                    "fingerprint": fingerprint(threads=torch.get_num_threads()),
                }
            )
    return DONE
