"""What a cluster profile may say: rules for its values, each with a sentence for who broke it."""

from __future__ import annotations

import math
import re
import shlex
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zoo.errors import Problem

__all__ = ["GPUS", "STAGE_SETTINGS", "minutes", "typed", "wrong_values"]

#: GPUs in the words of ``gres``: ``gpu``, ``gpu:4``, ``gpu:a100:4``.
GPUS = re.compile(r"(?:gres:)?gpu(?::(?P<type>[A-Za-z][\w.-]*))?(?::(?P<count>[0-9]{1,6}))?", re.A)
#: Settings that ``[stages]`` may give again.
STAGE_SETTINGS = (
    "partition", "account", "qos", "constraint", "exclude", "time", "cpus", "memory",
)  # fmt: skip

_TIME = re.compile(r"(?:(\d{1,6})-)?(\d{1,8}):(\d\d)(?::(\d\d))?", re.A)
_MEMORY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?[KMGT]?B?", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}")
_GRES = re.compile(r"[\w.-]+(:[\w.-]+){0,2}(,[\w.-]+(:[\w.-]+){0,2})*", re.A)
_OPTION = re.compile(r"[a-z][a-z0-9-]+")
_BIND = re.compile(r"(?P<from>/[^:,]*)(:/[^:,]*)?(:(ro|rw))?")
_TOP = 10_000_000

#: Options of sbatch that phasezoo sets, and what to write instead.
_OWNED = {
    "array": "the tasks decide on the elements; see max_array and parallelism",
    "output": "the logs belong to the submission; another folder is the setting logs",
    "error": "the logs belong to the submission; another folder is the setting logs",
    "input": "nothing is read",
    "open-mode": "logs are appended to, so that a requeue keeps them",
    "job-name": "write job_name",
    "signal": "write signal_s",
    "dependency": "stages wait for what comes before them; see --then",
    "requeue": "write requeue",
    "no-requeue": "write requeue = false",
    "time": "write time",
    "nodes": "an element is one task on one node",
    "ntasks": "an element is one task on one node",
    "ntasks-per-node": "an element is one task on one node",
    "cpus-per-task": "write cpus",
    "gpus": "write gpus, and gpu_type",
    "gpus-per-node": "write gpus, and gpu_type",
    "gpus-per-task": "write gpus, and gpu_type",
    "gpus-per-socket": "write gpus, and gpu_type",
    "gres": "write gres",
    "mem": "write memory",
    "clusters": "set SLURM_CLUSTERS before you call zoo, so that squeue and sacct ask the same one",
    "wrap": "phasezoo writes the script",
    "parsable": "phasezoo reads the answer",
    "wait": "zoo submit returns at once",
    "test-only": "use zoo submit --test-only",
    **dict.fromkeys(("partition", "account", "qos", "constraint", "exclude"), ""),
}
#: The same of srun.
_SRUN_OWNED = ("output", "error", "input", "ntasks", "nodes", "cpus-per-task", "job-name", "jobid")
_SRUN_SHORT = "oeinNcJ"


def typed(key: str, value: Any, hint: Any) -> Any:
    """Return the value as the field's type, or the problem."""
    if key == "time" and type(value) is int:
        value = str(value)
    if key in ("setup", "srun", "binds"):
        good = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
        return tuple(value) if good else Problem(key, value, "is not a list of texts")
    if key in ("environment", "sbatch", "stages"):
        kinds = (str,) if key == "environment" else (str, int, float)
        good = isinstance(value, Mapping) and all(isinstance(v, kinds) for v in value.values())
        return dict(value) if good else Problem(key, value, "is not a table of plain values")
    options: tuple[Any, ...] = typing.get_args(hint) or (hint,)
    wanted = next(k for k in options if k is not types.NoneType)
    if wanted is float and type(value) is int and abs(value) < _TOP:
        return float(value)
    if type(value) is not wanted:
        names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
        return Problem(key, value, f"is not {names[wanted]}")
    return value


def wrong_values(values: Mapping[str, Any], given: set[str]) -> list[Problem]:
    """Return what is wrong with values of the right types.

    Args:
        values: of every setting.
        given: the settings that the profile has; only these are looked at one by one.
    """
    problems = [p for name in sorted(given) for p in _lines(name, values[name])]
    odd = {problem.field.partition(".")[0].partition("[")[0] for problem in problems}
    problems += [
        Problem(name, values[name], "is out of range or not of this form", allowed)
        for name, (good, allowed) in _CHECKS.items()
        if name in given - odd and not good(values[name])
    ]
    for name, rule in (("sbatch", _sbatch), ("srun", _srun), ("binds", _binds)):
        if name in given - odd:
            problems += rule(values)
    problems += _together(values, given, safe=not problems)
    return problems


def _between(least: float, most: float) -> tuple[Callable[[float], bool], str]:
    return (lambda value: least <= value <= most), f"{least:g} to {most:,g}"


def _above_zero(most: float) -> tuple[Callable[[float], bool], str]:
    return (lambda value: 0 < value <= most), f"above 0, at most {most:,g}"


def _is_command(text: str) -> bool:
    try:
        return bool(shlex.split(text))
    except ValueError:  # a quotation mark without its partner
        return False


_CHECKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "time": (lambda v: 0 < minutes(v) <= _TOP, "minutes, 'HH:MM:SS' or 'D-HH:MM:SS'"),
    "memory": (_MEMORY.fullmatch, "a number with MB, GB or TB"),
    "device": (lambda v: v in ("cpu", "cuda"), "cpu, cuda"),
    "cpus": _between(1, 100_000),
    "gpus": _between(0, 10_000),
    "workers": _between(1, 100_000),
    "parallelism": _between(1, _TOP),
    "target_minutes": _above_zero(_TOP),
    "speed": _above_zero(1e6),
    "signal_s": _between(0, 65_535),
    "save_s": _above_zero(_TOP),
    "lease_s": _between(0.1, 86_400),
    "max_array": _between(1, _TOP),
    "environment": (lambda v: all(map(_VARIABLE.fullmatch, v)), "names of variables"),
    "gres": (_GRES.fullmatch, "'NAME:COUNT' or 'NAME:TYPE:COUNT', with commas between several"),
    "job_name": (_NAME.fullmatch, "letters, digits, dots, hyphens and underscores, at most 60"),
    "gpu_type": (re.compile(r"[\w.-]+", re.A).fullmatch, "one word, as the cluster has it"),
    "logs": (lambda v: "%" not in v and "\\" not in v, "a folder without % and backslashes"),
    **dict.fromkeys(("container", "python"), (_is_command, "a command with its words")),
    **dict.fromkeys(("partition", "account", "qos", "constraint", "exclude"), (bool, "a text")),
}


def _lines(name: str, value: Any) -> list[Problem]:
    """Return a problem for each text with a character that could end a line of the script."""
    if isinstance(value, str):
        texts = {name: value}
    elif isinstance(value, Mapping):
        texts = {f"{name}.{key!s}": f"{key!s}{text!s}" for key, text in value.items()}
    elif isinstance(value, tuple):
        texts = {f"{name}[{n}]": text for n, text in enumerate(value)}
    else:
        return []
    fix = "write one entry for each line" if name == "setup" else ""
    return [
        Problem(repr(place)[1:-1], text, "has a line break or a control character", fix=fix)
        for place, text in texts.items()
        if not text.replace("\t", " ").isprintable()
    ]


def _sbatch(values: Mapping[str, Any]) -> Iterable[Problem]:
    for raw, value in values["sbatch"].items():
        key = raw.replace("_", "-").lstrip("-")
        place = f"sbatch.{raw}"
        if not _OPTION.fullmatch(key):
            yield Problem(place, value, "is no option", "long names of sbatch, without the dashes")
            continue
        # sbatch takes any beginning of an option's name for the option
        owned = next((o for o in _OWNED if o == key or (o.startswith(key))), None)
        if owned is not None:
            fix = _OWNED[owned] or f"write the setting {owned}"
            yield Problem(place, value, "is set by phasezoo itself", fix=fix)
        elif value is False:
            yield Problem(place, value, "cannot be switched off", fix="leave it out")
        elif isinstance(value, float) and not math.isfinite(value):
            yield Problem(place, value, "is no number")
        elif key in ("mem-per-cpu", "mem-per-gpu") and values["memory"] is not None:
            yield Problem(place, value, "and memory exclude each other", fix="leave one out")


def _srun(values: Mapping[str, Any]) -> Iterable[Problem]:
    for number, word in enumerate(values["srun"]):
        name = word.removeprefix("--").partition("=")[0]
        long = word.startswith("--") and name and any(o.startswith(name) for o in _SRUN_OWNED)
        short = re.match(rf"-[{_SRUN_SHORT}]", word)
        if long or short:
            yield Problem(f"srun[{number}]", word, "is set by phasezoo itself", fix="leave it out")


def _binds(values: Mapping[str, Any]) -> Iterable[Problem]:
    allowed = "'/FROM', '/FROM:/TO' or '/FROM:/TO:ro', absolute, without commas"
    for number, text in enumerate(values["binds"]):
        if not _BIND.fullmatch(text):
            yield Problem(f"binds[{number}]", text, "is no bind", allowed)
    if values["binds"] and values["container"] is None:
        yield Problem("binds", None, "needs a container", fix="give container, or leave it out")


def _together(values: Mapping[str, Any], given: set[str], *, safe: bool) -> list[Problem]:
    """Return the settings that do not go together."""
    problems = []
    if values["device"] == "cuda" and values["gpus"] == 0:
        message = "device = 'cuda' needs GPUs"
        problems.append(Problem("gpus", 0, message, ">= 1", "or write device = 'cpu'"))
    if values["gpus"] and "device" not in given:
        problems.append(
            Problem(
                "device",
                None,
                f"is missing: {values['gpus']} GPUs are asked for, but cores would train",
                "'cuda' to train on the GPUs, 'cpu' to have them idle",
                "write device = 'cuda'",
            )
        )
    if safe and values["signal_s"] >= minutes(values["time"]) * 60:
        message = "the warning would come before the start"
        problems.append(Problem("signal_s", values["signal_s"], message, f"< {values['time']}"))
    return problems


def minutes(text: str) -> float:
    """Return a time limit in minutes; 0 where it is none."""
    if re.fullmatch(r"[0-9]{1,12}", text):
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
