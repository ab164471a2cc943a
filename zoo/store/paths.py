"""Where everything of a store lies.

The chunks of an array are files of its one folder (``c.3.0``), and the records of a task are files
of the task's folder: folders cost as much as files do, and a store has many small arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import StoreError
from zoo.paths import absolute
from zoo.train.plan import Task

__all__ = ["StorePaths", "chunk_file", "is_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_name(name: object) -> bool:
    """Whether a cohort, array or table may have this name: it becomes part of a path."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def chunk_file(index: int, axes: int) -> str:
    """Return the name of a chunk of an array that is cut along its first axis alone.

    Args:
        index: of the chunk along that axis.
        axes: dimensions of the array.
    """
    return ".".join(["c", str(index), *["0"] * (axes - 1)])


@dataclass(frozen=True, slots=True)
class StorePaths:
    """The files and folders of the store at ``root``, which is made absolute."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", absolute(self.root))

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

    def plan_copy(self, part: int = 0) -> Path:
        """A second file with the content of :meth:`plan`."""
        return self.plan(part).with_suffix(".copy.json")

    def sweep(self, part: int = 0) -> Path:
        """The sweep file (part 0), or that of the n-th extension."""
        return self.records / (f"sweep-{part:04d}.toml" if part else "sweep.toml")

    def parts(self) -> Iterator[int]:
        """Yield the parts of the plan that are there."""
        part = 0
        while self.plan(part).exists() or self.plan_copy(part).exists():
            yield part
            part += 1

    def group(self, cohort: str) -> Path:
        """A cohort's Zarr group."""
        return self.root / cohort

    def shard(self, task: Task, array: str, k: int, axes: int) -> Path:
        """The shard of one task and checkpoint; ``axes`` is the array's number of dimensions."""
        name = ".".join(["c", str(task.index), str(k), *["0"] * (axes - 2)])
        return self.group(task.cohort) / array / name

    def chunk(self, task: Task, array: str, axes: int) -> Path:
        """The chunk that holds a task's rows of an array of outcomes."""
        return self.group(task.cohort) / array / chunk_file(task.index, axes)

    def derived(self, cohort: str) -> Path:
        """The record of what stages added to a cohort."""
        return self.records / "derived" / f"{cohort}.json"

    def task(self, task: Task) -> Path:
        """The folder of everything that is known of a task."""
        return self.records / "tasks" / task.cohort / str(task.index)

    def commit(self, task: Task, k: int) -> Path:
        """One commit record."""
        return self.task(task) / f"{k}.json"

    def resume(self, task: Task, k: int) -> Path:
        """One resume state."""
        return self.task(task) / f"{k}.npz"

    def pause(self, task: Task) -> Path:
        """The state between two checkpoints."""
        return self.task(task) / "pause.npz"

    def seal(self, task: Task) -> Path:
        """The record that a task is complete."""
        return self.task(task) / "seal.json"

    def failure(self, task: Task, number: int) -> Path:
        """The record of one failed attempt."""
        return self.task(task) / f"failure-{number}.json"

    @property
    def locks(self) -> Path:
        """The folder of all locks and leases."""
        return self.records / "locks"

    def lock(self, task: Task) -> Path:
        """The file that the owner of a task keeps locked."""
        return self.locks / task.cohort / f"{task.index}.lock"

    @property
    def tables(self) -> Path:
        """The group of the derived tables."""
        return self.root / "tables"

    def table_record(self, name: str) -> Path:
        """The record of a derived table."""
        return self.records / "tables" / f"{name}.json"

    def stage(self, name: str) -> Path:
        """The folder of a stage's finished parts; ``name`` includes the id of its settings."""
        return self.records / "stages" / name

    @property
    def extend_lock(self) -> Path:
        """The file that is kept locked while the store is extended."""
        return self.locks / "extend.lock"

    def check_inside(self, *places: Path) -> None:
        """Make sure that files or folders to be written lie in the store itself.

        Raises:
            StoreError: a symbolic link on the way leads elsewhere.
        """
        root = self.root.resolve()
        for place in places:
            wanted = root / place.relative_to(self.root)
            if place.resolve() != wanted:
                msg = (
                    f"{place} leads to {place.resolve()}, and nothing is written through a link"
                    " inside a store; put the folder itself there"
                )
                raise StoreError(msg)

    def name(self, path: Path) -> str:
        """Return a file's path inside the store, with slashes."""
        return path.relative_to(self.root).as_posix()
