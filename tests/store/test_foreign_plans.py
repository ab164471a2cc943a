"""A plan that says anything, with a right checksum: one error of ours, never a traceback.

A checksum keeps out accidents, not what somebody wrote on purpose. ``ZOO_FUZZ=N`` tries N random
examples in place of the fixed few.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import time

import fabricated_store as fab
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zoo
from zoo.errors import StoreCorruptError, ZooError
from zoo.store import (
    DerivedColumn,
    StoreReader,
    TaskWriter,
    create_store,
    publish,
    read_derived,
    read_plan,
    repair_added,
    repair_task,
    rewrite_planned,
    task_states,
    verify_store,
)
from zoo.store.records import record_bytes

MORE = int(os.environ.get("ZOO_FUZZ", "0"))
VALUES = [
    0, -1, 3, 2.5, 2**63, 10**25, 1e300, "", "x", "../..", "a\nb", None, True, [], {}, [1], [[1]],
    {"a": 1}, ["x"] * 3,
]  # fmt: skip


def places(tree, prefix=()):
    """Return the path of every node below the root; of a list, its first two."""
    items = tree.items() if isinstance(tree, dict) else ()
    items = list(enumerate(tree))[:2] if isinstance(tree, list) else items
    return [p for key, item in items for p in ((*prefix, key), *places(item, (*prefix, key)))]


def with_plan(path, change):
    """Write the store's plan anew, changed, with a right checksum; return the sound bytes."""
    file = path / "_zoo" / "plan.json"
    sound = file.read_bytes()
    body = json.loads(sound)
    for key in ("check", "encoding-type", "encoding-version"):
        del body[key]
    body = copy.deepcopy(body)
    change(body)
    file.write_bytes(record_bytes("plan", body))
    for copy_of in file.parent.glob("plan.copy.json"):
        copy_of.unlink()
    return file, sound


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("foreign") / "x.zarr"
    create_store(path, fab.make_plan(), sweep_toml=fab.SWEEP, provenance={})
    return path


