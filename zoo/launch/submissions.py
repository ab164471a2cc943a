"""What was submitted: records beside the store, from which any machine finds jobs, tasks and logs.

The records of ``x.zarr`` lie in ``x.zarr.slurm/0001``, ``0002``, ...: nothing in them is needed to
resume, as progress lives in the store alone.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.errors import SpecError, StoreError
from zoo.launch.profile import ClusterProfile
from zoo.launch.record_folder import make_record_folder, read_json, record_folder
from zoo.paths import absolute
from zoo.plugins import recorded_plugins
from zoo.store.files import store_errors, write_atomic

__all__ = [
    "Submission",
    "Work",
    "new_submission",
    "pack_elements",
    "read_submission",
    "record_folder",
    "submission_numbers",
    "submissions",
]

#: A task of a store: cohort and index.
TaskKey = tuple[str, int]

_NUMBER = re.compile(r"[0-9]{4,9}")
_ID = re.compile(r"[0-9a-f]{8,16}")
#: The most bytes of a record; one of a million tasks has some 60 MB.
_MAX_BYTES = 1 << 28


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
        stage: what it does instead of training, empty where it trains: the ``name`` that people
            see, and the ``stage`` and its ``settings``, or the ``words`` of a verb of the command
            line and the ``program`` that understands them.
        failures: how often its tasks had failed before, where they had.
        jobs: array number → job id, as far as they were accepted.
        plugins: path → sha256 of the plug-ins that its jobs load.
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
    failures: Mapping[TaskKey, int] = field(default_factory=dict)
    jobs: Mapping[int, int] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)

    @property
    def arrays(self) -> int:
        """Number of arrays."""
        return -(-len(self.elements) // self.chunk)

    def members(self, array: int) -> range:
        """Return the elements of an array; the array's own indices begin at 0."""
        return range(array * self.chunk, min((array + 1) * self.chunk, len(self.elements)))

    def job_name(self, array: int) -> str:
        """Return the name of an array's jobs."""
        return job_name(self.profile, self.store, f"{self.id}.{array}")

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
        return log_folder(self.profile, self.folder, self.id) / f"array-{array}"

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
            "failures": [[*key, n] for key, n in self.failures.items()],
            "plugins": dict(self.plugins),
        }


def job_name(profile: ClusterProfile, store: Path, rest: str) -> str:
    """Return the name of a job: the profile's or the store's, and what tells it from others."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", store.stem)[:40]
    return f"{profile.job_name or f'zoo-{stem}'}-{rest}"


def log_folder(profile: ClusterProfile, folder: Path, name: str) -> Path:
    """Return where the logs of a submission go: beside its records, or where the profile says.

    Args:
        profile: the profile.
        folder: of the records.
        name: of the submission, among others that share a folder for logs.
    """
    if profile.logs is None:
        return folder
    stem = folder.parent.name.removesuffix(".slurm")
    return Path(profile.logs) / f"{stem}-{name}"


@dataclass(frozen=True, slots=True)
class Work:
    """What a submission is to do.

    Args:
        elements: tasks of each element of the arrays.
        seconds: each element is expected to take.
        chunk: elements of an array.
        failures: task → how often it had failed before.
        stage: a stage in place of tasks.
    """

    elements: Sequence[Sequence[TaskKey]]
    seconds: Sequence[float]
    chunk: int
    failures: Mapping[TaskKey, int] = field(default_factory=dict)
    stage: Mapping[str, Any] = field(default_factory=dict)


def new_submission(store: Path, profile: ClusterProfile, work: Work) -> Submission:
    """Record a submission under the next free number.

    Raises:
        StoreError: it cannot be written; nothing was submitted.
    """
    base = make_record_folder(store)
    with store_errors("make a folder for the jobs in", base):
        number = max(_numbers(base), default=0) + 1
        while True:
            folder = base / f"{number:04d}"
            try:
                folder.mkdir()
                break
            except FileExistsError:  # somebody submits at the same time
                number += 1
    submission = Submission(
        folder=folder,
        number=number,
        id=secrets.token_hex(4),
        store=absolute(store).resolve(),
        profile=profile,
        created=time.time(),
        elements=tuple(tuple(tasks) for tasks in work.elements),
        seconds=tuple(work.seconds),
        chunk=work.chunk,
        stage=work.stage,
        failures={key: n for key, n in work.failures.items() if n},
        plugins=recorded_plugins(),
    )
    data = json.dumps(submission.to_json(), indent=1).encode() + b"\n"
    write_atomic(folder / "submission.json", data)
    return submission


def submission_numbers(store: str | PathLike[str]) -> list[int]:
    """Return the numbers of a store's submissions, those that were never complete included."""
    return sorted(_numbers(record_folder(store)))


