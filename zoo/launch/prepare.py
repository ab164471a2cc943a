"""From a sweep and a path to a store that has every run planned: made, extended or as it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import DataError, Problem, SpecError, StoreBusyError, StoreError
from zoo.launch.provenance import fingerprint
from zoo.launch.scoring import OWN, jobs_of
from zoo.spec import Sweep
from zoo.store import create_store, extend_store, is_store, read_plan
from zoo.train import planner
from zoo.train.plan import Plan
from zoo.train.task_data import check_fingerprint

__all__ = ["check_extension", "prepare_store"]

#: Seconds between tries while another process extends the store, and how many tries.
_PAUSE_S = 0.5
_TRIES = 60


def prepare_store(
    sweep: Sweep, path: Path, *, backend: str = "auto", device: str | None = None
) -> Plan:
    """Return the plan of the store at ``path``, in which every run of the sweep has its row.

    A store that is not there is made; runs that it lacks are added to it; one that has them all
    stays as it is. Two processes may do this at the same time.

    Args:
        sweep: the sweep.
        path: the store.
        backend: for cohorts that are new; ``"auto"`` lets the planner decide.
        device: type of the device that they train on; None = that of the store, or the CPU.

    Raises:
        SpecError: the sweep cannot be planned, or not into this store.
        DataError: a data set is not the one that the store was made with.
        StoreError: the store cannot be made, extended or read.
    """
    if not is_store(path):
        plan = planner.plan(sweep, backend=backend, device=device)
        jobs_of(plan, OWN)  # what is wrong with its diets shows here, before anything is made
        try:
            create_store(
                path, plan, sweep_toml=sweep.to_toml(), provenance=_provenance(sweep, backend)
            )
        except StoreError:
            if not is_store(path):
                raise
        else:
            return plan
    return _extend(sweep, path, backend, device)


def _extend(sweep: Sweep, path: Path, backend: str, device: str | None) -> Plan:
    for attempt in range(_TRIES):
        base = read_plan(path)
        check_extension(sweep, base, backend=backend, device=device, source=str(path))
        plan = planner.plan(sweep, base=base, backend=backend, device=device)
        jobs_of(plan, OWN)
        if len(plan.cohorts) == len(base.cohorts):
            return base
        try:
            extend_store(path, plan, sweep_toml=sweep.to_toml())
        except StoreBusyError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE_S)
        else:
            return read_plan(path)
    raise AssertionError  # the last try returns or raises


def check_extension(
    sweep: Sweep, base: Plan, *, backend: str, device: str | None, source: str
) -> None:
    """Make sure that a sweep can be run into a store that is there.

    Raises:
        SpecError: what a store fixes for good differs: the checkpoint plan, the backend, the
            type of device.
        DataError: a data set is not the one that the store was made with.
    """
    problems = []
    if sweep.record != base.record:
        problems.append(
            Problem(
                "record",
                sweep.record.to_dict(),
                "is not the checkpoint plan that the store was made with",
                str(base.record.to_dict()),
                "write it so in the sweep, or give another --out",
            )
        )
    others = sorted({c.backend for c in base.cohorts} - {backend})
    if backend != "auto" and others:
        problems.append(
            Problem(
                "backend",
                backend,
                "the store has cohorts of another backend",
                f"auto, {', '.join(others)}",
                "a backend decides bits, so it stays; leave it out, or give another --out",
            )
        )
    problems += wrong_device(base, device)
    if problems:
        raise SpecError(problems, source)
    for name in sorted({run.data for run in sweep.runs()} & set(base.data)):
        try:
            check_fingerprint(base, name, sweep.paths)
        except DataError as error:
            msg = f"{source}: {error}"
            raise DataError(msg) from None


def wrong_device(plan: Plan, device: str | None) -> list[Problem]:
    """Return what is wrong with training a store's cohorts on a type of device; None = as planned.

    Bits differ from one type of device to the other, so that a run cannot begin on one and end on
    the other, and a store whose runs are to be compared should not mix them.
    """
    others = sorted({c.device for c in plan.cohorts} - {device})
    if device is None or not others:
        return []
    message = "the store's cohorts are planned for another type of device"
    fix = "leave it out, or give another --out"
    return [Problem("device", device, message, ", ".join(others), fix)]


def _provenance(sweep: Sweep, backend: str) -> Mapping[str, Any]:
    return {"sweep": sweep.name, "backend": backend, "fingerprint": fingerprint()}
