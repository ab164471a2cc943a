"""A store that has every kind of file in it, and everything that a user can read of a store."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json

import fabricated_store as fab
import numpy as np

from zoo.errors import ZooError
from zoo.store import (
    DerivedColumn,
    StageFolder,
    StoreReader,
    TableColumn,
    TaskWriter,
    create_store,
    extend_store,
    publish,
    publish_table,
    read_plan,
    read_provenance,
    read_sweep_text,
    read_table,
    stage_settings,
    table_names,
    task_states,
)
from zoo.store.commits import read_failures
from zoo.store.paths import StorePaths
from zoo.store.records import write_record
from zoo.store.resume import read_pause
from zoo.store.snapshot import SnapshotRecord, read_snapshot
from zoo.train.checkpoint import METRICS
from zoo.train.pause import PausePoint

SETTINGS = {"seeds": 2}


def build(path):
    """Make the store: sealed, diverged, running, failed and planned tasks, and what stages add."""
    small = fab.make_plan(fab.make_cohort())
    create_store(path, small, sweep_toml=fab.SWEEP, provenance={"command": ["zoo", "run"]})
    extend_store(path, fab.make_plan(), sweep_toml=fab.SWEEP + "# more\n")
    extend_store(path, whole_plan(), sweep_toml=fab.SWEEP + "# most\n")
    train(path)
    add(path)


def whole_plan():
    plan = fab.make_plan()
    third = fab.make_cohort("mlp-c", models=10, width=16, norm="none", params=217, seed=200)
    return dataclasses.replace(plan, cohorts=(*plan.cohorts, third))


def train(path):
    """Train what is to be trained: all of two cohorts, the third up to checkpoint 2."""
    states = {state.task: state for state in task_states(path)}
    for cohort in read_plan(path).cohorts:
        for task in cohort.tasks():
            if states[task].sealed:
                continue
            if cohort.id != "mlp-c":
                fab.train_task(path, cohort, task)
                continue
            if states[task].committed < 2:
                fab.train_task(path, cohort, task, stop=2)
            with TaskWriter(path, cohort, task) as writer:
                state = np.full((task.models, 3), 0.5 + task.index, np.float32)
                writer.save_pause(PausePoint(2, 0, 7, {"weights": state}))
                if not failures(path, cohort, task):
                    writer.fail(f"task {task.index} ran out of memory", "Traceback ...")


def failures(path, cohort, task):
    return read_failures(StorePaths(path), cohort, task)


def columns(path):
    for cohort in read_plan(path).cohorts:
        rng = np.random.default_rng(cohort.models)
        for name in ("sharpness", "trace"):
            values = rng.normal(size=(cohort.models, fab.K))
            yield DerivedColumn(cohort.id, name, ("model", "checkpoint"), values, "a number")
        for name in ("phase", "side"):
            text = np.array([f"{name}-{i % 3}" for i in range(cohort.models)])
            yield DerivedColumn(cohort.id, name, ("model",), text, "a word")


def add(path):
    """Add what stages and users add; doing it again adds what is missing."""
    publish(path, list(columns(path)), stage="landscape", stage_id="0" * 12)
    for number in (1, 2):
        name = f"scores-{number}"
        if name not in table_names(path):
            values = np.arange(12.0).reshape(2, 6) + number
            table = {k: TableColumn(("seed", "example"), values + i, k) for i, k in enumerate("ab")}
            publish_table(path, name, table, {"stage": "scoring", "number": number})
    folder = StageFolder(path, "landscape", SETTINGS)
    for part in ("one", "two"):
        if not folder.done(part):
            folder.write(part, {"x": np.full(5, len(part) + ord(part[0]))}, {"part": part})
    for name in ("paper", "talk"):
        file = StorePaths(path).records / "snapshots" / f"{name}.json"
        if not file.exists():
            write_record(file, "snapshot", snapshot(path, name).to_json())


def snapshot(path, name):
    runs, digest = read_plan(path).cohorts[0].run_ids[:2], hashlib.sha256(name.encode())
    return SnapshotRecord(name, digest.hexdigest(), runs, np.array([1, 0]), np.array([2, 1]))


def _get(found, key, make):
    try:
        found[key] = make()
    except ZooError as error:
        found[key] = error


def readable(path, *, want=lambda key: True):
    """Return key → value or error of everything that can be read; keys begin with what they are."""
    found, paths = {}, StorePaths(path)
    plan = read_plan(path)
    jobs = {
        ("plan",): lambda: json.dumps(plan.to_json()),
        ("sweep",): lambda: read_sweep_text(path),
        ("provenance",): lambda: read_provenance(path),
    }
    reader = StoreReader(path)
    states = functools.cache(lambda: {state.task: state for state in task_states(path)})
    for source in reader.cohorts:
        jobs |= _cohort_jobs(paths, source, states)
    for name in ("scores-1", "scores-2"):
        jobs["table", name] = lambda name=name: read_table(path, name)
    jobs["tables",] = lambda: table_names(path)
    for name in ("paper", "talk"):
        file = paths.records / "snapshots" / f"{name}.json"
        jobs["snapshot", name] = lambda file=file: read_snapshot(file).to_json()
    folder = StageFolder(path, "landscape", SETTINGS)
    jobs["settings", folder.folder.name] = lambda: stage_settings(folder.folder)
    for part in ("one", "two"):
        jobs["part", part] = lambda part=part: folder.read(part)
    for key, make in jobs.items():
        if want(key):
            _get(found, key, make)
    return found


def _cohort_jobs(paths, source, states):
    jobs, cohort = {}, source.cohort
    for task in cohort.tasks():
        rows, at = np.arange(task.start, task.stop), (cohort.id, task.index)

        def status(rows=rows):
            names = ("status", "reason", "last", "diverged_step")
            return [getattr(source, name)[rows].tolist() for name in names]

        def metrics(rows=rows):
            return np.stack([source.metric(name)[rows] for name in METRICS])

        jobs["status", *at] = status
        jobs["metrics", *at] = metrics
        jobs["state", *at] = lambda t=task: _state(states()[t])
        jobs["failures", *at] = lambda t=task: [
            (f.reason, f.superseded) for f in read_failures(paths, cohort, t)
        ]
        jobs["pause", *at] = lambda t=task: _pause(paths, cohort, t)
        for k in range(cohort.checkpoints):
            for array, read in (("weights", source.read_weights), ("probe", source.read_probe)):
                jobs[array, *at, k] = lambda read=read, rows=rows, k=k: read(rows, k)
    for name in ("sharpness", "trace", "phase", "side"):
        jobs["derived", cohort.id, name] = lambda n=name: (
            source.read_derived(n),
            source.derived[n],
        )
    return jobs


def _state(state):
    return state.committed, state.sealed, state.failed


def _pause(paths, cohort, task):
    point = read_pause(paths, cohort, task, 2)
    return None if point is None else (point.progress, dict(point.arrays))


def same(a, b):
    """Whether two values are the same; two NaN are."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (
            isinstance(a, np.ndarray)
            and isinstance(b, np.ndarray)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and (a.tobytes() == b.tobytes() if a.dtype.kind != "U" else bool((a == b).all()))
        )
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def less(value, truth):
    """Whether an array has the values of another one, or NaN where they are not there any more."""
    if not isinstance(value, np.ndarray) or value.shape != truth.shape:
        return False
    return bool((np.isnan(value) | (value == truth)).all())
