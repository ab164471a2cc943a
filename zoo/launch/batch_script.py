"""The script that ``sbatch`` gets, as plain text: from a profile alone, without submitit or SLURM.

:mod:`zoo.launch.slurm` hands the same words to submitit, which writes the same script; the tests
hold the two together. Every value is one quoted word of one line: the rules of profiles refuse
line breaks, and :func:`check_folder` refuses paths that SLURM would read otherwise than they are.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import Problem, SpecError
from zoo.launch.profile import ClusterProfile
from zoo.launch.profile_rules import GPUS

__all__ = ["Batch", "check_folder", "check_shell", "command", "parameters", "script"]

_VARIABLE = re.compile(r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})", re.ASCII)
_FAILED = """\
zoo_failed() {
  echo "zoo: line $1 of the profile's setup failed with exit code $2, so the job ends: $3" >&2
  exit "$2"
}"""


@dataclass(frozen=True, slots=True)
class Batch:
    """One array of jobs, or one job.

    Args:
        profile: what it asks for.
        name: of the job.
        folder: of its logs, absolute.
        elements: of the array; 1 = a plain job.
        parallelism: elements at a time.
        dependency: in SLURM's words; None = begin at once.
        store: the store; a container sees its folder.
    """

    profile: ClusterProfile
    name: str
    folder: Path
    elements: int
    parallelism: int
    dependency: str | None
    store: Path


def check_folder(path: Path) -> None:
    """Make sure that jobs can have their logs in a folder.

    Raises:
        SpecError: SLURM would read its name otherwise than it is.
    """
    text = str(path)
    problems = []
    if not text.isprintable():
        message = "has a line break or a control character, which would break the batch script"
        problems.append(Problem("store", text, message, fix="rename the folder"))
    if "%" in text or "\\" in text:
        message = "has a character that SLURM replaces in the names of log files (% or \\)"
        problems.append(Problem("store", text, message, fix="rename the folder, or set logs"))
    if problems:
        raise SpecError(problems, "submit")


def parameters(batch: Batch) -> dict[str, Any]:
    """Return what a job asks for, in submitit's words."""
    profile = batch.profile
    more: dict[str, Any] = {}
    if profile.memory is not None:
        more["mem"] = f"{round((profile.memory_gb or 0) * 1024)}M"
    more["requeue" if profile.requeue else "no-requeue"] = True
    further = {k.replace("_", "-").lstrip("-"): v for k, v in profile.sbatch.items()}
    found: dict[str, Any] = {
        "job_name": batch.name,
        "time": math.ceil(profile.limit_s / 60),
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": profile.cpus,
        "signal_delay_s": profile.signal_s,
        "array_parallelism": max(batch.parallelism, 1),
        "setup": _setup(batch) or None,
        # srun no longer takes the cores from sbatch since SLURM 22.05; and whatever sbatch was
        # told to hand on, the step gets what the lines before it set
        "srun_args": [f"--cpus-per-task={profile.cpus}", "--export=ALL", *profile.srun],
        "additional_parameters": {**more, **further},
    }
    for key in ("partition", "account", "qos", "constraint", "exclude", "gres"):
        if getattr(profile, key) is not None:
            found[key] = getattr(profile, key)
    in_gres = any(GPUS.fullmatch(word) for word in (profile.gres or "").split(","))
    if profile.gpus and not in_gres:
        kind = f"{profile.gpu_type}:" if profile.gpu_type else ""
        found["gpus_per_node"] = f"{kind}{profile.gpus}"
    if batch.dependency is not None:
        found["dependency"] = batch.dependency
    return found


def _setup(batch: Batch) -> list[str]:
    """Return the lines before the start; a line of the profile that fails ends the job."""
    profile = batch.profile
    lines = [f"export {name}={shlex.quote(text)}" for name, text in profile.environment.items()]
    if profile.container is not None:
        lines += _binds(batch)
    shell = _shell_lines(profile)
    if shell:
        lines += _FAILED.splitlines()
    for number, text in shell.items():
        lines += [f"{{ {text}", f"}} || zoo_failed {number} $? {shlex.quote(text)}"]
    return lines


