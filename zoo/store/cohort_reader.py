"""Reading one cohort: what is recorded, the metrics, and random rows straight from the shards."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo.errors import StoreCorruptError, StoreError, UnknownNameError, no_such
from zoo.spec.origin import origin_columns
from zoo.spec.run import field_infos
from zoo.store.added import read_derived_record
from zoo.store.chunks import decode_numbers
from zoo.store.commits import (
    Commit,
    Seal,
    committed_count,
    read_commit,
    read_failures,
    read_seal,
)
from zoo.store.derived import read_published
from zoo.store.files import read_bytes
from zoo.store.outcomes import reasons, recorded_until, statuses
from zoo.store.paths import StorePaths
from zoo.store.schema import ArraySpec, metric_names, spec_column
from zoo.store.shard import shard_name
from zoo.store.shard_file import TRAIN_AGAIN, read_checksums, read_index, read_rows
from zoo.train.plan import Cohort, Task

__all__ = ["CohortReader"]

_LOG = logging.getLogger(__name__)

#: Shard indexes that stay in memory (about 16 bytes per row each).
_CACHED_INDEXES = 4096


@dataclass(slots=True)
class _Progress:
    """What is known of a task: its seal, or its commits so far."""

    seal: Seal | None = None
    commits: list[Commit] = field(default_factory=list)
    failure: str = ""


class CohortReader:
    """One cohort of M models, K checkpoints and P parameters; made by :class:`StoreReader`.

    Args:
        paths: the store.
        cohort: the cohort.
        arrays: the arrays of its group that training writes.
    """

    def __init__(self, paths: StorePaths, cohort: Cohort, arrays: Mapping[str, ArraySpec]) -> None:
        self.cohort = cohort
        self._paths = paths
        self._arrays = arrays
        self._tasks = tuple(cohort.tasks())
        self._progress = [_Progress() for _ in self._tasks]
        self._indexes: OrderedDict[tuple[str, int, int], NDArray[np.uint64]] = OrderedDict()
        self._metrics: NDArray[np.floating[Any]] | None = None
        self.refresh()

    # -- what is there --------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what has been committed since.

        A task with a record that cannot be read has failed, as far as its commits do not say more.
        """
        self._derived = self._read_record()
        changed = [
            self._refresh_task(task, progress)
            for task, progress in zip(self._tasks, self._progress, strict=True)
        ]
        if any(changed) or not hasattr(self, "last"):
            self._metrics = None
            self._indexes.clear()
            self._gather()

    def _read_record(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what stages added; nothing where the record of it cannot be read."""
        try:
            return read_derived_record(self._paths, self.cohort).members
        except StoreError as error:
            _LOG.warning("%s; until then its derived columns are missing", error)
            return {}

    def _refresh_task(self, task: Task, progress: _Progress) -> bool:
        """Read the records of a task that are new; return whether any were."""
        if progress.seal is not None and self._paths.seal(task).exists():
            return False
        before = progress.seal, len(progress.commits), progress.failure
        damage = ""
        try:
            progress.seal = read_seal(self._paths, self.cohort, task)
        except StoreError as error:
            progress.seal, damage = None, str(error)
        if progress.seal is not None:
            progress.commits, progress.failure = [], ""
            return True
        count = committed_count(self._paths, task)
        del progress.commits[count:]
        try:
            for k in range(len(progress.commits), count):
                progress.commits.append(read_commit(self._paths, self.cohort, task, k))
        except StoreError as error:  # what was committed before can be read
            damage = damage or str(error)
        failures = read_failures(self._paths, self.cohort, task)
        failures = [failure for failure in failures if not failure.superseded]
        progress.failure = damage or (failures[-1].reason if failures else "")
        return before != (None, len(progress.commits), progress.failure)

    def _gather(self) -> None:
        """Put the tasks' progress together."""
        M = self.cohort.models
        #: ``[M]`` index of the last recorded checkpoint, -1 where there is none.
        self.last: NDArray[np.int64] = np.full(M, -1, dtype=np.int64)
        #: ``[M]`` step whose loss was not finite, -1 for a healthy model.
        self.diverged_step: NDArray[np.int64] = np.full(M, -1, dtype=np.int64)
        #: ``[M]`` seconds of wall time spent on the model's task so far; NaN before it started.
        self.wall_s: NDArray[np.float64] = np.full(M, np.nan)
        status: list[str] = []
        reason: list[str] = []
        for task, progress in zip(self._tasks, self._progress, strict=True):
            rows = slice(task.start, task.stop)
            state = "planned"
            if progress.seal is not None:
                self.last[rows] = progress.seal.last
                self.diverged_step[rows] = progress.seal.diverged_step
                self.wall_s[rows] = progress.seal.wall_s
                state = "done"
            elif progress.commits:
                self.last[rows] = recorded_until(progress.commits) - 1
                self.diverged_step[rows] = progress.commits[-1].diverged_step
                self.wall_s[rows] = sum(c.wall_s for c in progress.commits)
                state = "running"
            if progress.failure:
                state = "failed"
            diverged = self.diverged_step[rows]
            status += statuses(diverged, state)
            reason += [text or progress.failure for text in reasons(diverged)]
        #: ``[M]``: planned, running, done, diverged or failed.
        self.status: NDArray[np.str_] = np.array(status, dtype=np.str_)
        #: ``[M]``: why a model diverged or failed, empty otherwise.
        self.reason: NDArray[np.str_] = np.array(reason, dtype=np.str_)
        #: ``[M, K]``: which checkpoints of which models can be read.
        self.recorded: NDArray[np.bool_] = (
            np.arange(self.cohort.checkpoints)[None, :] <= self.last[:, None]
        )

    def metric(self, name: str) -> NDArray[np.floating[Any]]:
        """Return a metric, ``[M, K]``; NaN where nothing is recorded.

        Args:
            name: of one of the cohort's metrics.

        Raises:
            UnknownNameError: the cohort does not record it.
            StoreCorruptError: a chunk is damaged, and a commit that has the same too.
        """
        names = metric_names(self.cohort)
        if name not in names:
            raise no_such(name, "metric", names)
        if self._metrics is None:
            self._metrics = self._read_metrics()
        at = names.index(name)
        return self._metrics[:, :, at].astype(self.cohort.metrics[at].dtype)

    def _read_metrics(self) -> NDArray[np.floating[Any]]:
        """Return every metric, ``[M, K, V]``: they share a file, so one look reads them all."""
        spec = self._arrays["metrics"]
        out = np.full(spec.shape, spec.fill, dtype=spec.dtype)
        for task, progress in zip(self._tasks, self._progress, strict=True):
            rows = slice(task.start, task.stop)
            commits: Sequence[Commit] = progress.commits
            if progress.seal is not None:
                path = self._paths.chunk(task, spec.name, len(spec.shape))
                try:
                    out[rows] = self._read_chunk(path, spec, progress.seal)[: task.models]
                except StoreCorruptError as error:
                    _LOG.warning("%s: %s; read from the commits; run `zoo repair`", path, error)
                    count = range(self.cohort.checkpoints)
                    commits = [read_commit(self._paths, self.cohort, task, k) for k in count]
            for commit in commits:
                for at, name in enumerate(metric_names(self.cohort)):
                    out[rows, commit.index, at] = commit.metrics[name]
        return out

    def _read_chunk(self, path: Path, spec: ArraySpec, seal: Seal) -> NDArray[Any]:
        """Return a sealed task's chunk of an array of outcomes, held against its seal."""
        content = read_bytes(path)
        check = seal.files.get(spec.name)
        if check is not None and not check.fits(content):
            msg = "does not match the checksum in the seal of its task"
            raise StoreCorruptError(msg)
        return decode_numbers(content, dtype=spec.dtype, shape=spec.chunk)

    @property
    def derived(self) -> Mapping[str, Mapping[str, Any]]:
        """The Zarr metadata of what stages added to this cohort, by name; read at refresh."""
        return self._derived

    def read_derived(self, name: str) -> NDArray[Any]:
        """Return a derived array, ``[M, ...]``.

        Raises:
            UnknownNameError: there is none of this name.
            StoreCorruptError: it does not match its checksum.
        """
        if name not in self._derived:
            msg = f"no derived array {name!r}; there are: {', '.join(self._derived) or 'none yet'}"
            raise UnknownNameError(msg)
        return read_published(self._paths, self.cohort, name)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return one value per model, ``[M]`` each: spec fields, identity, status and cost."""
        M = self.cohort.models
        found: dict[str, NDArray[Any]] = {
            "run_id": np.array(self.cohort.run_ids, dtype=np.str_),
            "cohort": np.full(M, self.cohort.id),
            "row": np.arange(M, dtype=np.int64),
        }
        found |= origin_columns(self.cohort.origins)
        names = dict.fromkeys((*field_infos(), *self.cohort.fields))
        found |= {name: spec_column(self.cohort.runs, name) for name in names}
        return found | {
            "status": self.status.copy(),
            "reason": self.reason.copy(),
            "diverged_step": self.diverged_step.copy(),
            "flops": self.cohort.train_flops.astype(np.float64),
            "wall_s": self.wall_s.copy(),
        }

    # -- slabs ----------------------------------------------------------------------------

    def read_weights(self, rows: ArrayLike, ks: ArrayLike) -> NDArray[np.float32]:
        """Return the weights of n pairs (model, checkpoint), ``[n, P]``.

        A pair that is not recorded (the model has diverged, or is not there yet) is NaN.

        Args:
            rows: ``[n]`` rows of the cohort.
            ks: ``[n]`` checkpoints.

        Raises:
            StoreCorruptError: a shard is missing or damaged; names the file, chunk and run.
            StoreError: a pair outside the cohort.
        """
        return self._read("weights", rows, ks)

    def read_probe(self, rows: ArrayLike, ks: ArrayLike) -> NDArray[np.float16]:
        """Return the probe logits of n pairs (model, checkpoint), ``[n, Q, C]``.

        As :meth:`read_weights`.

        Raises:
            StoreCorruptError: a shard is missing or damaged.
            StoreError: a pair outside the cohort, or the zoo has no probe.
        """
        if "probe_logits" not in self._arrays:
            msg = f"cohort {self.cohort.id} has no probe logits: its sweep has probe_size = 0"
            raise StoreError(msg)
        return self._read("probe_logits", rows, ks)

    def weight_checksums(self, rows: ArrayLike, ks: ArrayLike) -> NDArray[np.int64]:
        """Return a checksum of the weights of n pairs, ``[n]``, without reading them.

        Equal weights have equal checksums. A pair that is not recorded has 0.

        Raises:
            StoreCorruptError: a shard is missing or its index is damaged.
            StoreError: a pair outside the cohort.
        """
        spec = self._arrays["weights"]
        rows, ks = self._pairs(rows, ks)
        out = np.zeros(len(rows), dtype=np.int64)
        for task, k, at in self._by_shard(rows, ks):
            path = self._paths.shard(task, spec.name, k, len(spec.shape))
            index = self._index(spec, task, k, path)
            out[at] = read_checksums(path, rows[at] - task.start, index)
        return out

    def _read(self, array: str, rows: ArrayLike, ks: ArrayLike) -> NDArray[Any]:
        spec = self._arrays[array]
        rows, ks = self._pairs(rows, ks)
        out = np.full((len(rows), *spec.shape[2:]), spec.fill, dtype=spec.dtype)
        flat = out.reshape(len(rows), math.prod(spec.shape[2:]))
        for task, k, at in self._by_shard(rows, ks):
            self._read_shard(spec, task, k, rows[at], [flat[i] for i in at])
        return out

    def _by_shard(
        self, rows: NDArray[np.int64], ks: NDArray[np.int64]
    ) -> Iterator[tuple[Task, int, NDArray[np.int64]]]:
        """Yield (task, checkpoint, positions of its pairs) of the pairs that are recorded."""
        there = np.flatnonzero(self.recorded[rows, ks])
        tasks = rows // self.cohort.task_rows
        keys = tasks * self.cohort.checkpoints + ks
        order = there[np.argsort(keys[there], kind="stable")]
        bounds = np.flatnonzero(np.diff(keys[order])) + 1
        for group in np.split(order, bounds) if len(order) else ():
            yield self._tasks[int(tasks[group[0]])], int(ks[group[0]]), group

    def _read_shard(
        self, spec: ArraySpec, task: Task, k: int, rows: NDArray[np.int64], out: Sequence[Any]
    ) -> None:
        form = spec.shard
        assert form is not None
        path = self._paths.shard(task, spec.name, k, len(spec.shape))
        index = self._index(spec, task, k, path)
        names = [f"run {self.cohort.run_ids[row]}, checkpoint {k}" for row in rows]
        found = read_rows(path, form, rows - task.start, out, index=index, names=names)
        if found != len(rows):
            lost = "; ".join(names)
            msg = f"{path} lacks rows that were committed ({lost}); {TRAIN_AGAIN}"
            raise StoreCorruptError(msg)

    def _index(self, spec: ArraySpec, task: Task, k: int, path: Path) -> NDArray[np.uint64]:
        """Return the index of a shard, from memory where it was read before."""
        key = (spec.name, task.index, k)
        if key in self._indexes:
            self._indexes.move_to_end(key)
            return self._indexes[key]
        assert spec.shard is not None
        name = shard_name(self.cohort, task, spec.name, k)
        index = self._indexes[key] = read_index(path, spec.shard, name)
        while len(self._indexes) > _CACHED_INDEXES:
            self._indexes.popitem(last=False)
        return index

    def _pairs(self, rows: ArrayLike, ks: ArrayLike) -> tuple[NDArray[np.int64], ...]:
        first, second = np.broadcast_arrays(np.atleast_1d(rows), np.atleast_1d(ks))
        pairs = first.astype(np.int64), second.astype(np.int64)
        for name, values, size in (
            ("rows", pairs[0], self.cohort.models),
            ("checkpoints", pairs[1], self.cohort.checkpoints),
        ):
            if values.size and not (values.min() >= 0 and values.max() < size):
                msg = f"{name} of cohort {self.cohort.id} go from 0 to {size - 1}, not {values}"
                raise StoreError(msg)
        return pairs