@settings(
    max_examples=MORE or 60,
    derandomize=not MORE,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_a_plan_says_anything(store, data):
    def change(body):
        path = data.draw(st.sampled_from(places(body)))
        for key in path[:-1]:
            body = body[key]
        value = data.draw(st.sampled_from([*VALUES, ...]))
        if value is ... and isinstance(body, dict):
            del body[path[-1]]
        else:
            body[path[-1]] = None if value is ... else value

    file, sound = with_plan(store, change)
    began = time.process_time()
    try:
        states, query = (lambda p: list(task_states(p))), (lambda p: zoo.open(p).query()["lr"])
        for read in (read_plan, states, query, verify_store):
            try:
                read(store)
            except ZooError as error:
                assert len(str(error)) < 5000  # noqa: PT017
    finally:
        file.write_bytes(sound)
    assert time.process_time() - began < 5


#: what is wrong -> (where, the value, what the error says)
BAD = {
    "no cohorts": (("cohorts",), [], "'cohorts'"),
    "a name": (("cohorts", 0, "id"), 5, r"cohorts\[0\]\.id is not text"),
    "rows of a task": (("cohorts", 1, "task_rows"), 0, r"cohorts\[1\]\.task_rows"),
    "too few steps": (("cohorts", 0, "steps"), [[0, 1]], "steps and epochs"),
    "ragged steps": (("cohorts", 0, "steps", 0), [0], "steps is no table"),
    "a huge step": (("cohorts", 0, "steps", 0, 0), 10**25, "steps"),
    "a hole": (("cohorts", 0, "layout", 1, "offset"), 7, "layout has holes"),
    "a huge tensor": (("cohorts", 0, "layout", 0, "shape"), [2**40, 2**40], "layout"),
    "flops": (("cohorts", 0, "architecture", "train_flops_per_example"), "x", "FLOPs"),
    "a probe": (("data", "digits", "probe_indices"), [-1], "probe_indices"),
    "a data set": (("data",), {}, "'data' lacks"),
    "a record": (("record", "every_epochs"), "x", "record.every_epochs is no number"),
    "no probe": (("record", "probe_size"), None, "record.probe_size"),
    "a path": (("paths",), {"digits": 5}, "'paths' has one that is not text"),
    "an option": (("options",), [], "'options' is no table"),
}

#: what is wrong with the second row of a cohort -> (where, the value, what the error says)
BAD_ROWS = {
    "its id": (("id",), "x", "is no row of a run id"),
    "no spec": (("spec",), 5, "is no row of a run id"),
    "a field": (("spec", "lr"), "x", r"\.spec\.lr is not what that field holds"),
    "no value": (("spec", "lr"), None, r"\.spec\.lr is not what that field holds"),
    "a list": (("spec", "mine"), [1], r"\.spec\.mine is not what that field holds"),
    "no origin": (("origin",), {}, "is neither trained, imported nor derived"),
    "from nowhere": (("origin",), {"kind": "imported"}, "is imported from nowhere"),
    "a hash": (
        ("origin",),
        {"kind": "imported", "source": "x", "sha256": "0"},
        "has a sha256 that is none",
    ),
    "no transform": (("origin",), {"kind": "derived"}, "is derived by no transform"),
    "parents": (
        ("origin",),
        {"kind": "derived", "parents": [["0" * 16, -1]], "transform": "merged", "settings": {}},
        "has parents that are no checkpoints",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_the_error_names_the_row(store, case):
    path, value, said = BAD_ROWS[case]

    def change(body):
        body = body["plan"]["cohorts"][0]["runs"][1]
        for key in path[:-1]:
            body = body[key]
        body[path[-1]] = value

    file, sound = with_plan(store, change)
    try:
        with pytest.raises(StoreCorruptError, match=rf"cohorts\[0\]\.runs\[1\].*{said}"):
            read_plan(store)
    finally:
        file.write_bytes(sound)


@pytest.mark.parametrize("case", BAD)
def test_the_error_names_the_place(store, case):
    path, value, said = BAD[case]

    def change(body):
        body = body["plan"]
        for key in path[:-1]:
            body = body[key]
        body[path[-1]] = value

    file, sound = with_plan(store, change)
    try:
        with pytest.raises(StoreCorruptError, match=said):
            read_plan(store)
    finally:
        file.write_bytes(sound)


def shorter(cohort):
    for key in ("steps", "epochs"):
        cohort[key] = [row[:1] for row in cohort[key]]


def longer(cohort):
    for key in ("steps", "epochs"):
        cohort[key] = [[*row, 99] for row in cohort[key]]


#: How a plan can disagree with the commits that are there.
OTHERS = {
    "fewer rows per task": lambda cohort: cohort.update(task_rows=2),
    "more rows per task": lambda cohort: cohort.update(task_rows=12),
    "fewer checkpoints": shorter,
    "more checkpoints": longer,
}


@pytest.mark.parametrize("stop", [None, 2], ids=["sealed", "running"])
@pytest.mark.parametrize("case", OTHERS)
def test_a_plan_that_disagrees_with_the_commits(tmp_path, case, stop):
    path, plan = tmp_path / "x.zarr", fab.make_plan()
    create_store(path, plan, sweep_toml=fab.SWEEP, provenance={})
    for task in plan.tasks():
        fab.train_task(path, plan.cohort(task.cohort), task, stop=stop)
    with_plan(path, lambda body: OTHERS[case](body["plan"]["cohorts"][0]))
    reads = (
        lambda p: list(task_states(p)),
        lambda p: zoo.open(p).query()["test_loss"],
        lambda p: zoo.open(p).query(norm="layer").weights(),
    )
    for read in reads:
        with contextlib.suppress(ZooError):
            read(path)
    assert any("mlp-a" in problem for problem in verify_store(path).problems)


@pytest.mark.parametrize("field", ["diverged_step", "metrics"])
def test_a_commit_of_another_number_of_models(tmp_path, field):
    path, plan = tmp_path / "x.zarr", fab.make_plan()
    create_store(path, plan, sweep_toml=fab.SWEEP, provenance={})
    task = next(plan.tasks())
    fab.train_task(path, plan.cohort(task.cohort), task, stop=1)
    file = path / "_zoo/tasks/mlp-a/0/0.json"
    body = json.loads(file.read_bytes())
    for key in ("check", "encoding-type", "encoding-version"):
        del body[key]
    (body["metrics"]["test_loss"] if field == "metrics" else body[field]).pop()
    file.write_bytes(record_bytes("commit", body))
    assert "another number of models" in StoreReader(path).cohorts[0].reason[0]
    zoo.open(path).query()["test_loss"]
    assert any("another number of models" in problem for problem in verify_store(path).problems)


def rotated(body):
    """The same runs, each in the row of another; whatever else the records say still fits."""
    cohort = body["plan"]["cohorts"][0]
    cohort["runs"] = [*cohort["runs"][1:], cohort["runs"][0]]


OF_OTHER_RUNS = "of other runs than the plan has"


@pytest.mark.parametrize("stop", [None, 2], ids=["sealed", "running"])
def test_a_plan_with_the_runs_in_other_rows(tmp_path, stop):
    """No metric, weight, state or column of one run passes for another's."""
    path, plan = tmp_path / "x.zarr", fab.make_plan()
    create_store(path, plan, sweep_toml=fab.SWEEP, provenance={})
    for task in plan.tasks():
        fab.train_task(path, plan.cohort(task.cohort), task, stop=stop)
    first = plan.cohorts[0]
    columns = [
        DerivedColumn(c.id, "sharpness", ("model",), np.arange(float(c.models)), "of the loss")
        for c in plan.cohorts
    ]
    publish(path, columns, stage="landscape", stage_id="s")
    with_plan(path, rotated)

    changed, same = StoreReader(path).cohorts
    assert set(changed.status) == {"failed"}
    assert all(OF_OTHER_RUNS in reason for reason in changed.reason)
    assert np.isnan(changed.metric("test_loss")).all()
    assert not changed.recorded.any()
    assert changed.derived == {}
    with pytest.raises(StoreCorruptError, match=OF_OTHER_RUNS):
        read_derived(path, first.id, "sharpness")
    with pytest.raises(StoreCorruptError, match=OF_OTHER_RUNS):
        TaskWriter(path, changed.cohort, next(changed.cohort.tasks()))
    np.testing.assert_array_equal(same.read_derived("sharpness"), columns[1].values)
    assert np.isfinite(same.metric("test_loss")[:, 0]).any()

    problems = [p for p in verify_store(path).problems if first.id in p]
    assert sum(OF_OTHER_RUNS in p for p in problems) >= len(list(first.tasks()))
    rewrite_planned(path)
    for task in plan.tasks():
        repair_task(path, task)
    repair_added(path)
    assert verify_store(path).problems == ()
    changed, same = StoreReader(path).cohorts
    assert set(changed.status) == {"planned"}
    assert (changed.derived, list(same.derived)) == ({}, ["sharpness"])
    fab.fill(path, read_plan(path))
    assert verify_store(path).problems == ()


def test_a_failure_of_other_runs(tmp_path):
    path, plan = tmp_path / "x.zarr", fab.make_plan()
    create_store(path, plan, sweep_toml=fab.SWEEP, provenance={})
    task = next(plan.tasks())
    with TaskWriter(path, plan.cohorts[0], task) as writer:
        writer.fail("out of memory", "Traceback ...")
    with_plan(path, rotated)
    assert all(OF_OTHER_RUNS in f.reason for f in StoreReader(path).failures())
    assert any(OF_OTHER_RUNS in problem for problem in verify_store(path).problems)
    rewrite_planned(path)
    repair_task(path, task)
    assert verify_store(path).problems == ()
    assert StoreReader(path).failures() == []
