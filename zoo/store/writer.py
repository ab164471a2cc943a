"""Writing one task: a checkpoint at a time, each durable before it is acknowledged."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreBusyError, StoreCorruptError, StoreError
from zoo.store.commits import (
    Commit,
    FileCheck,
    committed_count,
    failure_numbers,
    read_commit,
    read_seal,
    signature,
)
from zoo.store.create import existing
from zoo.store.files import (
    ensure_folder,
    read_bytes,
    remove_strays,
    store_errors,
    write_atomic,
)
from zoo.store.locks import check_owned, claim_task, owned_here
from zoo.store.outcomes import make_seal, outcome_chunks
from zoo.store.records import record_bytes
from zoo.store.resume import (
    KEPT,
    pack,
    pause_bytes,
    read_pause,
    read_resume,
    remove_left,
    remove_old,
)
from zoo.store.schema import ArraySpec, metric_names, slab_arrays
from zoo.store.shard import encode_shard, shard_name
from zoo.store.shard_file import TRAIN_AGAIN, read_index, read_rows
from zoo.train.checkpoint import Checkpoint, ResumePoint
from zoo.train.pause import PausePoint
from zoo.train.plan import Cohort, Task

__all__ = ["TaskWriter"]


class TaskWriter:
    """Writes the rows of one task (R models, P parameters), and nothing else.

    The order of a commit: the shards, the resume state, the commit record; each is written aside,
    synced and renamed. Whatever happens before the last rename leaves the task at the checkpoint
    before.

    Args:
        path: the store.
        cohort: the task's cohort.
        task: the rows. If this process has not claimed the task with :func:`claim_task`, the
            writer claims it and keeps it until :meth:`close`.

    Raises:
        StoreMissingError: no store is there.
        StoreBusyError: another process owns the task.
        StoreError: the store was planned with another cohort of this name.
    """

    def __init__(self, path: str | PathLike[str], cohort: Cohort, task: Task) -> None:
        self._paths = existing(path)
        self._stack = contextlib.ExitStack()
        self.cohort = cohort
        self.task = task
        if not owned_here(path, task) and not self._stack.enter_context(claim_task(path, task)):
            self._stack.close()
            msg = f"another process owns task {task.index} of {task.cohort} in {path}"
            raise StoreBusyError(msg)
        try:
            self._check_place()
            self._slabs = self._check_metadata()
            read_seal(self._paths, cohort, task)  # damaged, it must not pass for the end of a task
        except BaseException:
            self._stack.close()
            raise
        self.committed = committed_count(self._paths, task)
        self._diverged = np.full(task.models, -1, dtype=np.int64)
        if self.committed:
            self._diverged = self._commit(self.committed - 1).diverged_step
        self._since = time.monotonic()
        self._remove_strays()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the task, if this writer claimed it."""
        self._stack.close()

    @property
    def sealed(self) -> bool:
        """Whether the task is complete."""
        return self._paths.seal(self.task).exists()

    # -- resuming -------------------------------------------------------------------------

    def resume_point(self) -> ResumePoint | None:
        """Return where training resumes, or None where it must start again.

        Where the newest resume state is damaged the one before is taken; then checkpoints come
        again that are committed already, and :meth:`commit` holds them against what is there.

        Raises:
            StoreCorruptError: a committed shard or record is damaged.
        """
        for k in range(self.committed - 1, max(self.committed - KEPT, 0) - 1, -1):
            commit = self._commit(k)
            try:
                arrays = read_resume(self._paths, self.task, k, commit.resume)
            except StoreCorruptError:
                continue
            spec = self._slabs["weights"]
            weights = np.full((self.task.models, self.cohort.params), np.nan, dtype=np.float32)
            rows = np.flatnonzero(commit.diverged_step < 0)
            path = self._shard(spec, k)
            index = read_index(path, _form(spec), shard_name(self.cohort, self.task, spec.name, k))
            found = read_rows(path, _form(spec), rows, [weights[r] for r in rows], index=index)
            if found != len(rows):
                msg = f"{path} lacks rows that were committed; {TRAIN_AGAIN}"
                raise StoreCorruptError(msg)
            return ResumePoint(k, weights, commit.diverged_step, arrays)
        return None

    def save_pause(self, point: PausePoint) -> None:
        """Make a point between two checkpoints durable; the next commit supersedes it.

        Raises:
            LeaseLostError: another host owns the task by now; nothing was written.
            StoreError: it cannot be written; the task then stands as it did before.
        """
        self._write(self._paths.pause(self.task), pause_bytes(self.cohort, self.task, point))

    def pause_point(self) -> PausePoint | None:
        """Return the point after the newest checkpoint, or None if there is no whole one."""
        return read_pause(self._paths, self.cohort, self.task, self.committed)

    def commit(self, checkpoint: Checkpoint) -> None:
        """Make a checkpoint durable; when this returns, nothing short of the disk can lose it.

        A checkpoint that is committed already must have the same bits, and changes nothing.

        Args:
            checkpoint: the next one, or one that is committed.

        Raises:
            StoreError: it does not fit the plan, comes out of order, differs from what is
                committed, or cannot be written. The task then stands as it did before.
            LeaseLostError: another host owns the task by now; nothing was written.
        """
        self._check(checkpoint)
        k = checkpoint.index
        present = checkpoint.diverged_step < 0
        data = {"weights": self._encode("weights", k, checkpoint.weights, present)}
        if checkpoint.probe is not None:
            flat = checkpoint.probe.reshape(self.task.models, -1)
            data["probe_logits"] = self._encode("probe_logits", k, flat, present)
        resume = pack(checkpoint.resume)
        commit = Commit(
            index=k,
            diverged_step=np.asarray(checkpoint.diverged_step, dtype=np.int64),
            metrics={
                metric.name: np.asarray(checkpoint.metrics[metric.name], dtype=metric.dtype)
                for metric in self.cohort.metrics
            },
            files={name: FileCheck.of(content) for name, content in data.items()},
            resume=FileCheck.of(resume),
            wall_s=time.monotonic() - self._since,
        )
        if k < self.committed:
            self._compare(commit)
            if k >= self.committed - KEPT and not self.sealed:
                self._write(self._paths.resume(self.task, k), resume)
            return
        for name, content in data.items():
            self._write(self._shard(self._slabs[name], k), content)
        self._write(self._paths.resume(self.task, k), resume)
        body = commit.to_json(self.cohort, self.task)
        self._write(self._paths.commit(self.task, k), record_bytes("commit", body))
        self.committed = k + 1
        self._diverged = commit.diverged_step
        self._since = time.monotonic()
        with store_errors("delete old resume states of", self._paths.task(self.task)):
            remove_old(self._paths, self.task, self.committed - KEPT)
            self._paths.pause(self.task).unlink(missing_ok=True)

    # -- the end --------------------------------------------------------------------------

    def seal(self, record: Mapping[str, Any]) -> None:
        """End the task: write its rows of the outcome arrays, then the seal, then drop the state.

        Doing it again is harmless.

        Args:
            record: JSON-ready facts about the run (backend, software, ``wall_s``, ...). Where it
                has no ``wall_s``, the seconds of all commits are summed.

        Raises:
            StoreError: checkpoints are missing, or something cannot be written.
        """
        if self.committed != self.cohort.checkpoints:
            msg = (
                f"cannot seal task {self.task.index} of {self.task.cohort}: {self.committed} of"
                f" {self.cohort.checkpoints} checkpoints are committed"
            )
            raise StoreError(msg)
        commits = [self._commit(k) for k in range(self.committed)]
        chunks = outcome_chunks(self._paths, self.cohort, self.task, commits)
        for path, data in chunks.items():
            self._write(path, data)
        seal = make_seal(commits, chunks, record)
        if not self.sealed:
            body = seal.to_json(self.cohort, self.task)
            self._write(self._paths.seal(self.task), record_bytes("seal", body))
        remove_left(self._paths, self.task)

    def fail(self, reason: str, traceback: str) -> None:
        """Record that an attempt at the task ended; a later attempt supersedes it.

        Args:
            reason: one line.
            traceback: the whole traceback.

        Raises:
            StoreError: the record cannot be written.
        """
        number = 1 + max(failure_numbers(self._paths, self.task), default=-1)
        body = {
            "cohort": self.task.cohort,
            "task": self.task.index,
            "rows": self.cohort.rows_hash(self.task),
            "number": number,
            "reason": reason,
            "traceback": traceback,
            "committed": self.committed,
            **signature(),
        }
        self._write(self._paths.failure(self.task, number), record_bytes("failure", body))

    # -- inside ---------------------------------------------------------------------------

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file of this task, unless another host has taken the task over.

        What is unfinished is in the task's own folder, where its next owner finds it.
        """
        staging = self._paths.task(self.task)
        existing(self._paths.root)  # a store that is gone gets no skeleton of one
        with store_errors("write", path):
            ensure_folder(staging)
        guard = functools.partial(check_owned, self._paths.lock(self.task))
        write_atomic(path, data, staging=staging, guard=guard)

    def _encode(
        self, array: str, k: int, values: NDArray[Any], present: NDArray[np.bool_]
    ) -> bytes:
        name = shard_name(self.cohort, self.task, array, k)
        return encode_shard(_form(self._slabs[array]), values, present, name)

    def _commit(self, k: int) -> Commit:
        return read_commit(self._paths, self.cohort, self.task, k)

    def _shard(self, spec: ArraySpec, k: int) -> Path:
        return self._paths.shard(self.task, spec.name, k, len(spec.shape))

    def _check_place(self) -> None:
        """Make sure that what is written for this task lies in the store."""
        group = self._paths.group(self.task.cohort)
        folders = (p for p in (group.iterdir() if group.is_dir() else ()) if p.is_dir())
        lock = self._paths.lock(self.task)
        self._paths.check_inside(group, *folders, self._paths.task(self.task), lock)

    def _check_metadata(self) -> dict[str, ArraySpec]:
        """Return the sharded arrays, after a look at whether the store has them in that form."""
        group = self._paths.group(self.task.cohort)
        probe = 0
        if (group / "probe_logits" / "zarr.json").exists():
            probe = _metadata(group / "probe_logits")["shape"][2]
        slabs = slab_arrays(self.cohort, probe)
        for name, spec in slabs.items():
            if _metadata(group / name) != spec.metadata():
                msg = f"{group / name} was planned in another form than cohort {self.cohort.id} has"
                raise StoreError(msg)
        return slabs

    def _remove_strays(self) -> None:
        """Delete what a killed owner of this task left unfinished."""
        with store_errors("clean up", self._paths.task(self.task)):
            remove_strays(self._paths.task(self.task))

    def _check(self, checkpoint: Checkpoint) -> None:
        R, P, k = self.task.models, self.cohort.params, checkpoint.index
        problems = []
        if not 0 <= k <= min(self.committed, self.cohort.checkpoints - 1):
            problems.append(f"checkpoint {k} comes after {self.committed} committed ones")
        if checkpoint.weights.shape != (R, P) or checkpoint.weights.dtype != np.float32:
            problems.append(f"weights are {_form_of(checkpoint.weights)}, not float32 {(R, P)}")
        probe = self._slabs.get("probe_logits")
        found = None if checkpoint.probe is None else (*checkpoint.probe.shape,)
        wanted = None if probe is None else (R, *probe.shape[2:])
        if found != wanted:
            problems.append(f"probe logits have the shape {found}, not {wanted}")
        missing = [n for n in metric_names(self.cohort) if n not in checkpoint.metrics]
        if missing:
            problems.append(f"metrics {missing} are missing")
        vectors: dict[str, NDArray[Any]] = dict(checkpoint.metrics)
        vectors["diverged_step"] = checkpoint.diverged_step
        problems += [
            f"{name} has the shape {np.shape(values)}, not {(R,)}"
            for name, values in vectors.items()
            if np.shape(values) != (R,)
        ]
        if not problems and k == self.committed:
            before = self._diverged
            if np.any((before >= 0) & (checkpoint.diverged_step != before)):
                problems.append("a model that diverged before has another diverged_step now")
        if problems:
            msg = f"task {self.task.index} of {self.task.cohort}: " + "; ".join(problems)
            raise StoreError(msg)

    def _compare(self, commit: Commit) -> None:
        """Hold a checkpoint that came again against the committed one."""
        old = self._commit(commit.index)
        same = (
            old.files == commit.files
            and np.array_equal(old.diverged_step, commit.diverged_step)
            and all(
                np.array_equal(values, commit.metrics[name], equal_nan=True)
                for name, values in old.metrics.items()
            )
        )
        if not same:
            msg = (
                f"checkpoint {commit.index} of task {self.task.index} of {self.task.cohort} came"
                " out with other bits than are committed: another backend, machine type or version"
                " trained it; use the same, or drop the task's checkpoints with repair_task(...,"
                " first=0)"
            )
            raise StoreError(msg)


def _metadata(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(read_bytes(folder / "zarr.json"))
    return data


def _form(spec: ArraySpec) -> Any:
    return spec.shard


def _form_of(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
