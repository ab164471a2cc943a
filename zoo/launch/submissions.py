"""What was submitted: records beside the store, from which any machine finds jobs, tasks and logs.

The records of ``x.zarr`` lie in ``x.zarr.slurm/0001``, ``0002``, ...: nothing in them is needed to
go on, as progress lives in the store alone.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.errors import StoreError
from zoo.launch.profile import ClusterProfile
from zoo.store.files import ensure_folder, store_errors, write_atomic

__all__ = [
    "Submission",
    "new_submission",
    "pack_elements",
    "read_submission",
    "record_folder",
    "submissions",
]

#: A task of a store: cohort and index.
TaskKey = tuple[str, int]


def record_folder(store: str | PathLike[str]) -> Path:
    """Return the folder of a store's submissions; it may not be there."""
    path = Path(store)
    return path.parent / f"{path.name}.slurm"


@dataclass(frozen=True, slots=True)
class Submission:
    """One call of ``zoo submit``: elements, cut into arrays that the scheduler accepts.

    Args:
        folder: where its records are.
        number: 1, 2, ... for the store.
        id: eight letters that no other submission has; part of the name of its jobs.
        store: the store, absolute.
        profile: as it was then.
        created: seconds since 1970.
        elements: the tasks of each array element.
        seconds: what each element was expected to take.
        chunk: elements of an array, but for the last.
        stage: name and settings of a stage; empty where it trains.
        jobs: array number → job id, as far as they were accepted.
    """

    folder: Path
    number: int
    id: str
    store: Path
    profile: ClusterProfile
    created: float
    elements: tuple[tuple[TaskKey, ...], ...]
    seconds: tuple[float, ...]
    chunk: int
    stage: Mapping[str, Any] = field(default_factory=dict)
    jobs: Mapping[int, int] = field(default_factory=dict)

    @property
    def arrays(self) -> int:
        """Number of arrays."""
        return -(-len(self.elements) // self.chunk)

    def members(self, array: int) -> range:
        """Return the elements of an array; the array's own indices begin at 0."""
        return range(array * self.chunk, min((array + 1) * self.chunk, len(self.elements)))

    def job_name(self, array: int) -> str:
        """Return the name of an array's jobs."""
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", self.store.stem)[:40]
        return f"zoo-{stem}-{self.id}.{array}"

    def place(self, element: int) -> tuple[int, int | None]:
        """Return array and index of an element; SLURM gives an array of one no index."""
        array, index = divmod(element, self.chunk)
        return array, (None if len(self.members(array)) == 1 else index)

    def job_id(self, element: int) -> str | None:
        """Return what SLURM calls an element; None if it was not accepted."""
        array, index = self.place(element)
        if array not in self.jobs:
            return None
        return f"{self.jobs[array]}" + ("" if index is None else f"_{index}")

    def array_folder(self, array: int) -> Path:
        """Return the folder of an array's logs."""
        return self.folder / f"array-{array}"

    def logs(self, element: int) -> tuple[Path, Path] | None:
        """Return the files of an element's output and errors; None if it was not accepted."""
        job = self.job_id(element)
        if job is None:
            return None
        folder = self.array_folder(self.place(element)[0])
        return folder / f"{job}_0_log.out", folder / f"{job}_0_log.err"

    def accepted(self, array: int, job: int) -> None:
        """Record the job id of an array.

        Raises:
            StoreError: it cannot be written; the jobs are found by their name then.
        """
        data = json.dumps({"array": array, "job": job}).encode() + b"\n"
        write_atomic(self.folder / f"job-{array}.json", data)

    def to_json(self) -> dict[str, Any]:
        """Return what is recorded before the jobs are accepted."""
        return {
            "number": self.number,
            "id": self.id,
            "store": str(self.store),
            "profile": self.profile.to_json(),
            "created": self.created,
            "elements": [[list(key) for key in tasks] for tasks in self.elements],
            "seconds": list(self.seconds),
            "chunk": self.chunk,
            "stage": dict(self.stage),
        }


def new_submission(
    store: Path,
    profile: ClusterProfile,
    elements: Sequence[Sequence[TaskKey]],
    seconds: Sequence[float],
    *,
    chunk: int,
    stage: Mapping[str, Any] | None = None,
) -> Submission:
    """Record a submission under the next free number.

    Raises:
        StoreError: it cannot be written; nothing was submitted.
    """
    base = record_folder(store)
    with store_errors("make a folder for the jobs in", base):
        ensure_folder(base)
        number = max(_numbers(base), default=0) + 1
        while True:
            folder = base / f"{number:04d}"
            try:
                folder.mkdir()
                break
            except FileExistsError:  # somebody submits at the same time
                number += 1
    submission = Submission(
        folder=folder.absolute(),
        number=number,
        id=secrets.token_hex(4),
        store=store.absolute(),
        profile=profile,
        created=time.time(),
        elements=tuple(tuple(tasks) for tasks in elements),
        seconds=tuple(seconds),
        chunk=chunk,
        stage=stage or {},
    )
    data = json.dumps(submission.to_json(), indent=1).encode() + b"\n"
    write_atomic(folder / "submission.json", data)
    return submission


def _numbers(base: Path) -> Iterator[int]:
    if base.is_dir():
        for path in base.iterdir():
            if path.name.isdecimal():
                yield int(path.name)


def read_submission(folder: str | PathLike[str]) -> Submission:
    """Read a submission's records.

    Raises:
        StoreError: they are not there or damaged.
    """
    path = Path(folder)
    with store_errors("read", path / "submission.json"):
        try:
            raw = json.loads((path / "submission.json").read_bytes())
            jobs = [json.loads(file.read_bytes()) for file in sorted(path.glob("job-*.json"))]
            return Submission(
                folder=path.absolute(),
                number=raw["number"],
                id=raw["id"],
                store=Path(raw["store"]),
                profile=ClusterProfile.from_raw(
                    raw["profile"], name=raw["profile"]["name"], source=str(path)
                ),
                created=raw["created"],
                elements=tuple(tuple((c, t) for c, t in e) for e in raw["elements"]),
                seconds=tuple(raw["seconds"]),
                chunk=raw["chunk"],
                stage=raw["stage"],
                jobs={job["array"]: job["job"] for job in sorted(jobs, key=lambda j: j["array"])},
            )
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{path} is no whole record of a submission: {error!r}"
            raise StoreError(msg) from error


def submissions(store: str | PathLike[str]) -> list[Submission]:
    """Return every submission of a store, oldest first; changes nothing.

    Raises:
        StoreError: a record is damaged.
    """
    base = record_folder(store)
    folders = [base / f"{number:04d}" for number in sorted(_numbers(base))]
    return [read_submission(f) for f in folders if (f / "submission.json").exists()]


def pack_elements(
    seconds: Mapping[TaskKey, float], *, capacity_s: float
) -> list[tuple[TaskKey, ...]]:
    """Return the tasks of each array element: as few elements as fit, the longest first.

    Args:
        seconds: worker seconds of each task.
        capacity_s: worker seconds of an element; a task that takes longer gets one alone.
    """
    elements: list[list[TaskKey]] = []
    room: list[float] = []
    for key in sorted(seconds, key=lambda k: -seconds[k]):
        cost = seconds[key]
        place = next((i for i, left in enumerate(room) if cost <= left), None)
        if place is None:
            elements.append([key])
            room.append(capacity_s - cost)
        else:
            elements[place].append(key)
            room[place] -= cost
    return [tuple(tasks) for tasks in elements]
