"""Where everything of a store lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.train.plan import Task

__all__ = ["StorePaths"]


@dataclass(frozen=True, slots=True)
class StorePaths:
    """The files and folders of the store at ``root``."""

    root: Path

    @property
    def metadata(self) -> Path:
        """The root group's metadata."""
        return self.root / "zarr.json"

    @property
    def records(self) -> Path:
        """The folder of everything that is not Zarr data."""
        return self.root / "_zoo"

    @property
    def provenance(self) -> Path:
        """What made the store."""
        return self.records / "provenance.json"

    @property
    def staging(self) -> Path:
        """Where an extension is built."""
        return self.records / "staging"

    def plan(self, part: int = 0) -> Path:
        """The plan (part 0), or what the n-th extension added to it."""
        return self.records / (f"plan-{part:04d}.json" if part else "plan.json")

    def sweep(self, part: int = 0) -> Path:
        """The sweep file (part 0), or that of the n-th extension."""
        return self.records / (f"sweep-{part:04d}.toml" if part else "sweep.toml")

    def parts(self) -> Iterator[int]:
        """Yield the parts of the plan that are there."""
        part = 0
        while self.plan(part).exists():
            yield part
            part += 1

    def group(self, cohort: str) -> Path:
        """A cohort's Zarr group."""
        return self.root / cohort

    def shard(self, task: Task, array: str, k: int, axes: int) -> Path:
        """The shard of one task and checkpoint; ``axes`` is the array's number of dimensions."""
        rest = ["0"] * (axes - 2)
        return self.group(task.cohort).joinpath(array, "c", str(task.index), str(k), *rest)

    def chunk(self, task: Task, array: str, axes: int) -> Path:
        """The chunk that holds a task's rows of an array of outcomes."""
        rest = ["0"] * (axes - 1)
        return self.group(task.cohort).joinpath(array, "c", str(task.index), *rest)

    def commits(self, task: Task) -> Path:
        """The folder of a task's commit records."""
        return self.records / "commits" / task.cohort / str(task.index)

    def commit(self, task: Task, k: int) -> Path:
        """One commit record."""
        return self.commits(task) / f"{k}.json"

    def resume_folder(self, task: Task) -> Path:
        """The folder of a task's resume states."""
        return self.records / "resume" / task.cohort / str(task.index)

    def resume(self, task: Task, k: int) -> Path:
        """One resume state."""
        return self.resume_folder(task) / f"{k}.npz"

    def pause(self, task: Task) -> Path:
        """The state between two checkpoints."""
        return self.resume_folder(task) / "pause.npz"

    def seal(self, task: Task) -> Path:
        """The record that a task is complete."""
        return self.records / "tasks" / task.cohort / f"{task.index}.json"

    def failures(self, task: Task) -> Path:
        """The folder of a task's failure records."""
        return self.records / "failures" / task.cohort / str(task.index)

    def lock(self, task: Task) -> Path:
        """The file that the owner of a task keeps locked."""
        return self.records / "locks" / task.cohort / f"{task.index}.lock"

    @property
    def tables(self) -> Path:
        """The group of the derived tables."""
        return self.root / "tables"

    def stage(self, name: str) -> Path:
        """The folder of a stage's finished parts; ``name`` includes the id of its settings."""
        return self.records / "stages" / name

    @property
    def extend_lock(self) -> Path:
        """The file that is kept locked while the store is extended."""
        return self.records / "locks" / "extend.lock"

    def name(self, path: Path) -> str:
        """Return a file's path inside the store, with slashes."""
        return path.relative_to(self.root).as_posix()
