"""Files beside the results: snapshots, stages' parts, and the states that training resumes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from zoo.errors import StoreError
from zoo.paths import is_clutter
from zoo.store.commits import Commit
from zoo.store.paths import StorePaths
from zoo.store.resume import pause_problem, read_resume
from zoo.store.snapshot import read_snapshot
from zoo.train.plan import Cohort, Task

__all__ = ["snapshot_files", "snapshot_problem", "stage_folders", "state_damage"]


def snapshot_files(paths: StorePaths) -> list[Path]:
    """Return the records of snapshots."""
    files = (paths.records / "snapshots").glob("*.json")
    return sorted(file for file in files if not is_clutter(file))


def snapshot_problem(file: Path) -> str | None:
    """Return what is wrong with the record of a snapshot, a clause; None if it is sound."""
    try:
        read_snapshot(file)
    except StoreError as error:
        what = str(error).removeprefix(f"{file} ").partition(";")[0]
        return what if file.exists() else None
    return None


def stage_folders(paths: StorePaths) -> list[Path]:
    """Return the folders of stages that have a finished part or settings."""
    files = (paths.records / "stages").glob("*/*")
    names = {f.parent for f in files if f.suffix == ".npz" or f.name == "settings.json"}
    return sorted(names)


def state_damage(
    paths: StorePaths, cohort: Cohort, task: Task, commits: Sequence[Commit]
) -> Iterator[tuple[Path, str]]:
    """Yield each damaged state that training would resume from, and what is wrong with it."""
    for commit in commits:
        file = paths.resume(task, commit.index)
        if file.exists():
            try:
                read_resume(paths, task, commit.index, commit.resume)
            except StoreError:
                if file.exists():
                    yield file, "is not as it was written"
    what = pause_problem(paths, cohort, task)
    if what is not None:
        yield paths.pause(task), what
