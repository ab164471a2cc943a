"""What SLURM says: its commands, run with a time limit, and their answers as plain values."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from zoo.errors import SchedulerError

__all__ = [
    "ENDED_STATES",
    "JobView",
    "SlurmConfig",
    "ask",
    "ended",
    "parse_sacct",
    "parse_scontrol",
    "parse_squeue",
    "sacct_jobs",
    "scheduler_environment",
    "scontrol_jobs",
    "slurm_config",
    "squeue_jobs",
    "without_process",
]

#: Seconds that a command may take; a busy controller answers after some.
_TIMEOUT_S = 60.0
#: States in which a job has ended for good. Any other word, also one that only a newer SLURM has
#: (POWER_UP_NODE, EXPEDITING, LAUNCH_FAILED, REVOKED, ...), is of a job that may still run.
ENDED_STATES = frozenset(
    """
    BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT
    """.split()  # noqa: SIM905 - a column of words reads worse
)
#: States in which a job waits, so that none of its processes is left.
_WAITING = frozenset({"PENDING", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
#: Of these, those from which only a release frees it.
_HELD = _WAITING - {"PENDING"}
_SQUEUE = "%i|%F|%K|%T|%N|%j|%r"
_SACCT = "JobID,State,NodeList,ExitCode"
_UNREACHABLE = (
    "Unable to contact",
    "Could not establish",
    "Unable to process configuration",
    "Connection refused",
    "Connection timed out",
)
_MISSING = (
    "no {command} here: this is no machine of a SLURM cluster; log in to one, or try"
    ' `slurm/devcluster up` and `eval "$(slurm/devcluster env)"`'
)


@dataclass(frozen=True, slots=True)
class JobView:
    """One array element, or one job, as the scheduler tells of it.

    Args:
        job: the array's job id, or the job's own.
        index: of the array element; None for a job that is no array.
        state: SLURM's word, in capitals.
        node: where it runs or ran; may be empty.
        reason: why it waits, or its exit code; may be empty.
        name: the job's name; empty where the source does not tell.
        source: ``squeue``, ``sacct`` or ``scontrol``.
    """

    job: int
    index: int | None
    state: str
    node: str
    reason: str
    name: str
    source: str

    @property
    def live(self) -> bool:
        """Whether it waits or runs, or is in a state that we do not know."""
        return not ended(self.state)

    @property
    def held(self) -> bool:
        """Whether it waits until somebody releases it."""
        return self.state in _HELD or (self.state == "PENDING" and "Held" in self.reason)


def ended(state: str) -> bool:
    """Return whether a job of this state has ended for good."""
    words = [word for word in re.split(r"[,+\s]+", state) if word]  # "CANCELLED+" is cut short
    return bool(words) and ENDED_STATES.issuperset(words)


def without_process(state: str) -> bool:
    """Return whether no process of a job of this state is left: it has ended, or it waits."""
    return ended(state) or state in _WAITING


# -- the environment ----------------------------------------------------------------------

#: What sbatch, srun, squeue and sacct take options from, and what a job hands on to its children.
_OPTIONS = re.compile(r"(SLURMD?|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SCONTROL|SINFO|PMIX?|SUBMITIT)_")
#: Of these, those that say which cluster there is, not what a job is.
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"})
#: A user's defaults for what a profile leaves open: variable → setting of the profile.
_DEFAULTS = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
}
#: What an allocation gives to its own job alone; ``SLURM_JOB_ID`` tells that we are in one.
_OF_A_JOB = frozenset(
    {"CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"}
)
#: Our own, set for the workers of one element.
_OURS = frozenset({"ZOO_JOB", "ZOO_LEASE_S"})


def scheduler_environment(
    environment: Mapping[str, str], *, given: Container[str] = ()
) -> dict[str, str]:
    """Return the variables with which SLURM's commands are called, and jobs submitted.

    Inside an allocation its own variables would give the new job its shape, its cores and its
    GPUs, and options in variables beat those of the script; filters for squeue would hide jobs.

    Args:
        environment: of this process.
        given: settings that the profile has; only for others a user's default counts.
    """
    inside = "SLURM_JOB_ID" in environment
    drop = _OURS | (_OF_A_JOB if inside else frozenset())

    def stays(name: str) -> bool:
        if name in _DEFAULTS:
            return _DEFAULTS[name] not in given
        return name not in drop and (name in _KEPT or not _OPTIONS.match(name))

    return {name: value for name, value in environment.items() if stays(name)}


def ask(command: Sequence[str], *, stdin: str | None = None, given: Container[str] = ()) -> str:
    """Run one of SLURM's commands and return what it prints.

    Args:
        command: its words.
        stdin: what it reads.
        given: settings of the profile, for :func:`scheduler_environment`.

    Raises:
        SchedulerError: it is not there, does not answer, or reports an error.
    """
    if shutil.which(command[0]) is None:
        raise SchedulerError(_MISSING.format(command=command[0]))
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
            env=scheduler_environment(os.environ, given=given),
        )
    except subprocess.TimeoutExpired:
        msg = f"the scheduler does not answer: `{' '.join(command)}` took over {_TIMEOUT_S:g} s"
        raise SchedulerError(msg) from None
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).split())
        if any(sign in words for sign in _UNREACHABLE):
            msg = f"the scheduler cannot be reached: {words}; nothing was changed, try again later"
            raise SchedulerError(msg)
        msg = f"`{' '.join(command)}` failed: {words or f'exit code {done.returncode}'}"
        raise SchedulerError(msg)
    # test-only answers on standard error
    return done.stdout or done.stderr


# -- squeue, sacct, scontrol --------------------------------------------------------------


def squeue_jobs(names: Iterable[str]) -> list[JobView]:
    """Return every element that the controller knows by the names of the jobs.

    Raises:
        SchedulerError: the scheduler cannot be reached.
    """
    wanted = ",".join(names)
    if not wanted:
        return []
    options = ["--noheader", "--array", "--states=all", f"--name={wanted}", f"--format={_SQUEUE}"]
    return parse_squeue(ask(["squeue", *options]))


def parse_squeue(text: str) -> list[JobView]:
    """Read the lines of ``squeue``."""
    found = []
    for line in text.splitlines():
        parts = line.split("|", 6)
        if len(parts) != 7 or not parts[1].isdecimal():
            continue
        _, job, index, state, node, name, reason = (part.strip() for part in parts)
        number = int(index) if index.isdecimal() else None
        found.append(JobView(int(job), number, state, node, reason, name, "squeue"))
    return found


def sacct_jobs(jobs: Iterable[int]) -> list[JobView]:
    """Return what the accounting says; nothing where there is none.

    Raises:
        SchedulerError: the accounting is there and cannot be reached.
    """
    wanted = ",".join(str(job) for job in jobs)
    if not wanted or shutil.which("sacct") is None:
        return []
    options = ["--noheader", "--parsable2", "--allocations", f"--jobs={wanted}"]
    try:
        return parse_sacct(ask(["sacct", *options, f"--format={_SACCT}"]))
    except SchedulerError as error:
        if "accounting storage is disabled" in str(error):
            return []
        raise


def parse_sacct(text: str) -> list[JobView]:
    """Read the lines of ``sacct``; elements that have not begun are left out."""
    found = []
    for line in text.splitlines():
        parts = line.split("|")
        match = re.fullmatch(r"(\d+)(?:_(\d+))?", parts[0])
        if match is None or len(parts) < 4 or not parts[1]:
            continue
        index = None if match[2] is None else int(match[2])
        state = parts[1].split()[0]  # "CANCELLED by 0"
        found.append(JobView(int(match[1]), index, state, parts[2], parts[3], "", "sacct"))
    return found


def scontrol_jobs(jobs: Iterable[int]) -> list[JobView]:
    """Return what the controller still remembers of jobs; those that it forgot are left out.

    Raises:
        SchedulerError: the scheduler cannot be reached.
    """
    found: list[JobView] = []
    for job in jobs:
        try:
            found += parse_scontrol(ask(["scontrol", "--oneliner", "show", "job", str(job)]))
        except SchedulerError as error:
            if "Invalid job id" not in str(error):
                raise
    return found


def parse_scontrol(text: str) -> list[JobView]:
    """Read the lines of ``scontrol --oneliner show job``."""
    found = []
    for line in text.splitlines():
        facts = dict(part.split("=", 1) for part in line.split() if "=" in part)
        if "JobId" not in facts:
            continue
        index = facts.get("ArrayTaskId", "")
        found.append(
            JobView(
                int(facts.get("ArrayJobId", facts["JobId"])),
                int(index) if index.isdecimal() else None,
                facts.get("JobState", "UNKNOWN"),
                facts.get("NodeList", "").replace("(null)", ""),
                f"exit code {facts['ExitCode']}" if "ExitCode" in facts else "",
                facts.get("JobName", ""),
                "scontrol",
            )
        )
    return found


# -- the configuration --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlurmConfig:
    """What matters of ``scontrol show config``.

    Args:
        values: every key, as printed.
    """

    values: Mapping[str, str]

    def number(self, key: str, default: int) -> int:
        """Return the number that a value begins with."""
        match = re.match(r"\d+", self.values.get(key, ""))
        return int(match[0]) if match else default

    @property
    def max_array(self) -> int:
        """The most elements of one array; SLURM caps the index, so they begin at 0."""
        return max(self.number("MaxArraySize", 1001), 1)

    @property
    def requeue_wait_s(self) -> int:
        """Seconds that an element waits before it starts again."""
        match = re.search(r"cred_expire=(\d+)", self.values.get("AuthInfo", ""))
        return int(match[1]) if match else 120

    @property
    def warns_of_preemption(self) -> bool:
        """Whether a job is told before it is preempted."""
        return "preempt_send_user_signal" in self.values.get("SlurmctldParameters", "")

    @property
    def accounting(self) -> bool:
        """Whether sacct can be asked."""
        return "slurmdbd" in self.values.get("AccountingStorageType", "")


def slurm_config() -> SlurmConfig:
    """Return the scheduler's configuration.

    Raises:
        SchedulerError: it cannot be reached.
    """
    pairs = (line.split("=", 1) for line in ask(["scontrol", "show", "config"]).splitlines())
    return SlurmConfig({p[0].strip(): p[1].strip() for p in pairs if len(p) == 2})
