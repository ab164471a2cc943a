"""Writing one task: a checkpoint at a time, each durable before it is acknowledged."""

from __future__ import annotations

import contextlib
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
    Seal,
    committed_count,
    read_commit,
    read_failures,
    signature,
)
from zoo.store.create import existing
from zoo.store.files import (
    STRAY_SUFFIX,
    checksum,
    read_bytes,
    remove_strays,
    store_errors,
    write_atomic,
)
from zoo.store.locks import check_owned, claim_task, owned_here
from zoo.store.outcomes import outcome_chunks
from zoo.store.records import record_bytes
from zoo.store.resume import KEPT, pack, read_pause, read_resume, remove_old
from zoo.store.schema import ArraySpec, slab_arrays
from zoo.store.shard import encode_shard
from zoo.store.shard_file import read_rows
from zoo.train.checkpoint import METRICS, Checkpoint, ResumePoint
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
        self._slabs = self._check_metadata()
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

    # -- going on -------------------------------------------------------------------------

    def resume_point(self) -> ResumePoint | None:
        """Return where training goes on, or None where it must start again.

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
            found = read_rows(path, _form(spec), rows, [weights[r] for r in rows])
            if found != len(rows):
                msg = f"{path} lacks rows that were committed; run `zoo verify`"
                raise StoreCorruptError(msg)
            return ResumePoint(k, weights, commit.diverged_step, arrays)
        return None

    def save_pause(self, point: PausePoint) -> None:
        """Make a point between two checkpoints durable; the next commit supersedes it.

        Raises:
            LeaseLostError: another host owns the task by now; nothing was written.
            StoreError: it cannot be written; the task then stands as it did before.
        """
        place = np.array([point.index, point.group, point.offset], dtype=np.int64)
        self._write(self._paths.pause(self.task), pack({**point.arrays, "place": place}))

    def pause_point(self) -> PausePoint | None:
        """Return the point after the newest checkpoint, or None if there is no whole one."""
        return read_pause(self._paths, self.task, self.committed)

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
        data = {"weights": encode_shard(_form(self._slabs["weights"]), checkpoint.weights, present)}
        if checkpoint.probe is not None:
            flat = checkpoint.probe.reshape(self.task.models, -1)
            data["probe_logits"] = encode_shard(_form(self._slabs["probe_logits"]), flat, present)
        resume = pack(checkpoint.resume)
        commit = Commit(
            index=k,
            diverged_step=np.asarray(checkpoint.diverged_step, dtype=np.int64),
            metrics={n: np.asarray(checkpoint.metrics[n], dtype=np.float32) for n in METRICS},
            files={name: _check_of(content) for name, content in data.items()},
            resume=_check_of(resume),
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
        with store_errors("delete old resume states of", self._paths.resume_folder(self.task)):
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
        for path, data in outcome_chunks(self._paths, self.cohort, self.task, commits).items():
            self._write(path, data)
        seal = Seal(
            last=np.sum([c.diverged_step < 0 for c in commits], axis=0) - 1,
            diverged_step=commits[-1].diverged_step,
            wall_s=float(record.get("wall_s", sum(c.wall_s for c in commits))),
            record=record,
        )
        if not self.sealed:
            self._write(self._paths.seal(self.task), record_bytes("seal", seal.to_json(self.task)))
        remove_old(self._paths, self.task, self.cohort.checkpoints)

    def fail(self, reason: str, traceback: str) -> None:
        """Record that an attempt at the task ended; a later attempt supersedes it.

        Args:
            reason: one line.
            traceback: the whole traceback.

        Raises:
            StoreError: the record cannot be written.
        """
        number = len(read_failures(self._paths, self.task))
        body = {
            "cohort": self.task.cohort,
            "task": self.task.index,
            "reason": reason,
            "traceback": traceback,
            "committed": self.committed,
            **signature(),
        }
        path = self._paths.failures(self.task) / f"{number}.json"
        self._write(path, record_bytes("failure", body))

    # -- inside ---------------------------------------------------------------------------

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file of this task, unless another host has taken the task over."""
        write_atomic(path, data, guard=lambda: check_owned(self._paths.lock(self.task)))

    def _commit(self, k: int) -> Commit:
        return read_commit(self._paths, self.cohort, self.task, k)

    def _shard(self, spec: ArraySpec, k: int) -> Path:
        return self._paths.shard(self.task, spec.name, k, len(spec.shape))

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
        folders = [self._paths.commits(self.task), self._paths.resume_folder(self.task)]
        group = self._paths.group(self.task.cohort)
        folders += [p / "c" / str(self.task.index) for p in group.iterdir() if p.is_dir()]
        # An unfinished chunk of a one-axis outcome stands beside the chunk, not in a folder of it.
        strays = [*group.glob(f"*/c/{self.task.index}.*{STRAY_SUFFIX}")]
        seal = self._paths.seal(self.task)
        strays += seal.parent.glob(f"{seal.name}.*{STRAY_SUFFIX}")
        strays += self._paths.failures(self.task).glob(f"*{STRAY_SUFFIX}")
        with store_errors("clean up", group):
            for folder in folders:
                remove_strays(folder)
            for stray in strays:
                stray.unlink(missing_ok=True)

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
        missing = [name for name in METRICS if name not in checkpoint.metrics]
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
                np.array_equal(old.metrics[n], commit.metrics[n], equal_nan=True) for n in METRICS
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


def _check_of(data: bytes) -> FileCheck:
    return FileCheck(len(data), checksum(data))


def _form(spec: ArraySpec) -> Any:
    return spec.shard


def _form_of(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