def _shell_lines(profile: ClusterProfile) -> dict[int, str]:
    """Return the lines of a profile's setup by their number from 1, but for comments."""
    texts = enumerate(profile.setup, 1)
    return {n: text for n, text in texts if text.strip() and not text.lstrip().startswith("#")}


def _binds(batch: Batch) -> list[str]:
    """Return what lets a container see the store, the logs, and what the profile wants it to."""
    own = [batch.store.parent]
    if not batch.folder.is_relative_to(batch.store.parent):
        own.append(batch.folder)
    text = ",".join([*(str(path) for path in own if not _odd(path)), *batch.profile.binds])
    return [
        f'export {name}={shlex.quote(text)}"${{{name}:+,${name}}}"'
        for name in ("APPTAINER_BIND", "SINGULARITY_BIND")
    ]


def _odd(path: Path) -> bool:
    return "," in str(path) or ":" in str(path)


def command(profile: ClusterProfile) -> str:
    """Return the words that start Python in a job, for the shell."""
    python = profile.python or ("python3" if profile.container else shlex.quote(sys.executable))
    words = [*shlex.split(profile.container or ""), *shlex.split(python)]
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """Return a word for the shell; of all that a shell does, only variables and ~ are put in."""
    if word.startswith("~/"):
        word = f"$HOME{word[1:]}"
    if not _VARIABLE.search(word):
        return shlex.quote(word)
    rest = re.sub(r'["\\`]', r"\\\g<0>", word)
    return '"' + re.sub(r"\$(?!\w|\{[A-Za-z_]\w*\})", r"\\$", rest) + '"'


def script(batch: Batch) -> str:
    """Return the whole script."""
    words = parameters(batch)
    lines = ["#!/bin/bash", "", "# Parameters"]
    lines += [_flag(name, value) for name, value in sorted(_flags(batch, words).items())]
    if words["setup"]:
        lines += ["", "# setup", *words["setup"]]
    pattern = "%A_%a" if batch.elements > 1 else "%j"
    logs = {end: str(batch.folder / f"{pattern}_%t_log.{end}") for end in ("out", "err")}
    srun = ["srun", "--unbuffered", "--output", logs["out"], "--error", logs["err"]]
    start = f"{command(batch.profile)} -u -m submitit.core._submit {shlex.quote(str(batch.folder))}"
    lines += ["", "# command", "export SUBMITIT_EXECUTOR=slurm"]
    lines += [f"{shlex.join([*srun, *words['srun_args']])} {start}", ""]
    return "\n".join(lines)


def _flags(batch: Batch, words: Mapping[str, Any]) -> dict[str, Any]:
    apart = {
        "setup", "srun_args", "additional_parameters", "array_parallelism", "signal_delay_s"
    }  # fmt: skip
    found = {name: value for name, value in words.items() if name not in apart}
    found["signal"] = f"USR2@{words['signal_delay_s']}"
    found["wckey"] = "submitit"
    pattern = "%j"
    if batch.elements > 1:
        pattern = "%A_%a"
        at_a_time = min(batch.elements, words["array_parallelism"])
        found["array"] = f"0-{batch.elements - 1}%{at_a_time}"
    found["output"] = str(batch.folder / f"{pattern}_0_log.out")
    found["error"] = str(batch.folder / f"{pattern}_0_log.err")
    found["open-mode"] = "append"
    return {**found, **words["additional_parameters"]}


def _flag(name: str, value: Any) -> str:
    option = f"#SBATCH --{name.replace('_', '-')}"
    return option if value is True else f"{option}={shlex.quote(str(value))}"


def check_shell(batch: Batch) -> None:
    """Make sure that the script is one that a shell understands, where there is a shell to ask.

    Raises:
        SpecError: a line of the profile's setup is not complete by itself.
    """
    shell = shutil.which("bash")
    if shell is None:
        return
    for number, text in _shell_lines(batch.profile).items():
        done = subprocess.run(
            [shell, "-n"], input=f"{{ {text}\n}} || :\n", capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1:] or [""]
            problem = Problem(
                f"setup[{number - 1}]",
                text,
                f"is no whole line of the shell ({why[0]})",
                fix="let each entry be complete by itself; join lines with ;",
            )
            raise SpecError([problem], f"profile {batch.profile.name!r}")
