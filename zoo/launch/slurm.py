"""Handing work to SLURM through submitit; with ``slurm_element`` the only code that imports it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import math
import os
import subprocess
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from zoo.errors import SchedulerError
from zoo.launch.batch_script import Batch, check_folder, check_shell, command, parameters
from zoo.launch.profile import ClusterProfile
from zoo.launch.slurm_client import ask, scheduler_environment
from zoo.launch.slurm_element import Element
from zoo.launch.submissions import Submission
from zoo.store.files import ensure_folder, store_errors

__all__ = ["batch_of", "check_submitit", "submit_array", "test_only"]

#: Ends by time limit after which submitit would give up. What counts here is progress alone.
_NEVER = 1_000_000


def check_submitit() -> Any:
    """Return submitit.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        import submitit
    except ImportError:
        msg = "submitting to SLURM needs submitit: pip install 'phasezoo[slurm]'"
        raise ImportError(msg) from None
    return submitit


def batch_of(submission: Submission, array: int, *, dependency: str | None = None) -> Batch:
    """Return one array of a submission as what the scheduler gets."""
    size = len(submission.members(array))
    # what is not of this array runs beside it
    share = math.ceil(submission.profile.parallelism * size / len(submission.elements))
    return Batch(
        profile=submission.profile,
        name=submission.job_name(array),
        folder=submission.array_folder(array),
        elements=size,
        parallelism=share,
        dependency=dependency,
        store=submission.store,
    )


def given(profile: ClusterProfile) -> frozenset[str]:
    """Return the settings of a profile that a user's own defaults for sbatch do not change."""
    further = {name.replace("_", "-") for name in profile.sbatch}
    names = {f.name for f in dataclasses.fields(profile)}
    return frozenset({n for n in names if getattr(profile, n) is not None} | further)


def test_only(text: str, profile: ClusterProfile) -> str:
    """Return what the scheduler would do with a script; nothing is submitted.

    Raises:
        SchedulerError: it would refuse, or cannot be reached.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sh", encoding="utf-8") as file:
        with store_errors("write", Path(file.name)):
            file.write(text)
            file.flush()
        said = ask(["sbatch", "--test-only", file.name], given=given(profile))
    return said.removeprefix("sbatch: ").strip()


def submit_array(submission: Submission, array: int, *, dependency: str | None = None) -> int:
    """Hand one array of a submission to the scheduler; return its job id.

    Raises:
        SpecError: the folder's name, or a line of the profile's setup, cannot be in a script.
        SchedulerError: the scheduler refuses.
        StoreError: the disk refuses; nothing was submitted.
    """
    batch = batch_of(submission, array, dependency=dependency)
    check_folder(batch.folder)
    check_shell(batch)
    members = list(submission.members(array))
    with store_errors("write the jobs into", batch.folder), _outside(given(batch.profile)):
        ensure_folder(batch.folder)
        try:
            executor = check_submitit().SlurmExecutor(
                batch.folder, max_num_timeout=_NEVER, python=command(batch.profile)
            )
            executor.update_parameters(**parameters(batch))
            jobs = executor.map_array(Element(str(submission.folder)), members)
        except (RuntimeError, subprocess.SubprocessError) as error:
            for orphan in batch.folder.glob("*.pkl"):
                orphan.unlink(missing_ok=True)
            words = " ".join(str(error).split())
            msg = f"the scheduler did not take {batch.name}: {words}"
            raise SchedulerError(msg) from error
    job = int(str(jobs[0].job_id).partition("_")[0])
    submission.accepted(array, job)
    return job


@contextlib.contextmanager
def _outside(names: Container[str]) -> Iterator[None]:
    """Submit as if from outside of any allocation, and keep submitit's own messages to warnings."""
    logger = logging.getLogger("submitit")
    level = logger.level
    logger.setLevel(logging.WARNING)
    before = dict(os.environ)
    kept = scheduler_environment(before, given=names)
    for name in before.keys() - kept.keys():
        del os.environ[name]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # an error has these words, too
            yield
    finally:
        logger.setLevel(level)
        os.environ.update(before)
