"""From a sweep and a path to a store that has every run planned: made, extended or as it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.data.doubts import doubts
from zoo.data.places import check_given, chosen_paths
from zoo.errors import DataError, Problem, SpecError, StoreBusyError, StoreError
from zoo.provenance import fingerprint
from zoo.spec import Sweep
from zoo.spec.diet import SCORE_FILE
from zoo.stages.kept import MASK
from zoo.stages.score import OWN, jobs_of
from zoo.store import create_store, derived_columns, extend_store, is_store, read_plan
from zoo.store.derived import clear_staged
from zoo.train import planner
from zoo.train.plan import Plan
from zoo.train.task_data import planned_data

__all__ = ["check_extension", "placed", "plan_extension", "prepare_store", "wrong_device"]

#: Seconds between tries while another process extends the store, and how many tries.
_PAUSE_S = 0.5
_TRIES = 60

_LOG = logging.getLogger("zoo.data")


def prepare_store(
    sweep: Sweep,
    path: Path,
    *,
    backend: str = "auto",
    device: str | None = None,
    before: Callable[[Plan], None] = lambda plan: None,
    paths: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan of the store at ``path``, in which every run of the sweep has its row.

    A store that is not there is made; runs that it lacks are added to it; one that has them all
    stays as it is. Two processes may do this at the same time.

    Args:
        sweep: the sweep.
        path: the store.
        backend: for cohorts that are new; ``"auto"`` lets the planner decide.
        device: type of the device that they train on; None = that of the store, or the CPU.
        before: told of the plan before anything is written; what it raises leaves no trace.
        paths: data set or score file -> path, before environment variables and the sweep's own.
            The store remembers where its files were found.

    Raises:
        SpecError: the sweep cannot be planned, or not into this store.
        DataError: a data set or score file does not have the content that the store was made with.
        StoreError: the store cannot be made, extended or read.
    """
    sweep = placed(sweep, paths)
    if not is_store(path):
        plan = planner.plan(sweep, backend=backend, device=device, paths=sweep.paths)
        jobs_of(plan, OWN)  # what is wrong with its diets shows here, before anything is made
        _warn_of_doubts(plan, plan.data, sweep.paths)
        before(plan)
        try:
            create_store(
                path, plan, sweep_toml=sweep.to_toml(), provenance=_provenance(sweep, backend)
            )
        except StoreError:
            if not is_store(path):
                raise
        else:
            return plan
    return _extend(sweep, path, backend, device, before)


def _extend(
    sweep: Sweep, path: Path, backend: str, device: str | None, before: Callable[[Plan], None]
) -> Plan:
    for attempt in range(_TRIES):
        base, plan = plan_extension(sweep, path, backend=backend, device=device)
        jobs_of(plan, OWN)
        if len(plan.cohorts) == len(base.cohorts):
            clear_staged(path)
            return base
        if attempt == 0:
            _warn_of_doubts(plan, plan.data.keys() - base.data.keys(), sweep.paths)
        before(replace(plan, cohorts=plan.cohorts[len(base.cohorts) :]))
        try:
            extend_store(path, plan, sweep_toml=sweep.to_toml())
        except StoreError as error:
            # a cohort may have been added in the meantime, with other runs under the same name
            changed = len(read_plan(path).cohorts) != len(base.cohorts)
            busy = changed or isinstance(error, StoreBusyError)
            if not busy or attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE_S)
        else:
            return read_plan(path)
    raise AssertionError  # the last try returns or raises


def _warn_of_doubts(plan: Plan, names: Iterable[str], paths: Mapping[str, str]) -> None:
    """Say what is likely wrong with data that a store has not been trained on before."""
    for name in sorted(names):
        for doubt in doubts(planned_data(plan, name, paths)):
            _LOG.warning("data set %r: %s", name, doubt)


def plan_extension(
    sweep: Sweep, path: Path, *, backend: str, device: str | None
) -> tuple[Plan, Plan]:
    """Return the plan of a store, and the plan that it has once a sweep's runs are added.

    Args:
        sweep: as :func:`placed` returns it.
        path: the store.
        backend, device: as in :func:`prepare_store`.

    Raises:
        SpecError: the sweep cannot be planned, or not into this store.
        DataError: a data set or score file does not have the content that the store was made with.
    """
    base = read_plan(path)
    check_extension(sweep, base, backend=backend, device=device, source=str(path))
    scores = _planned_scores(path, base)
    try:
        plan = planner.plan(
            sweep,
            base=base,
            backend=backend,
            device=device,
            paths=sweep.paths,
            known_scores=scores,
        )
    except DataError as error:
        msg = f"{path}: {error}"
        raise DataError(msg) from None
    return base, plan


def placed(sweep: Sweep, paths: Mapping[str, str] | None = None) -> Sweep:
    """Return a sweep that knows where its files are on this machine.

    Args:
        sweep: the sweep.
        paths: data set or score file -> path, before environment variables and the sweep's own.

    Raises:
        SpecError: paths that no run of the sweep uses.
    """
    runs = sweep.runs()
    names = {run.data for run in runs}
    scores = {run.score for run in runs if run.score.startswith(SCORE_FILE)}
    check_given(paths or {}, names | scores, f"sweep {sweep.name!r}")
    return sweep.with_paths(chosen_paths(sweep.paths, paths, names | scores))


def check_extension(
    sweep: Sweep, base: Plan, *, backend: str, device: str | None, source: str
) -> None:
    """Make sure that a sweep can be run into a store that is there.

    Raises:
        SpecError: what a store fixes for good differs: the checkpoint plan, the backend, the
            type of device.
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


def _planned_scores(path: Path, plan: Plan) -> dict[str, str]:
    """Return score file -> sha256, as noted when the examples of a store's diets were chosen.

    The runs of newer stores have it themselves; in older ones it is beside the choice alone.
    """
    found: dict[str, str] = {}
    for cohort in plan.cohorts:
        if any(run.score.startswith(SCORE_FILE) for run in cohort.runs):
            mask = derived_columns(path, cohort).get(MASK, {})
            found |= mask.get("attributes", {}).get("score-files", {})
    return found


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
