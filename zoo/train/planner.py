"""Planning: from a sweep to cohorts, rows and tasks; a pure function of the sweep and its data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from zoo.architectures import Network, build
from zoo.architectures.symmetry import describe
from zoo.data import Dataset
from zoo.data.places import chosen_paths
from zoo.errors import Problem, SpecError
from zoo.objectives import objective_for
from zoo.spec import RecordSpec, RunSpec, Sweep
from zoo.spec.catalogue import catalogue, field_infos
from zoo.spec.limits import MAX_PARAMS, MAX_RECORDED
from zoo.spec.plugged import entries_of, paths_of
from zoo.train.backends import BACKENDS, DEVICES, can_compile
from zoo.train.checkpoint import recorded
from zoo.train.contents import Contents, check_unchanged, read_contents
from zoo.train.data_facts import data_facts
from zoo.train.evaluate import CHUNK
from zoo.train.misfits import check_scores, misfits
from zoo.train.plan import Cohort, Plan, metrics_of

__all__ = ["OWN_GROUP", "cohort_key", "group_size", "plan"]

#: Rows of a task, at least, where the sweep does not say.
_TASK_ROWS = 64
#: Rows of a group of networks whose bits depend on it.
OWN_GROUP = 8
#: Values (weights, gradients, moments, activations) of a group that stay in a core's cache.
_CACHE_VALUES = 1_600_000
#: Values of a group on a GPU, evaluation included: 4 GiB, which leaves a small card room.
_GPU_VALUES = 1 << 30
#: Eager work, in operations, below which compiling a cohort's step costs more than it saves.
_COMPILE_FLOPS = 2e12


def plan(
    sweep: Sweep,
    *,
    base: Plan | None = None,
    backend: str = "auto",
    device: str | None = None,
    paths: Mapping[str, str] | None = None,
    known_scores: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan of a sweep.

    Args:
        sweep: the sweep.
        base: the plan that a store already has: its cohorts stay as they are, and runs that it
            lacks become new cohorts.
        backend: ``"auto"``, or one backend for every new cohort.
        device: type of the device that new cohorts train on; None = that of ``base``, or the CPU.
        paths: data set or score file -> path, before environment variables and the sweep's own.
        known_scores: score file -> sha256, of a store whose runs are too old to have it.

    Raises:
        SpecError: runs that do not fit their data or architecture, each kind of problem once.
        MissingDataError: a data set or a score file is not on this machine.
        DataError: it has other content than ``base`` was planned with, or cannot be used.
    """
    device = _device(base, backend, device)
    record = sweep.record
    if base is not None:
        _check_extension(sweep, base)
    known = {run_id for c in base.cohorts for run_id in c.run_ids} if base else set()
    places = chosen_paths(sweep.paths, paths)
    contents = read_contents(sweep.runs(), places)
    data = contents.data
    if base is not None:
        check_unchanged(contents, sweep.runs(), base, known_scores or {}, f"sweep {sweep.name!r}")
    resolved = _resolve(sweep, contents, backend)
    infos = {**(base.data if base else {}), **_facts(resolved, data, record, base)}
    unique = {run.run_id: run for run in resolved}
    runs = [
        run
        for run_id, run in unique.items()
        if run_id not in known and (not known or _older(run).run_id not in known)
    ]
    cohorts = _cohorts(runs, data, base, _Setting(sweep, backend, device))
    return Plan(
        name=sweep.name if base is None else base.name,
        axes=dict(sweep.axes) if base is None else base.axes,
        record=record,
        data=infos,
        cohorts=(*(base.cohorts if base else ()), *cohorts),
        paths={**(base.paths if base else {}), **places},
        options=dict(sweep.options),
        plugins={**(base.plugins if base else {}), **paths_of(c.plugins for c in cohorts)},
    )


@dataclass(frozen=True, slots=True)
class _Setting:
    """What new cohorts are planned with.

    Args:
        sweep: its record and its options.
        backend: ``"auto"``, or the backend of all.
        device: type of the device.
    """

    sweep: Sweep
    backend: str
    device: str


def _facts(
    runs: Sequence[RunSpec], data: Mapping[str, Dataset], record: RecordSpec, base: Plan | None
) -> dict[str, dict[str, Any]]:
    """Return what is kept about each data set, by key."""
    using: dict[str, list[RunSpec]] = defaultdict(list)
    for run in runs:
        using[run.data_key].append(run)
    known = base.data if base else {}
    return {
        key: data_facts(dataset, using[key], record, known.get(key))
        for key, dataset in data.items()
    }


