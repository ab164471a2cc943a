"""One stage of a store, worked through on this machine and published when every part is there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import Problem, SpecError
from zoo.launch.executor import Step
from zoo.launch.pool import WORKER
from zoo.launch.progress import Reporter
from zoo.launch.queue import Failed
from zoo.launch.workers import Local
from zoo.paths import absolute
from zoo.stages import Part, open_stage
from zoo.store import data_paths, stage_id

__all__ = ["StageSummary", "run_stage"]


@dataclass(frozen=True, slots=True)
class StageSummary:
    """What a call of :func:`run_stage` did.

    Args:
        name, stage_id: of the stage and its settings.
        parts: all parts.
        done: parts that are done now.
        computed: those that this call computed.
        seconds: wall time.
        stopped: whether a signal ended it early.
        failures: parts that were given up.
        published: whether the results are in the store.
    """

    name: str
    stage_id: str
    parts: int
    done: int
    computed: int
    seconds: float
    stopped: bool
    failures: tuple[Failed[Part], ...]
    published: bool

    def to_json(self) -> dict[str, Any]:
        """Return the summary, JSON-ready."""
        return {
            "stage": self.name,
            "id": self.stage_id,
            "parts": self.parts,
            "done": self.done,
            "computed": self.computed,
            "seconds": self.seconds,
            "stopped": self.stopped,
            "published": self.published,
            "failures": [{"part": f.task.key, "reason": f.reason} for f in self.failures],
        }


def run_stage(
    path: str | os.PathLike[str],
    name: str,
    settings: Mapping[str, Any],
    *,
    workers: int | None = None,
    progress: Reporter | None = None,
    command: Sequence[str] = WORKER,
    paths: Mapping[str, str] | None = None,
) -> StageSummary:
    """Do what is left of a stage, and publish its results when every part is there.

    Args:
        path: the store.
        name, settings: the stage.
        workers: processes of one thread each; 0 = in this process; None = one per core.
        progress: told of every change; counts the models of the parts.
        command: how a worker process is started.
        paths: data set or score file -> path, before what the environment and the store say.

    Raises:
        SpecError: a bad number of workers, or paths that the store has no use for.
        UnknownNameError: no such stage.
        StoreError: the store cannot be read or written.
        TrainError: the workers cannot be started.
    """
    if workers is not None and workers < 0:
        problem = Problem("workers", workers, "not a number of processes", ">= 0")
        raise SpecError([problem], name)
    store = absolute(path)
    work = open_stage(name, store, settings, data_paths(store, paths))
    ended = Local(workers, command, progress=progress).carry_out(Step(work))
    return StageSummary(
        name=name,
        stage_id=stage_id(name, settings),
        parts=len(ended.parts),
        done=len(ended.parts) - ended.open + len(ended.done),
        computed=len(ended.done),
        seconds=ended.seconds,
        stopped=ended.stopped,
        failures=ended.failed,
        published=ended.published,
    )
