"""One task, from claim to seal; what every worker does, on one machine or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from zoo.launch.provenance import fingerprint
from zoo.store import TaskWriter, claim_task
from zoo.train.plan import Plan, Task
from zoo.train.trainer import TaskTrainer

__all__ = ["BUSY", "DONE", "one_thread", "run_task"]

#: The task is sealed, now or before.
DONE = "done"
#: Another live process owns the task.
BUSY = "busy"

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


def run_task(
    store: str | Path,
    plan: Plan,
    task: Task,
    *,
    backend: str = "auto",
    paths: Mapping[str, str] | None = None,
    on_commit: OnCommit | None = None,
) -> str:
    """Train a task to its end, from its last committed checkpoint; return ``DONE`` or ``BUSY``.

    Args:
        store: the store.
        plan: the store's plan.
        task: one of its tasks.
        backend: ``"auto"`` takes the one that the cohort was planned with.
        paths: user paths of data sets.
        on_commit: told of every durable checkpoint.

    Raises:
        ZooError: the data, the plan or the store do not allow it.
    """
    told = on_commit or (lambda committed: None)
    cohort = plan.cohort(task.cohort)
    with claim_task(store, task) as owned:
        if not owned:
            return BUSY
        writer = TaskWriter(store, cohort, task)
        told(writer.committed)
        if writer.sealed:
            return DONE
        start = time.monotonic()
        with one_thread():
            trainer = TaskTrainer(plan, cohort, task, backend=backend, paths=paths)
            for checkpoint in trainer.run(writer.resume_point()):
                writer.commit(checkpoint)
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
