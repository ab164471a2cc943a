"""Handing work to SLURM through submitit; with ``slurm_element`` the only code that imports it."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from zoo.errors import SchedulerError
from zoo.launch.profile import ClusterProfile
from zoo.launch.slurm_client import ask
from zoo.launch.slurm_element import Element
from zoo.launch.submissions import Submission
from zoo.store.files import store_errors

__all__ = ["sbatch_text", "submit_array", "test_only"]

#: Ends by time limit after which submitit would give up. What counts here is progress alone.
_NEVER = 1_000_000


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        msg = "submitting to SLURM needs submitit: pip install 'phasezoo[slurm]'"
        raise ImportError(msg) from None
    return submitit


def _parameters(profile: ClusterProfile, name: str, parallelism: int) -> dict[str, Any]:
    """Return a profile in submitit's words."""
    more: dict[str, Any] = {}
    if profile.memory is not None:
        more["mem"] = f"{round((profile.memory_gb or 0) * 1024)}M"
    more["requeue" if profile.requeue else "no-requeue"] = True
    exports = [f"export {k}={shlex.quote(v)}" for k, v in profile.environment.items()]
    found: dict[str, Any] = {
        "job_name": name,
        "time": math.ceil(profile.limit_s / 60),
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": profile.cpus,
        "signal_delay_s": profile.signal_s,
        "array_parallelism": max(parallelism, 1),
        "setup": [*exports, *profile.setup],
        # srun no longer takes this from sbatch since SLURM 22.05
        "srun_args": [f"--cpus-per-task={profile.cpus}", *profile.srun],
        "additional_parameters": {**more, **profile.sbatch},
    }
    for key in ("partition", "account", "qos", "constraint", "exclude"):
        if getattr(profile, key) is not None:
            found[key] = getattr(profile, key)
    if profile.gpus:
        kind = f"{profile.gpu_type}:" if profile.gpu_type else ""
        found["gpus_per_node"] = f"{kind}{profile.gpus}"
    return found


def _executor(
    profile: ClusterProfile, folder: Path, name: str, parallelism: int, dependency: str | None
) -> Any:
    python = profile.python or ("python3" if profile.container else shlex.quote(sys.executable))
    if profile.container:
        python = f"{profile.container} {python}"
    executor = _submitit().SlurmExecutor(folder, max_num_timeout=_NEVER, python=python)
    parameters = _parameters(profile, name, parallelism)
    if dependency is not None:
        parameters["dependency"] = dependency
    executor.update_parameters(**parameters)
    return executor


def sbatch_text(profile: ClusterProfile, *, name: str, folder: Path, elements: int) -> str:
    """Return the script that ``sbatch`` gets for an array; needs no SLURM.

    Args:
        profile: the profile.
        name: of the job.
        folder: of its logs.
        elements: of the array.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    parameters = _parameters(profile, name, profile.parallelism)
    python = profile.python or ("python3" if profile.container else shlex.quote(sys.executable))
    words = [profile.container or "", python, "-u -m submitit.core._submit"]
    command = " ".join([*filter(None, words), shlex.quote(str(folder))])
    count = None if elements == 1 else elements
    text: str = _make_sbatch_string(command=command, folder=folder, map_count=count, **parameters)
    return text


def test_only(text: str) -> str:
    """Return what the scheduler would do with a script; nothing is submitted.

    Raises:
        SchedulerError: it would refuse, or cannot be reached.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(text)
        file.flush()
        return ask(["sbatch", "--test-only", file.name]).removeprefix("sbatch: ").strip()


def submit_array(submission: Submission, array: int, *, dependency: str | None = None) -> int:
    """Hand one array of a submission to the scheduler; return its job id.

    Raises:
        SchedulerError: it refuses.
        StoreError: the disk refuses; nothing was submitted.
    """
    profile, folder = submission.profile, submission.array_folder(array)
    members = list(submission.members(array))
    # what is not of this array runs beside it
    parallelism = math.ceil(profile.parallelism * len(members) / len(submission.elements))
    with store_errors("write the jobs into", folder), _quiet():
        folder.mkdir(exist_ok=True)
        try:
            executor = _executor(
                profile, folder, submission.job_name(array), parallelism, dependency
            )
            jobs = executor.map_array(Element(str(submission.folder)), members)
        except (RuntimeError, subprocess.SubprocessError) as error:
            for orphan in folder.glob("*.pkl"):
                orphan.unlink(missing_ok=True)
            words = " ".join(str(error).split())
            msg = f"the scheduler did not take {submission.job_name(array)}: {words}"
            raise SchedulerError(msg) from error
    job = int(str(jobs[0].job_id).partition("_")[0])
    submission.accepted(array, job)
    return job


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep submitit's own messages to warnings, and its jobs from this machine's environment."""
    logger = logging.getLogger("submitit")
    level = logger.level
    logger.setLevel(logging.WARNING)
    before = {name: os.environ.pop(name) for name in list(os.environ) if name in _OWN}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # an error has these words, too
            yield
    finally:
        logger.setLevel(level)
        os.environ.update(before)


#: Variables of a job that submits; sbatch would hand them on to the new one.
_OWN = {"ZOO_JOB", "SUBMITIT_EXECUTOR", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"}
