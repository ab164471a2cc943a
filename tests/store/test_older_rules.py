"""A store is read as it is there: no rule of today is applied to what was planned before."""

from __future__ import annotations

import dataclasses

import fabricated_store as fab
import numpy as np
import pytest
import torch
from test_foreign_plans import with_plan

import zoo
from zoo.errors import Problem, SpecError
from zoo.launch.local import run
from zoo.launch.status import store_status
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.store import (
    TaskWriter,
    create_store,
    data_paths,
    extend_store,
    read_plan,
    task_states,
    verify_store,
)
from zoo.train.planner import plan as make_plan
from zoo.train.trainer import TaskTrainer

SWEEP = {
    "name": "old",
    "base": {"data": "digits", "width": 4, "steps": 4, "norm": "layer"},
    "grid": {"lr": [0.1, 0.01]},
    "record": {"steps": [0, 2, 4], "probe_size": 4},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("old") / "x.zarr"
    sweep = zoo.Sweep.from_dict(SWEEP)
    plan = make_plan(sweep, backend="eager")
    create_store(path, plan, sweep_toml=sweep.to_toml(), provenance={})
    for task in plan.tasks():
        train(path, plan, task)
    return path


def train(path, plan, task):
    with TaskWriter(path, plan.cohort(task.cohort), task) as writer:
        for checkpoint in TaskTrainer(plan, plan.cohort(task.cohort), task).run():
            writer.commit(checkpoint)
        writer.seal({})


@pytest.fixture
def tightened(monkeypatch):
    """Every value that a run ever had is ruled out by now, and so is every checkpoint plan."""

    def refuse(info, value, place=""):
        return value, Problem(place or info.name, value, "is ruled out since")

    monkeypatch.setattr("zoo.spec.run.check_value", refuse)
    monkeypatch.setattr("zoo.spec.record.MAX_CHECKPOINTS", 0)
    with pytest.raises(SpecError, match="ruled out since"):
        RunSpec(lr=0.1)
    with pytest.raises(SpecError, match="list of up to 0"):
        RecordSpec(steps=(0, 2))


@pytest.mark.usefixtures("tightened")
def test_a_store_outlives_rules(trained):
    opened = zoo.open(trained)
    view = opened.query("lr == 0.1 and norm == 'layer' and from_end == -1")
    assert view["status"].tolist() == ["done"]
    inputs, _ = opened.probe_inputs()
    with torch.no_grad():
        logits = view.model(0)(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(logits, view.probe_logits()[0], atol=1e-2)
    assert (view.spec(0).lr, view.run(0).spec.width) == (0.1, 4)
    assert opened.plan.record.steps == (0, 2, 4)
    assert verify_store(trained).problems == ()
    assert store_status(trained).to_json()["complete"]
    assert all(state.sealed for state in task_states(trained))


@pytest.mark.usefixtures("tightened")
def test_what_was_planned_is_trained(tmp_path, trained):
    """The same bits as before the rules changed."""
    path, plan = tmp_path / "y.zarr", read_plan(trained)
    create_store(path, plan, sweep_toml="", provenance={})
    for task in plan.tasks():
        train(path, read_plan(path), task)
    old, new = (zoo.open(p).query("from_end == -1").stacked_weights() for p in (trained, path))
    np.testing.assert_array_equal(old, new)


def test_no_reader_reads_the_sweep(trained):
    """Nor does `zoo run STORE`: the plan has the paths and the options."""
    sound = {}
    for name in ("plan.json", "plan.copy.json", "sweep.toml"):
        sound[name] = (trained / "_zoo" / name).read_bytes()
    try:
        with_plan(trained, lambda body: body.update(sweep="[base]\nwidth = no TOML"))
        (trained / "_zoo/sweep.toml").unlink()
        assert len(zoo.open(trained).query("from_end == -1")) == 2
        assert data_paths(trained) == {}
        assert run(trained, workers=1).complete
    finally:
        for name, data in sound.items():
            (trained / "_zoo" / name).write_bytes(data)


def test_the_paths_of_all_sweeps_are_kept(tmp_path):
    path = tmp_path / "x.zarr"
    first = fab.make_plan(fab.make_cohort())
    first = dataclasses.replace(first, paths={"digits": "/a", "b": "/b"}, options={"workers": 3})
    create_store(path, first, sweep_toml=fab.SWEEP, provenance={})
    second = fab.make_cohort("mlp-b", width=16, seed=100)
    whole = dataclasses.replace(
        first,
        cohorts=(*first.cohorts, second),
        paths={"digits": "/c", "d": "/d"},
        options={"workers": 1},
    )
    extend_store(path, whole, sweep_toml=fab.SWEEP)
    plan = read_plan(path)
    assert plan.paths == {"digits": "/c", "b": "/b", "d": "/d"}
    assert plan.options == {"workers": 1}
    assert data_paths(path) == plan.paths
    assert zoo.open(path).data_paths == plan.paths
