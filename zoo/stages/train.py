"""The training stage: a part is one task of the plan, from claim to seal.

Unlike a part of another stage it commits checkpoint after checkpoint, resumes from the last one,
and has its failures written down in the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo.arithmetic import pinned
from zoo.errors import StoreError
from zoo.provenance import fingerprint
from zoo.stages.base import ALMOST, BUSY, DONE, Part, Talk
from zoo.stages.cost import rough_seconds
from zoo.stages.kept import kept_of_task
from zoo.store import TaskState, TaskWriter, claim_task, task_states
from zoo.store.leases import LeaseLostError
from zoo.train.pause import PausePoint
from zoo.train.plan import Plan, Task
from zoo.train.trainer import TaskTrainer

__all__ = ["SAVE_S", "Saver", "Training", "run_task", "task_key"]

#: Seconds between saves of an unfinished checkpoint.
SAVE_S = 180.0

#: Called with the number of committed checkpoints, at the start and after each commit.
OnCommit = Callable[[int], None]
_LOG = logging.getLogger(__name__)


def task_key(task: Task) -> str:
    """Return the key of the part that a task is."""
    return f"{task.cohort}.{task.index}"


@dataclass(frozen=True, slots=True)
class Training:
    """The training of a store, as :class:`zoo.stages.Work`.

    Args:
        store: the store.
        plan: its plan.
        settings: ``save_s``, seconds between saves of an unfinished checkpoint; may be left out.
        paths: data set or score file → where it is.
    """

    store: Path
    plan: Plan
    settings: Mapping[str, Any]
    paths: Mapping[str, str]
    name: str = "training"
    phase: str = "training"
    keeps_failures: bool = True

    def parts(self) -> Sequence[Part]:
        """Return every task."""
        return [self._part(state) for state in task_states(self.store)]

    def _part(self, state: TaskState) -> Part:
        task, count = state.task, state.checkpoints
        if state.sealed:
            return Part(task_key(task), task.models, cost=0.0, commits=count, done=1.0)
        left = rough_seconds(self.plan.cohort(task.cohort), task, committed=state.committed)
        done = ALMOST * state.committed / count
        return Part(task_key(task), task.models, cost=left, commits=count, done=done)

    def task(self, key: str) -> Task:
        """Return the task that a part is."""
        cohort, _, index = key.rpartition(".")
        return next(t for t in self.plan.cohort(cohort).tasks() if t.index == int(index))

    def worker(self, talk: Talk) -> Callable[[str], str]:
        """Return what trains a task, from its last committed checkpoint to its end."""
        saver = Saver(self.settings.get("save_s", SAVE_S), on_save=talk.saved)
        talk.requests.append(saver.ask)

        def train(key: str) -> str:
            return run_task(
                self.store,
                self.plan,
                self.task(key),
                paths=self.paths,
                on_commit=talk.committed,
                saver=saver,
            )

        return train

    def give_up(self, key: str, reason: str, traceback: str) -> None:
        """Write down why a task was given up, unless it is somebody else's or the disk refuses."""
        task = self.task(key)
        try:
            with claim_task(self.store, task) as owned:
                if owned:
                    cohort = self.plan.cohort(task.cohort)
                    TaskWriter(self.store, cohort, task).fail(reason, traceback)
        except StoreError as error:
            _LOG.error("%s", error)

    def finish(self) -> None:
        """Do nothing: what a task trains is in the store when it is sealed."""


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
        """Save; if the disk refuses, training continues without.

        Raises:
            LeaseLostError: another host owns the task by now.
        """
        assert self.writer is not None
        try:
            self.writer.save_pause(point)
        except LeaseLostError:
            raise
        except StoreError as error:
            _LOG.warning("%s", error)
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
    paths: Mapping[str, str] | None = None,
    on_commit: OnCommit = lambda committed: None,
    saver: Saver | None = None,
) -> str:
    """Train a task to its end, from its last committed checkpoint; return ``DONE`` or ``BUSY``.

    Args:
        store: the store.
        plan: the store's plan.
        task: one of its tasks.
        paths: user paths of data sets.
        on_commit: told of every durable checkpoint.
        saver: saves between checkpoints; None = every ``SAVE_S`` seconds.

    Raises:
        ZooError: the data, the plan or the store do not allow it.
    """
    try:
        return _run_task(store, plan, task, paths or {}, on_commit, saver or Saver())
    except LeaseLostError:
        return BUSY


def _run_task(
    store: str | Path,
    plan: Plan,
    task: Task,
    paths: Mapping[str, str],
    told: OnCommit,
    saver: Saver,
) -> str:
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
        with pinned():
            kept = kept_of_task(store, cohort, task)
            trainer = TaskTrainer(plan, cohort, task, paths=paths, kept=kept)
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
