"""Cluster profiles: what a job asks the scheduler for, and how tasks are cut to it."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import Problem, SpecError, nearest

__all__ = ["ClusterProfile", "load_profile", "minutes", "profile_path"]

_REPO = Path(__file__).parents[2]
_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?$")
_MEMORY = re.compile(r"\d+(\.\d+)?[KMGT]?B?$", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*$")
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
        memory: of an element (``"16GB"``); None = the cluster's default.
        device: what trains: ``"cpu"`` or ``"cuda"``.
        workers: processes of an element; None = one a GPU on ``cuda``, otherwise one a core.
        parallelism: array elements at a time, over the whole submission.
        target_minutes: how long an element should work.
        speed: how much quicker one worker is than a core of the machine that submits.
        signal_s: seconds before the limit at which an element is told to save and queue again.
        save_s: seconds between saves of unfinished checkpoints.
        lease_s: seconds without a heartbeat after which an owner counts as dead.
        max_array: the largest array; None = what the scheduler says.
        requeue: whether the scheduler may start an element again by itself.
        setup: shell lines before the start (``module load ...``).
        environment: variables of the job.
        container: a command that a Python is run in (``apptainer exec --nv zoo.sif``).
        python: the Python of the jobs; None = the one that submits, or ``python3`` in a container.
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
    python: str | None = None
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
            found = _typed(key, value, fields[key])
            if isinstance(found, Problem):
                problems.append(found)
            else:
                values[key] = found
        whole = {f.name: f.default for f in dataclasses.fields(cls)} | values
        problems += _wrong_values(whole, set(values))
        if problems:
            raise SpecError(problems, source)
        return cls(**values)


def _typed(key: str, value: Any, hint: Any) -> Any:
    """Return the value as the field's type, or the problem."""
    if key == "time" and type(value) is int:
        value = str(value)
    if key in ("setup", "srun"):
        good = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
        return tuple(value) if good else Problem(key, value, "is not a list of texts")
    if key in ("environment", "sbatch"):
        kinds = (str,) if key == "environment" else (str, int, float)
        good = isinstance(value, Mapping) and all(isinstance(v, kinds) for v in value.values())
        return dict(value) if good else Problem(key, value, "is not a table of plain values")
    options: tuple[Any, ...] = typing.get_args(hint) or (hint,)
    wanted = next(k for k in options if k is not types.NoneType)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
        return Problem(key, value, f"is not {names[wanted]}")
    return value


def _wrong_values(values: Mapping[str, Any], given: set[str]) -> list[Problem]:
    """Return what is wrong with values of the right types; only given fields are looked at."""
    checks: dict[str, tuple[Any, str]] = {
        "time": (lambda v: minutes(v) > 0, "minutes, 'HH:MM:SS' or 'D-HH:MM:SS'"),
        "memory": (_MEMORY.fullmatch, "a number with MB, GB or TB"),
        "device": (lambda v: v in ("cpu", "cuda"), "cpu, cuda"),
        "cpus": (lambda v: v >= 1, ">= 1"),
        "gpus": (lambda v: v >= 0, ">= 0"),
        "workers": (lambda v: v >= 1, ">= 1"),
        "parallelism": (lambda v: v >= 1, ">= 1"),
        "target_minutes": (lambda v: v > 0, "> 0"),
        "speed": (lambda v: v > 0, "> 0"),
        "signal_s": (lambda v: 0 <= v <= 65535, "0 to 65535 s"),
        "save_s": (lambda v: v > 0, "> 0"),
        "lease_s": (lambda v: v > 0, "> 0"),
        "max_array": (lambda v: v >= 1, ">= 1"),
        "environment": (lambda v: all(map(_VARIABLE.fullmatch, v)), "names of variables"),
    }
    problems = [
        Problem(name, values[name], "is out of range or not of this form", allowed)
        for name, (good, allowed) in checks.items()
        if name in given and not good(values[name])
    ]
    if values["device"] == "cuda" and values["gpus"] == 0:
        message = "device = 'cuda' needs GPUs"
        problems.append(Problem("gpus", 0, message, ">= 1", "or write device = 'cpu'"))
    if not problems and values["signal_s"] >= minutes(values["time"]) * 60:
        message = "the warning would come before the start"
        problems.append(Problem("signal_s", values["signal_s"], message, f"< {values['time']}"))
    return problems


def minutes(text: str) -> float:
    """Return a time limit in minutes; 0 where it is none."""
    if text.isdecimal():
        return float(text)
    match = _TIME.fullmatch(text)
    if match is None:
        return 0.0
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[4] is None and match[1] is not None:  # D-HH:MM
        return days * 1440.0 + first * 60 + second
    if match[4] is None:  # MM:SS
        return first + second / 60
    return days * 1440.0 + first * 60 + second + third / 60


def profile_path(profile: str | os.PathLike[str]) -> Path:
    """Return the file of a profile: a path, or the name of a file in ``slurm/``.

    Raises:
        SpecError: there is none.
    """
    path = Path(profile)
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
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError([Problem("file", None, f"is no TOML: {error}")], str(path)) from None
    except OSError as error:
        raise SpecError([Problem("file", None, f"cannot be read: {error}")], str(path)) from None
    return ClusterProfile.from_raw(raw, name=path.stem, source=str(path))
