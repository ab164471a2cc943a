"""Stages after (or before) training: cut into parts, done by workers, published when all are there.

A stage is a pure function of the store and its settings. Each part is computed by whoever claims
it and written whole, so a stage can be killed at any moment and run again, by several processes
and on several machines; the end publishes from the parts alone.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.errors import Problem, SpecError, UnknownNameError, nearest
from zoo.launch.pool import WORKER, Pool
from zoo.launch.progress import Reporter, RunProgress
from zoo.launch.provenance import usable_cores
from zoo.launch.schedule import Failed, Part, Schedule
from zoo.launch.worker import BUSY, DONE, one_thread
from zoo.store import StageFolder

__all__ = ["STAGES", "Part", "Stage", "StageSummary", "load_stage", "run_part", "run_stage"]

#: Stage name → ``"module:object"``; imported when it runs, since some need what is not installed.
STAGES: dict[str, str] = {
    "landscape": "zoo.launch.landscape_stage:stage",
    "scoring": "zoo.launch.scoring:SCORING",
    "diet-metrics": "zoo.launch.diet_metrics:DIET_METRICS",
}


class Stage(Protocol):
    """What a stage does; an object of a module that is named in :data:`STAGES`."""

    @property
    def name(self) -> str:
        """The name in :data:`STAGES`."""

    def parts(self, path: Path, settings: Mapping[str, Any]) -> Sequence[Part]:
        """Return the parts; a pure function of the store's plan and the settings."""

    def run_part(
        self, path: Path, settings: Mapping[str, Any], key: str
    ) -> tuple[Mapping[str, NDArray[np.generic]], Mapping[str, Any]]:
        """Return a part's arrays and JSON-ready facts."""

    def finish(self, path: Path, settings: Mapping[str, Any], folder: StageFolder) -> None:
        """Publish the results, from the parts in ``folder``; doing it again does nothing new."""


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


def load_stage(name: str) -> Stage:
    """Return a stage.

    Raises:
        UnknownNameError: there is none of this name.
    """
    if name not in STAGES:
        close = nearest(name, STAGES)
        hint = f"; did you mean {close!r}?" if close else ""
        msg = f"unknown stage {name!r}{hint}; known: {', '.join(sorted(STAGES))}"
        raise UnknownNameError(msg)
    module, attribute = STAGES[name].split(":")
    stage: Stage = getattr(importlib.import_module(module), attribute)
    return stage


def run_part(path: str | Path, name: str, settings: Mapping[str, Any], key: str) -> str:
    """Compute and write one part; return ``DONE``, or ``BUSY`` if another process has it.

    Args:
        path: the store.
        name, settings: the stage.
        key: of the part.

    Raises:
        ZooError: the store or the stage do not allow it.
    """
    stage = load_stage(name)
    folder = StageFolder(path, name, settings)
    with folder.claim(key) as owned:
        if not owned:
            return BUSY
        if not folder.done(key):
            start = time.monotonic()
            with one_thread():
                arrays, facts = stage.run_part(Path(path), settings, key)
            folder.write(key, arrays, {**facts, "wall_s": time.monotonic() - start})
    return DONE


def run_stage(
    path: str | os.PathLike[str],
    name: str,
    settings: Mapping[str, Any],
    *,
    workers: int | None = None,
    progress: Reporter | None = None,
    command: Sequence[str] = WORKER,
) -> StageSummary:
    """Do what is left of a stage, and publish its results when every part is there.

    Args:
        path: the store.
        name, settings: the stage.
        workers: processes of one thread each; 0 = in this process; None = one a core.
        progress: told of every change; counts the models of the parts.
        command: how a worker process is started.

    Raises:
        SpecError: a bad number of workers.
        UnknownNameError: no such stage.
        StoreError: the store cannot be read or written.
        TrainError: the workers cannot be started.
    """
    if workers is not None and workers < 0:
        problem = Problem("workers", workers, "not a number of processes", ">= 0")
        raise SpecError([problem], name)
    store, start = Path(path), time.monotonic()
    stage, folder = load_stage(name), StageFolder(path, name, settings)
    parts = list(stage.parts(store, settings))
    there = folder.parts_done()
    left = sorted((p for p in parts if p.key not in there), key=lambda p: -p.cost)
    schedule = Schedule(left)
    tell = _teller(parts, left, schedule, progress)
    tell(ended=False)
    workers = min(usable_cores() if workers is None else workers, len(left))
    stopped = False
    if left and workers:
        order = {"stage": name, "settings": dict(settings)}
        pool = Pool(
            store=store, schedule=schedule, workers=workers, order=order,
            on_change=lambda: tell(ended=False), command=command,
        )  # fmt: skip
        stopped = not pool.run()
    else:
        _run_here(store, name, settings, schedule, tell)
    tell(ended=True)
    done = len(folder.parts_done() & {p.key for p in parts})
    whole = done == len(parts)
    if whole:
        stage.finish(store, settings, folder)
    return StageSummary(
        name=name, stage_id=folder.id, parts=len(parts), done=done,
        computed=len(schedule.done), seconds=time.monotonic() - start, stopped=stopped,
        failures=tuple(schedule.failed), published=whole,
    )  # fmt: skip


def _teller(
    parts: Sequence[Part], left: Sequence[Part], schedule: Schedule[Part], progress: Reporter | None
) -> Callable[..., None]:
    """Return a function that tells of the progress."""
    begin = time.monotonic()
    models = sum(part.models for part in parts)
    at_start = models - sum(part.models for part in left)

    def tell(*, ended: bool) -> None:
        if progress is not None:
            progress(
                RunProgress(
                    models=models,
                    done=at_start + sum(part.models for part in schedule.done),
                    at_start=at_start,
                    failed=sum(f.task.models for f in schedule.failed),
                    elsewhere=schedule.elsewhere,
                    elapsed_s=time.monotonic() - begin,
                    ended=ended,
                )
            )

    return tell


def _run_here(
    store: Path,
    name: str,
    settings: Mapping[str, Any],
    schedule: Schedule[Part],
    tell: Callable[..., None],
) -> None:
    """Work through the parts in this process; the first fault is the caller's to see."""
    while schedule.open:
        part = schedule.next(time.monotonic())
        if part is None:
            time.sleep(0.1)
            continue
        outcome = run_part(store, name, settings, part.key)
        if outcome == BUSY:
            schedule.owned_elsewhere(part, time.monotonic())
        else:
            schedule.finished(part)
        tell(ended=False)
