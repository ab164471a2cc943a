"""Planning: from a sweep to cohorts, rows and tasks; a pure function of the sweep and its data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.architectures import NORMS, Network, build
from zoo.architectures.symmetry import describe
from zoo.data import Dataset, load, prepare
from zoo.data.augment import AUGMENTATIONS
from zoo.errors import DataError, Problem, SpecError
from zoo.seeds import Stream, permutation
from zoo.spec import RecordSpec, RunSpec, Sweep
from zoo.train.backends import BACKENDS, DEVICES, can_compile
from zoo.train.evaluate import CHUNK
from zoo.train.plan import Cohort, Plan

__all__ = ["SHARED_FIELDS", "cohort_key", "group_size", "plan"]

#: Fields that decide the computation: runs that differ in one of them do not stack. All other
#: fields are vectors over the models of a cohort.
SHARED_FIELDS = (
    "data",
    "normalization",
    "augmentation",
    "architecture",
    "width",
    "depth",
    "activation",
    "norm",
    "norm_groups",
    "optimizer",
    "nesterov",
    "batch_size",
    "precision",
)
#: Shared fields younger than the first stores: no part of the key at their default, so that the
#: names of older cohorts stay.
_LATER_FIELDS = ("virtual_batch", "weight_transform", "decay_mask", "dynamic")

#: Rows of a task, at least, where the sweep does not say.
_TASK_ROWS = 64
#: Values (weights, gradients, moments, activations) of a group that stay in a core's cache.
_CACHE_VALUES = 1_600_000
#: Values of a group on a GPU, evaluation included: 4 GiB, which leaves a small card room.
_GPU_VALUES = 1 << 30
#: Eager work, in operations, below which compiling a cohort's step costs more than it saves.
_COMPILE_FLOPS = 2e12


def plan(
    sweep: Sweep, *, base: Plan | None = None, backend: str = "auto", device: str | None = None
) -> Plan:
    """Return the plan of a sweep.

    Args:
        sweep: the sweep.
        base: the plan that a store already has: its cohorts stay as they are, and runs that it
            lacks become new cohorts.
        backend: ``"auto"``, or one backend for every new cohort.
        device: type of the device that new cohorts train on; None = that of ``base``, or the CPU.

    Raises:
        SpecError: runs that do not fit their data or architecture, each kind of problem once.
        MissingDataError: a data set is not on this machine.
    """
    if backend not in ("auto", *BACKENDS):
        allowed = ", ".join(("auto", *BACKENDS))
        raise SpecError([Problem("backend", backend, "unknown backend", allowed)], "plan")
    if device is None:
        device = base.cohorts[0].device if base is not None and base.cohorts else "cpu"
    if device not in DEVICES:
        allowed = ", ".join(DEVICES)
        raise SpecError([Problem("device", device, "unknown device", allowed)], "plan")
    record = sweep.record
    if base is not None:
        _check_extension(sweep, base)
    known = {run_id for c in base.cohorts for run_id in c.run_ids} if base else set()
    data = {name: load(name, path=sweep.paths.get(name)) for name in _names(sweep.runs())}
    infos = dict(base.data) if base else {}
    resolved = _resolve(sweep, data)
    for name, dataset in data.items():
        infos[name] = _data_info(dataset, resolved, record, infos.get(name))
    runs = [r for r in resolved if r.run_id not in known]
    stacks: dict[str, list[RunSpec]] = defaultdict(list)
    keys: dict[str, dict[str, Any]] = {}
    for run in {r.run_id: r for r in runs}.values():
        key = cohort_key(run, data[run.data], record)
        name = _key_name(key)
        keys[name] = key
        stacks[name].append(run)
    segments = Counter(c.id.split(".")[0] for c in base.cohorts) if base else Counter()
    cohorts = []
    problems: Counter[Problem] = Counter()
    for name, stack in stacks.items():
        dataset = data[stack[0].data]
        try:
            network = build(stack[0], dataset.example_shape, dataset.classes)
        except SpecError as error:
            problems.update(dict.fromkeys(error.problems, len(stack)))
            continue
        suffix = f".{segments[name]}" if segments[name] else ""
        cohorts.append(
            _cohort(
                name + suffix, keys[name], stack, network, dataset, record, sweep, backend, device
            )
        )
    if problems:
        raise SpecError(_counted(problems), f"sweep {sweep.name!r}")
    return Plan(
        name=sweep.name if base is None else base.name,
        axes=dict(sweep.axes) if base is None else base.axes,
        record=record,
        data=infos,
        cohorts=(*(base.cohorts if base else ()), *cohorts),
    )


def cohort_key(run: RunSpec, dataset: Dataset, record: RecordSpec) -> dict[str, Any]:
    """Return what runs must agree on to stack: the shared fields, and some derived ones.

    ``has_dropout``, ``subset`` (trains on part of the training set), ``clipped`` (clips its
    gradients) and ``z_loss`` change the computation, and ``checkpoints`` is K.
    """
    key = {name: getattr(run, name) for name in SHARED_FIELDS}
    for name in _LATER_FIELDS:
        if getattr(run, name) != RunSpec.__dataclass_fields__[name].default:
            key[name] = getattr(run, name)
    if run.clip_norm is not None:
        key["clipped"] = True
    if run.z_loss > 0:
        key["z_loss"] = True
    return {
        **key,
        "has_dropout": run.dropout > 0,
        "subset": run.examples != len(dataset.train_y),
        "checkpoints": len(_checkpoints(run, record)),
    }


def _names(runs: Iterable[RunSpec]) -> list[str]:
    return sorted({run.data for run in runs})


def _key_name(key: Mapping[str, Any]) -> str:
    text = json.dumps(key, sort_keys=True)
    return f"{key['architecture']}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _checkpoints(run: RunSpec, record: RecordSpec) -> tuple[int, ...]:
    return record.checkpoint_steps(int(run.steps or 0), run.steps_per_epoch)


def _resolve(sweep: Sweep, data: Mapping[str, Dataset]) -> list[RunSpec]:
    """Resolve every run against its data; gather what does not fit."""
    runs: list[RunSpec] = []
    problems: Counter[Problem] = Counter()
    for run in sweep.runs():
        dataset = data[run.data]
        found = _misfits(run, dataset)
        try:
            runs.append(run.resolve(len(dataset.train_y)))
        except SpecError as error:
            found += error.problems
        problems.update(found)
    if problems:
        raise SpecError(_counted(problems), f"sweep {sweep.name!r}")
    return runs


def _misfits(run: RunSpec, dataset: Dataset) -> list[Problem]:
    found = []
    reason = AUGMENTATIONS[run.augmentation].check(dataset.example_shape)
    if reason is not None:
        found.append(Problem("augmentation", run.augmentation, reason))
    misfit = NORMS[run.norm].misfit(run)
    return found if misfit is None else [*found, misfit]


def _counted(problems: Mapping[Problem, int]) -> list[Problem]:
    return [
        Problem(p.field, p.value, f"{p.message} ({n} run{'s' if n > 1 else ''})", p.allowed, p.fix)
        for p, n in problems.items()
    ]


def _cohort(
    name: str,
    key: Mapping[str, Any],
    runs: Sequence[RunSpec],
    network: Network,
    dataset: Dataset,
    record: RecordSpec,
    sweep: Sweep,
    backend: str,
    device: str,
) -> Cohort:
    # Runs of like length stand together, so that a group seldom waits for its longest model.
    ordered = tuple(sorted(runs, key=lambda run: int(run.steps or 0)))
    steps = np.array([_checkpoints(run, record) for run in ordered], dtype=np.int64)
    per_epoch = np.array([run.steps_per_epoch for run in ordered])
    group = min(
        group_size(network, ordered[0].batch_size, device=device), _power_of_two(len(ordered))
    )
    wanted = int(sweep.options.get("task_models", _TASK_ROWS if device == "cpu" else group))
    if device != "cpu":
        group = min(group, _power_of_two(wanted))
    architecture = describe(network)
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
        example_shape=dataset.example_shape,
        classes=dataset.classes,
        backend=backend,
        device=device,
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


def _data_info(
    dataset: Dataset,
    runs: Sequence[RunSpec],
    record: RecordSpec,
    known: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what a store keeps about a data set, JSON-ready.

    Args:
        dataset: the data set.
        runs: the runs that may use it.
        record: for the size of the probe.
        known: what the store already keeps about it, if it is being extended.

    Raises:
        DataError: it is not the data set that the store was made with.
    """
    if known is not None and known["fingerprint"] != dataset.fingerprint:
        msg = (
            f"data set {dataset.name!r} has changed since the store was made: its sha256 is"
            f" {dataset.fingerprint}, the store says {known['fingerprint']}; give the path of the"
            " original, or start a new store"
        )
        raise DataError(msg)
    count = len(dataset.test_y)
    probes = np.sort(permutation(0, Stream.PROBE, 0, count)[: record.probe_size])
    used = {run.normalization for run in runs if run.data == dataset.name}
    normalizations = dict(known["normalization"]) if known else {}
    for name in sorted(used - set(normalizations)):
        prepared = prepare(dataset, name)
        normalizations[name] = {
            "mean": np.asarray(prepared.mean, dtype=np.float64).reshape(-1).tolist(),
            "scale": np.asarray(prepared.scale, dtype=np.float64).reshape(-1).tolist(),
        }
    return {
        "fingerprint": dataset.fingerprint,
        "train_examples": len(dataset.train_y),
        "test_examples": count,
        "example_shape": list(dataset.example_shape),
        "classes": dataset.classes,
        "source": dataset.source,
        "licence": dataset.licence,
        "probe_indices": probes.tolist(),
        "normalization": normalizations,
    }