def _numbers(base: Path) -> Iterator[int]:
    if base.is_dir():
        for path in base.iterdir():
            if _NUMBER.fullmatch(path.name):
                yield int(path.name)


def read_submission(folder: str | PathLike[str]) -> Submission:
    """Read a submission's records.

    Raises:
        StoreError: they are not there or damaged.
    """
    path = absolute(folder)
    with store_errors("read", path / "submission.json"):
        try:
            raw = read_json(path / "submission.json", _MAX_BYTES)
            jobs = [read_json(file, 65_536) for file in sorted(path.glob("job-*.json"))]
            return _parse(path, raw, jobs)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = str(error) if type(error) is ValueError or isinstance(error, SpecError) else ""
            msg = (
                f"{path} is no whole record of a submission ({why or repr(error)}). If none of its"
                f" jobs is in the queue any more (squeue --me), move that folder away; its tasks"
                " then count as not submitted"
            )
            raise StoreError(msg) from error


def _parse(path: Path, raw: Any, jobs: list[Any]) -> Submission:
    """Return a submission; ValueError, KeyError or TypeError where it is none."""
    elements = tuple(tuple(_task(*key) for key in element) for element in raw["elements"])
    seconds = tuple(_amount("seconds", value) for value in raw["seconds"])
    name, stage = str(raw["profile"]["name"]), dict(raw["stage"])
    if not elements or len(seconds) != len(elements):
        msg = "elements and seconds do not fit each other"
        raise ValueError(msg)
    for key in ("words", "program"):
        words = stage.get(key, [])
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            msg = f"the {key} of its stage are no texts"
            raise ValueError(msg)
    plugins = dict(raw.get("plugins", {}))
    if not all(isinstance(text, str) for pair in plugins.items() for text in pair):
        msg = "its plug-ins are no texts"
        raise ValueError(msg)
    if not _ID.fullmatch(raw["id"]) or not Path(raw["store"]).is_absolute():
        msg = "its id or its store is none"
        raise ValueError(msg)
    return Submission(
        folder=path,
        number=_whole("number", raw["number"]),
        id=raw["id"],
        store=Path(raw["store"]),
        profile=ClusterProfile.from_raw(raw["profile"], name=name, source=str(path)),
        created=_amount("created", raw["created"]),
        elements=elements,
        seconds=seconds,
        chunk=_whole("chunk", raw["chunk"], least=1),
        stage=stage,
        failures={_task(c, t): _whole("failures", n) for c, t, n in raw.get("failures", [])},
        jobs=dict(
            sorted((_whole("array", j["array"]), _whole("job", j["job"], least=1)) for j in jobs)
        ),
        plugins=plugins,
    )


def _task(cohort: Any, index: Any) -> TaskKey:
    if type(cohort) is not str:
        msg = f"{cohort!r} names no cohort"
        raise ValueError(msg)
    return cohort, _whole("task", index)


def _whole(name: str, value: Any, *, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 1 << 53:
        msg = f"{name} is not a whole number from {least} on"
        raise ValueError(msg)
    return int(value)


def _amount(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        msg = f"{name} is no amount"
        raise ValueError(msg)
    return float(value)


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
