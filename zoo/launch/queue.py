"""Which task comes next, and when one has failed for good: no processes, only decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["ATTEMPTS", "Failed", "Queue"]

#: Attempts at a task that end without a new checkpoint, after which it has failed.
ATTEMPTS = 3
#: Seconds after which a task that another process owns is tried again.
_PATIENCE_S = 1.0


#: What is handed out: a task of the training, or a part of a stage.
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed(Generic[T]):
    """A task that was given up.

    Args:
        task: the task.
        reason: one line.
        traceback: the traceback, or the last words of the worker.
    """

    task: T
    reason: str
    traceback: str


@dataclass(slots=True)
class _Progress:
    committed: int = 0
    at_start: int | None = None
    idle_attempts: int = 0


@dataclass(slots=True)
class Queue(Generic[T]):
    """The tasks of one call of ``zoo run``.

    Args:
        tasks: open tasks, in the order in which they are handed out.
    """

    tasks: Iterable[T]
    done: list[T] = field(default_factory=list)
    failed: list[Failed[T]] = field(default_factory=list)
    pending: deque[T] = field(default_factory=deque)
    _busy: dict[T, float] = field(default_factory=dict)
    _running: dict[T, _Progress] = field(default_factory=dict)
    _known: dict[T, _Progress] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pending.extend(self.tasks)

    @property
    def open(self) -> bool:
        """Whether anything is pending, running, or owned by another process."""
        return bool(self.pending or self._running or self._busy)

    @property
    def waiting(self) -> int:
        """Tasks that no worker of ours has at the moment."""
        return len(self.pending) + len(self._busy)

    @property
    def elsewhere(self) -> int:
        """Tasks that another process owns."""
        return len(self._busy)

    def committed(self, task: T) -> int:
        """Return the committed checkpoints of a task, as far as this queue was told."""
        return self._known[task].committed if task in self._known else 0

    def next(self, now: float) -> T | None:
        """Return a task to hand out, or None if there is none at the moment.

        Args:
            now: a clock, in seconds.
        """
        if self.pending:
            task = self.pending.popleft()
        else:
            due = [t for t, since in self._busy.items() if now - since >= _PATIENCE_S]
            if not due:
                return None
            task = due[0]
            del self._busy[task]
        self._running[task] = self._known.setdefault(task, _Progress())
        self._running[task].at_start = None
        return task

    def progress(self, task: T, committed: int) -> None:
        """Note the committed checkpoints of a running task; first those that it starts from."""
        known = self._running[task]
        known.committed = committed
        if known.at_start is None:
            known.at_start = committed

    def finished(self, task: T) -> None:
        """Note that a task is sealed."""
        del self._running[task]
        self.done.append(task)

    def owned_elsewhere(self, task: T, now: float) -> None:
        """Note that another process owns a task; it is tried again later."""
        del self._running[task]
        self._busy[task] = now

    def broke(self, task: T, reason: str, traceback: str) -> Failed[T] | None:
        """Note that an attempt ended without a seal; return the failure if it was the last."""
        progress = self._running.pop(task)
        advanced = progress.at_start is not None and progress.committed > progress.at_start
        progress.idle_attempts = 0 if advanced else progress.idle_attempts + 1
        if progress.idle_attempts < ATTEMPTS:
            self.pending.append(task)
            return None
        self.failed.append(Failed(task, reason, traceback))
        return self.failed[-1]