def _cohorts(
    runs: Sequence[RunSpec], data: Mapping[str, Dataset], base: Plan | None, setting: _Setting
) -> list[Cohort]:
    """Return the cohorts of runs that no cohort of ``base`` has.

    Raises:
        SpecError: networks that cannot be built, each kind of problem once.
    """
    keys, stacks = _stacked(runs, data, setting.sweep.record)
    segments = Counter(c.id.split(".")[0] for c in base.cohorts) if base else Counter()
    cohorts = []
    problems: Counter[Problem] = Counter()
    for name, stack in stacks.items():
        dataset = data[stack[0].data_key]
        try:
            network = build(stack[0], dataset.shape)
            _check_network(stack, network)
        except SpecError as error:
            problems.update(dict.fromkeys(error.problems, len(stack)))
            continue
        suffix = f".{segments[name]}" if segments[name] else ""
        found = _cohort(name + suffix, keys[name], stack, (network, dataset), setting)
        cohorts.append(found)
    if problems:
        raise SpecError(_counted(problems), f"sweep {setting.sweep.name!r}")
    return cohorts


def cohort_key(run: RunSpec, dataset: Dataset, record: RecordSpec) -> dict[str, Any]:
    """Return what runs must agree on to stack: their shared fields, and what follows from others.

    ``has_dropout``, ``has_clip_norm`` and the like say whether a field that may be off is on;
    ``target`` what kind of targets the data set has; ``subset`` that a run trains on part of the
    training set; ``checkpoints`` is K.
    """
    found = catalogue()
    values = {name: getattr(run, name) for name in found.shared}
    return {
        **{name: value for name, value in values.items() if value is not None},
        **{f"has_{name}": run.departs(name) for name in found.switches},
        "target": dataset.target,
        "subset": run.examples != len(dataset.train_y),
        "checkpoints": len(_checkpoints(run, record)),
    }


def _stacked(
    runs: Sequence[RunSpec], data: Mapping[str, Dataset], record: RecordSpec
) -> tuple[dict[str, dict[str, Any]], dict[str, list[RunSpec]]]:
    """Return the key and the runs of each cohort, by the cohort's name without its segment."""
    keys: dict[str, dict[str, Any]] = {}
    stacks: dict[str, list[RunSpec]] = defaultdict(list)
    names: dict[tuple[Any, ...], str] = {}
    for run in runs:
        key = cohort_key(run, data[run.data_key], record)
        values = tuple(key.items())
        if values not in names:
            names[values] = _key_name(run, key)
            keys[names[values]] = key
        stacks[names[values]].append(run)
    return keys, stacks


def _device(base: Plan | None, backend: str, device: str | None) -> str:
    """Return the type of device to plan for, backend and device checked."""
    if backend not in ("auto", *BACKENDS):
        allowed = ", ".join(("auto", *BACKENDS))
        raise SpecError([Problem("backend", backend, "unknown backend", allowed)], "plan")
    if device is None:
        device = base.cohorts[0].device if base is not None and base.cohorts else "cpu"
    if device not in DEVICES:
        allowed = ", ".join(DEVICES)
        raise SpecError([Problem("device", device, "unknown device", allowed)], "plan")
    return device


def _older(run: RunSpec) -> RunSpec:
    """Return a run as a store has it that is older than the hashes of content."""
    planned = catalogue().planned
    if all(getattr(run, name) is None for name in planned):
        return run
    return run.replace(**dict.fromkeys(planned))


def _key_name(run: RunSpec, key: Mapping[str, Any]) -> str:
    """Return the cohort's name; as in run ids, a field at its default leaves no trace in it."""
    fields = field_infos()
    decisive = {
        name: value
        for name, value in key.items()
        if (run.departs(name) if name in fields else value is not False)
    }
    text = json.dumps(decisive, sort_keys=True)
    return f"{key['architecture']}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _checkpoints(run: RunSpec, record: RecordSpec) -> tuple[int, ...]:
    return _checkpoint_steps(record, int(run.steps or 0), run.steps_per_epoch)


@lru_cache(maxsize=8)
def _checkpoint_steps(record: RecordSpec, total: int, per_epoch: int) -> tuple[int, ...]:
    """Return the steps; runs of one length share them."""
    return record.checkpoint_steps(total, per_epoch)


def _resolve(sweep: Sweep, contents: Contents, backend: str) -> list[RunSpec]:
    """Resolve every run against its data; gather what does not fit."""
    runs: list[RunSpec] = []
    problems: Counter[Problem] = Counter()
    recorded = 0
    for run in sweep.runs():
        dataset = contents.data[run.data_key]
        found = misfits(run, dataset, backend)
        try:
            runs.append(run.resolve(len(dataset.train_y), hashes=contents.hashes(run)))
        except SpecError as error:
            found += error.problems
        else:
            length = int(runs[-1].steps or 0), runs[-1].steps_per_epoch
            misfit = sweep.record.misfit(*length)
            found += [misfit] if misfit is not None else []
            recorded += sweep.record.at_most(*length)
        problems.update(found)
    if recorded > MAX_RECORDED and not problems:
        message = f"about {recorded:,} checkpoints in {len(runs):,} runs"
        allowed = f"up to {MAX_RECORDED:,} in one sweep"
        problems[Problem("record", None, message, allowed)] = len(runs)
    if problems:
        raise SpecError(_counted(problems), f"sweep {sweep.name!r}")
    return runs


