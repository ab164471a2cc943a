"""Cluster profiles: what a job asks the scheduler for, and how tasks are cut to it."""

from __future__ import annotations

import dataclasses
import os
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import Problem, SpecError, nearest
from zoo.launch.profile_rules import GPUS, STAGE_SETTINGS, minutes, typed, wrong_values
from zoo.paths import absolute

__all__ = ["ClusterProfile", "load_profile", "minutes", "profile_path"]

_REPO = Path(__file__).parents[2]
#: The most bytes of a profile.
_MAX_BYTES = 1 << 20
_FACTORS = {"K": 1 / 1024**2, "M": 1 / 1024, "G": 1.0, "T": 1024.0}


@dataclass(frozen=True, slots=True)
class ClusterProfile:
    """A profile, checked.

    Args:
        name: the file's stem.
        partition, account, qos, constraint, exclude: as ``sbatch`` has them; None = its default.
        time: limit of one array element, ``"D-HH:MM:SS"``, ``"HH:MM:SS"`` or minutes.
        cpus: cores of an element.
        gpus: GPUs of an element, all on one node.
        gpu_type: the name that the cluster gives them, or None.
        gres: generic resources in SLURM's words, for clusters that want GPUs asked for like this.
        memory: of an element (``"16GB"``); None = the cluster's default.
        device: what trains: ``"cpu"`` or ``"cuda"``.
        workers: processes of an element; None = one a GPU on ``cuda``, otherwise one per core.
        parallelism: array elements at a time, over the whole submission.
        target_minutes: how long an element should work.
        speed: how much quicker one worker is than a core of the machine that submits.
        signal_s: seconds before the limit at which an element is told to save and queue again.
        save_s: seconds between saves of unfinished checkpoints.
        lease_s: seconds without a heartbeat after which an owner counts as dead.
        max_array: the largest array; None = what the scheduler says.
        requeue: whether the scheduler may start an element again by itself.
        setup: shell lines before the start (``module load ...``); one that fails ends the job.
        environment: variables of the job.
        container: a command that a Python is run in (``apptainer exec --nv zoo.sif``).
        binds: folders that the container sees besides the store's (``/from:/to:ro``).
        python: the Python of the jobs; None = the one that submits, or ``python3`` in a container.
        job_name: what the jobs' names begin with; None = ``zoo-`` and the store's name.
        logs: a folder for the logs, absolute; None = beside the store.
        stages: settings of :data:`STAGE_SETTINGS` for stages that run on cores alone.
        sbatch: any further options of ``sbatch``, without the dashes.
        srun: further words for ``srun``.
    """

    name: str
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    time: str = "1:00:00"
    cpus: int = 1
    gpus: int = 0
    gpu_type: str | None = None
    gres: str | None = None
    memory: str | None = None
    device: str = "cpu"
    workers: int | None = None
    parallelism: int = 64
    target_minutes: float = 30.0
    speed: float = 1.0
    signal_s: int = 180
    save_s: float = 180.0
    lease_s: float = 90.0
    max_array: int | None = None
    requeue: bool = True
    setup: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    container: str | None = None
    binds: tuple[str, ...] = ()
    python: str | None = None
    job_name: str | None = None
    logs: str | None = None
    stages: Mapping[str, Any] = field(default_factory=dict)
    sbatch: Mapping[str, Any] = field(default_factory=dict)
    srun: tuple[str, ...] = ()

    @property
    def processes(self) -> int:
        """Worker processes of an element."""
        if self.workers is not None:
            return self.workers
        return self.gpus if self.device == "cuda" else self.cpus

    @property
    def limit_s(self) -> float:
        """Time limit of an element (s)."""
        return minutes(self.time) * 60

    @property
    def memory_gb(self) -> float | None:
        """Memory of an element (GiB)."""
        if self.memory is None:
            return None
        text = self.memory.upper().removesuffix("B")
        unit = text[-1] if text[-1] in _FACTORS else "M"
        return float(text.rstrip("KMGT")) * _FACTORS[unit]

    def scaled(self, *, memory: float = 1.0, time: float = 1.0) -> ClusterProfile:
        """Return the profile with more memory and time, for a retry."""
        gigabytes = self.memory_gb
        return dataclasses.replace(
            self,
            time=str(max(round(minutes(self.time) * time), 1)),
            memory=self.memory if gigabytes is None else f"{round(gigabytes * memory * 1024)}MB",
        )

    def for_stage(self, *, cpus: int | None = None) -> ClusterProfile:
        """Return the profile of a stage that runs on cores: without GPUs, and as ``stages`` says.

        Args:
            cpus: cores that the stage can use; None = all of them.
        """
        others = [g for g in (self.gres or "").split(",") if g and not GPUS.fullmatch(g)]
        own: dict[str, Any] = {
            "gpus": 0, "gpu_type": None, "device": "cpu", "workers": None,
            "gres": ",".join(others) or None, "cpus": cpus or self.cpus, **self.stages,
        }  # fmt: skip
        if "time" in own:
            own["time"] = str(own["time"])
            own["signal_s"] = min(self.signal_s, int(minutes(own["time"]) * 60) - 1)
        return dataclasses.replace(self, **own)

    def to_json(self) -> dict[str, Any]:
        """Return the profile, JSON-ready; :meth:`from_raw` reads it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in ((n, getattr(self, n)) for n in self.__slots__)
            if value is not None
        }

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any], *, name: str, source: str) -> ClusterProfile:
        """Return a profile from the tables of its file.

        Raises:
            SpecError: everything that is wrong with it.
        """
        fields = typing.get_type_hints(cls)
        problems = []
        values: dict[str, Any] = {"name": name}
        for key, value in raw.items():
            if key == "name":
                continue
            if key not in fields:
                close = nearest(key, fields)
                fix = f"did you mean {close!r}?" if close else ""
                message = "unknown setting"
                problems.append(Problem(key, None, message, ", ".join(sorted(fields)), fix))
                continue
            found = typed(key, value, fields[key])
            if isinstance(found, Problem):
                problems.append(found)
            else:
                values[key] = found
        problems += _gpus_of_gres(values)
        problems += wrong_values({**_defaults(), **values}, set(values) - {"name"})
        problems += _wrong_stages(values.get("stages", {}), fields)
        if problems:
            raise SpecError(problems, source)
        return cls(**values)


def _defaults() -> dict[str, Any]:
    return {
        f.name: f.default_factory() if callable(f.default_factory) else f.default
        for f in dataclasses.fields(ClusterProfile)
    }


def _gpus_of_gres(values: dict[str, Any]) -> list[Problem]:
    """Let ``gpus`` and ``gpu_type`` follow from ``gres`` where that has GPUs."""
    words = str(values.get("gres", "")).split(",")
    match = next((m for m in map(GPUS.fullmatch, words) if m), None)
    if match is None:
        return []
    facts = {"gpus": int(match["count"] or 1), "gpu_type": match["type"]}
    problems = [
        Problem(name, values[name], f"differs from gres = {values['gres']!r}", fix="leave it out")
        for name, wanted in facts.items()
        if name in values and wanted is not None and values[name] != wanted
    ]
    values["gpus"] = facts["gpus"]
    return problems


def _wrong_stages(stages: Mapping[str, Any], fields: Mapping[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    good: dict[str, Any] = {}
    for key, value in stages.items():
        if key not in STAGE_SETTINGS:
            allowed = ", ".join(STAGE_SETTINGS)
            problems.append(Problem(f"stages.{key}", None, "unknown setting", allowed))
            continue
        found = typed(key, value, fields[key])
        if isinstance(found, Problem):
            problems.append(found)
        else:
            good[key] = found
    problems += wrong_values({**_defaults(), "signal_s": 0, **good}, set(good))
    return [
        p if p.field.startswith("stages.") else dataclasses.replace(p, field=f"stages.{p.field}")
        for p in problems
    ]


def profile_path(profile: str | os.PathLike[str]) -> Path:
    """Return the file of a profile: a path, or the name of a file in ``slurm/``.

    Raises:
        SpecError: there is none.
    """
    path = absolute(profile)
    if path.suffix == ".toml" and path.is_file():
        return path
    folders = (Path("slurm"), _REPO / "slurm")
    for folder in folders:
        if (folder / f"{profile}.toml").is_file():
            return folder / f"{profile}.toml"
    known = sorted({p.stem for folder in folders for p in folder.glob("*.toml")})
    problem = Problem(
        "--cluster",
        str(profile),
        "no such profile",
        ", ".join(known) or "the path of a .toml file",
        "or the path of a .toml file; docs/slurm.md says how to write one",
    )
    raise SpecError([problem], "cluster profile")


def load_profile(profile: str | os.PathLike[str]) -> ClusterProfile:
    """Read a profile.

    Args:
        profile: a path, or the name of a file in ``slurm/``.

    Raises:
        SpecError: no such file, no TOML, or everything that is wrong in it.
    """
    path = profile_path(profile)
    raw = _read(path)
    if isinstance(raw.get("logs"), str):
        raw["logs"] = str(absolute(raw["logs"]))
    return ClusterProfile.from_raw(raw, name=path.stem, source=str(path))


def _read(path: Path) -> dict[str, Any]:
    """Return the tables of a file that anybody may have written."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) <= _MAX_BYTES:
            return tomllib.loads(data.decode("utf-8-sig"))
        what = f"has more than {_MAX_BYTES:,} bytes, so it is no profile"
    except OSError as error:
        what = f"cannot be read: {error}"
    except RecursionError:
        what = "is nested too deeply"
    except ValueError as error:  # no TOML, no UTF-8, or a number of thousands of digits
        what = f"is no TOML: {error}"
    raise SpecError([Problem("file", None, what)], str(path))
