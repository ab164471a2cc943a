"""What a cluster offers to a profile, and what will bite: findings, the worst first."""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import SchedulerError, SpecError
from zoo.launch.batch_script import Batch, check_shell, script
from zoo.launch.profile import ClusterProfile, minutes
from zoo.launch.slurm import test_only
from zoo.launch.slurm_client import SlurmConfig, ask, slurm_config

__all__ = ["Checked", "examine"]

#: Below this, a job spends more time waiting and starting than training.
_SHORT_MINUTES = 15.0
_PARTITION = "%R|%a|%l|%D|%c|%m|%G|%p"


@dataclass(frozen=True, slots=True)
class Checked:
    """One thing that was looked at.

    Args:
        level: ``ok``, ``note``, ``warning`` or ``error``.
        topic: what was looked at.
        text: what was found, and what to do about it.
    """

    level: str
    topic: str
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the finding, JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


def examine(profile: ClusterProfile) -> list[Checked]:
    """Return what there is to say about a profile on this cluster; submits nothing."""
    found = _profile_alone(profile)
    missing = [c for c in ("sbatch", "squeue", "scontrol", "scancel") if shutil.which(c) is None]
    if missing:
        text = f"{', '.join(missing)} not found: this is no machine of a SLURM cluster"
        return [*found, Checked("error", "commands", text)]
    try:
        config = slurm_config()
        partitions = ask(["sinfo", "--noheader", f"--format={_PARTITION}"])
    except SchedulerError as error:
        return [*found, Checked("error", "scheduler", str(error))]
    version = config.values.get("SLURM_VERSION", "?")
    found.append(Checked("ok", "scheduler", f"SLURM {version} answers"))
    found += _scheduler(profile, config)
    found += _partition(profile, partitions.splitlines())
    found.append(_test(profile))
    order = ("error", "warning", "note", "ok")
    return sorted(found, key=lambda f: order.index(f.level))


def _profile_alone(profile: ClusterProfile) -> list[Checked]:
    found = []
    if importlib.util.find_spec("submitit") is None:
        text = "not installed here: pip install 'phasezoo[slurm]'"
        found.append(Checked("error", "submitit", text))
    if minutes(profile.time) < _SHORT_MINUTES:
        text = f"time = {profile.time!r}: a job spends much of that starting; give 15 min or more"
        found.append(Checked("warning", "time", text))
    if profile.signal_s < 60 + profile.lease_s:
        text = (
            f"signal_s = {profile.signal_s}: SLURM may warn up to a minute early, and saving takes"
            " a while; 180 or more is safe"
        )
        found.append(Checked("note", "signal_s", text))
    if profile.lease_s < 90:
        text = f"lease_s = {profile.lease_s:g}: NFS clients may believe in old files for 60 s"
        found.append(Checked("note", "lease_s", text))
    if profile.device == "cpu" and profile.gpus:
        text = f"asks for {profile.gpus} GPUs, but trains on the cores (device = 'cpu')"
        found.append(Checked("warning", "device", text))
    return found


def _scheduler(profile: ClusterProfile, config: SlurmConfig) -> list[Checked]:
    found = []
    wait = config.requeue_wait_s
    text = f"an element that is put back starts again after {wait} s at the earliest"
    found.append(Checked("note" if wait > 30 else "ok", "requeue", text))
    if config.values.get("JobRequeue") == "0":
        text = "JobRequeue=0: jobs ask for requeue themselves (requeue = true does that)"
        found.append(Checked("note" if profile.requeue else "warning", "requeue", text))
    if "REQUEUE" in config.values.get("PreemptMode", "") and not config.warns_of_preemption:
        text = (
            "preempted jobs are killed without the warning signal (no preempt_send_user_signal):"
            f" each loses what came after its last save, at most {profile.save_s:g} s"
        )
        found.append(Checked("note", "preemption", text))
    if config.accounting:
        found.append(Checked("ok", "accounting", "sacct tells how ended jobs ended"))
    else:
        age = config.number("MinJobAge", 300)
        text = f"no sacct: how a job ended is known for {age} s only; progress is not affected"
        found.append(Checked("note", "accounting", text))
    arrays = f"up to {config.max_array:,} elements an array; larger sweeps become several arrays"
    found.append(Checked("ok", "arrays", arrays))
    return found


def _partition(profile: ClusterProfile, lines: list[str]) -> list[Checked]:
    rows = [line.strip().split("|") for line in lines if line.count("|") >= 7]
    names = sorted({row[0] for row in rows})
    if profile.partition is None:
        return [Checked("note", "partition", f"the default one; there are {', '.join(names)}")]
    wanted = profile.partition.split(",")
    mine = [row for row in rows if row[0] in wanted]
    if not mine:
        text = f"no partition {profile.partition!r}; there are {', '.join(names)}"
        return [Checked("error", "partition", text)]
    found = [
        Checked("ok", "partition", f"{r[0]}: {r[3]} nodes of {r[4]} cores, {r[5]} MB, GPUs {r[6]}")
        for r in mine
    ]
    if all(row[1] != "up" for row in mine):
        found.append(Checked("error", "partition", f"{profile.partition} is not up"))
    limits = [minutes(row[2]) for row in mine if row[2] not in ("infinite", "n/a")]
    if limits and len(limits) == len(mine) and max(limits) < minutes(profile.time):
        text = f"time = {profile.time!r} is over the partition's limit of {max(limits):g} min"
        found.append(Checked("error", "time", text))
    cores = [int(re.sub(r"\D", "", row[4]) or 0) for row in mine]
    if max(cores) < profile.cpus:
        text = f"cpus = {profile.cpus}, but no node has more than {max(cores)}"
        found.append(Checked("error", "cpus", text))
    return found


def _test(profile: ClusterProfile) -> Checked:
    place = Path("/tmp/zoo-doctor")  # only named, never made
    batch = Batch(
        profile=profile, name="zoo-doctor", folder=place, elements=2,
        parallelism=profile.parallelism, dependency=None, store=place / "store.zarr",
    )  # fmt: skip
    try:
        check_shell(batch)
        answer = test_only(script(batch), profile)
    except (SchedulerError, SpecError) as error:
        return Checked("error", "test", f"the scheduler would not take such a job: {error}")
    return Checked("ok", "test", answer)