def _counted(problems: Mapping[Problem, int]) -> list[Problem]:
    return [
        Problem(p.field, p.value, f"{p.message} ({n} run{'s' if n > 1 else ''})", p.allowed, p.fix)
        for p, n in problems.items()
    ]


def _check_network(runs: Sequence[RunSpec], network: Network) -> None:
    """Refuse a network that cannot be meant, before any of its values is allocated."""
    run = runs[0]
    check_scores(runs, network)
    if network.layout.params > MAX_PARAMS:
        message = (
            f"{run.architecture} of depth {run.depth} has {network.layout.params:,} parameters"
        )
        allowed = f"up to {MAX_PARAMS:,} parameters"
        raise SpecError([Problem("width", run.width, message, allowed)])


def _cohort(
    name: str,
    key: Mapping[str, Any],
    runs: Sequence[RunSpec],
    of: tuple[Network, Dataset],
    setting: _Setting,
) -> Cohort:
    (network, dataset), backend, device = of, setting.backend, setting.device
    # Runs of like length stand together, so that a group seldom waits for its longest model.
    ordered = tuple(sorted(runs, key=lambda run: int(run.steps or 0)))
    record = setting.sweep.record
    steps = np.array([_checkpoints(run, record) for run in ordered], dtype=np.int64)
    per_epoch = np.array([run.steps_per_epoch for run in ordered])
    group = group_size(network, ordered[0].batch_size, device=device)
    group = min(group, OWN_GROUP if network.bits_vary else _power_of_two(len(ordered)))
    wanted = int(setting.sweep.options.get("task_models", _TASK_ROWS if device == "cpu" else group))
    if device != "cpu" and not network.bits_vary:
        group = min(group, _power_of_two(wanted))
    architecture = describe(network)
    objective = objective_for(ordered[0].objective, dataset.shape)
    if backend == "auto":
        flops = architecture["train_flops_per_example"] * ordered[0].batch_size * steps[:, -1].sum()
        # on a GPU the eager step is made of our kernels already, in one graph
        pays = device == "cpu" and flops > _COMPILE_FLOPS and key.get("dynamic", "none") == "none"
        backend = "compiled" if pays and can_compile() else "eager"
    return Cohort(
        id=name,
        key=dict(key),
        runs=ordered,
        steps=steps,
        epochs=steps / per_epoch[:, None],
        layout=network.layout,
        architecture=architecture,
        task_rows=min(len(ordered), group * -(-wanted // group)),
        group_rows=group,
        data_shape=dataset.shape,
        metrics=metrics_of(recorded(objective, dataset.splits)),
        backend=backend,
        device=device,
        guessing=objective.guessing(dataset.train_y, dataset.classes),
        fields=_columns(ordered),
        plugins=entries_of(ordered),
    )


def _columns(runs: Sequence[RunSpec]) -> tuple[str, ...]:
    """Return the fields that a store keeps: those of every run, and those one of these has."""
    found = catalogue()
    return tuple(
        name
        for name in found.fields
        if name not in found.readers or any(getattr(run, name) is not None for run in runs)
    )


def group_size(network: Network, batch_size: int, *, device: str = "cpu") -> int:
    """Return G, a power of two whose slabs and activations fit where they have to.

    On a CPU that is a core's cache, with G in [4, 64]; on a GPU some of its memory, evaluation
    included, with G in [1, 1024]. It depends on the architecture, the batch size and the type of
    the device alone, never on how many runs there are, but that a cohort smaller than a group gets
    the next power of two, and a task of ``task_models`` on a GPU no larger group than it fills.
    """
    if device != "cpu":
        values = 4 * network.layout.params + 2 * max(batch_size, CHUNK) * network.activations()
        return int(2 ** np.clip(np.floor(np.log2(_GPU_VALUES / values)), 0, 10))
    values = 3 * network.layout.params + 2 * batch_size * network.activations()
    size = _CACHE_VALUES / values
    return int(2 ** np.clip(np.round(np.log2(size)), 2, 6))


def _power_of_two(count: int) -> int:
    return 1 << max(0, (count - 1).bit_length())


def _check_extension(sweep: Sweep, base: Plan) -> None:
    if sweep.record != base.record:
        message = f"differs from the store's, which is {base.record.to_dict()}"
        fix = "keep the [record] table of the store, or start a new store"
        raise SpecError(
            [Problem("record", sweep.record.to_dict(), message, fix=fix)], f"sweep {sweep.name!r}"
        )
