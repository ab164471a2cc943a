"""The plan lists what its cohorts record: one metric more or less locks no store."""

from __future__ import annotations

import fabricated_store as fab
import numpy as np
import pytest
import zarr
from test_foreign_plans import with_plan

import zoo
from zoo.errors import StoreCorruptError, TrainError, UnknownNameError
from zoo.spec import Sweep
from zoo.store import StoreReader, create_store, extend_store, read_plan, verify_store
from zoo.train import planner
from zoo.train.checkpoint import METRICS
from zoo.train.plan import Metric, metrics_of
from zoo.train.trainer import TaskTrainer

MORE = (*metrics_of(METRICS), Metric("calibration_error", "of the test set", "float64"))
FEWER = metrics_of({name: doc for name, doc in METRICS.items() if name != "init_distance"})


@pytest.mark.parametrize("metrics", [MORE, FEWER], ids=["one more", "one fewer"])
def test_a_store_with_other_metrics(tmp_path, metrics):
    path, plan = tmp_path / "x.zarr", fab.make_plan(fab.make_cohort(metrics=metrics))
    create_store(path, plan, sweep_toml=fab.SWEEP, provenance={})
    cohort, (first, *rest) = plan.cohorts[0], plan.tasks()
    _, expected, _ = fab.expected(cohort)
    fab.train_task(path, cohort, first, stop=2)
    one = StoreReader(path).cohorts[0]
    for task in (first, *rest):
        fab.train_task(path, cohort, task)
    full = StoreReader(path).cohorts[0]
    assert full.cohort.metrics == metrics
    for metric in metrics:
        values = full.metric(metric.name)
        assert values.dtype == metric.dtype
        np.testing.assert_array_equal(values, expected[metric.name])
        np.testing.assert_array_equal(one.metric(metric.name)[:5, :2], values[:5, :2])
    assert verify_store(path).problems == ()

    group = zarr.open_group(path, mode="r")[cohort.id]
    assert group["metric"][...].tolist() == [metric.name for metric in metrics]
    assert group["metrics"].shape == (cohort.models, fab.K, len(metrics))
    view = zoo.open(path).query("test_loss > 0 and checkpoint == 1")
    assert len(view) == (expected["test_loss"][:, 1] > 0).sum()
    names = zoo.open(path).column_info
    for metric in metrics:
        assert (names[metric.name].per, names[metric.name].doc) == ("checkpoint", metric.doc)
    if metrics is MORE:
        found = zoo.open(path).query("calibration_error > 0 and checkpoint == 1")
        assert len(found) == (expected["calibration_error"][:, 1] > 0).sum()
    else:
        assert "init_distance" not in names
        with pytest.raises(UnknownNameError, match="no metric 'init_distance'"):
            full.metric("init_distance")


def test_a_cohort_that_is_added_records_more(tmp_path):
    """Where a cohort lacks a metric of another one it is missing there, as NaN."""
    path, plan = tmp_path / "x.zarr", fab.make_plan(fab.make_cohort())
    create_store(path, plan, sweep_toml=fab.SWEEP, provenance={})
    second = fab.make_cohort("mlp-b", width=16, seed=100, metrics=MORE)
    whole = fab.make_plan(*plan.cohorts, second)
    extend_store(path, whole, sweep_toml=fab.SWEEP)
    fab.fill(path, read_plan(path))
    values = zoo.open(path).query("checkpoint == 1")
    new = values["cohort"] == "mlp-b"
    _, expected, _ = fab.expected(second)
    assert np.isnan(values["calibration_error"][~new]).all()
    np.testing.assert_array_equal(
        values["calibration_error"][new], expected["calibration_error"][values["row"][new], 1]
    )
    assert verify_store(path).problems == ()


SWEEP = {
    "name": "one",
    "base": {"data": "digits", "width": 4, "steps": 4},
    "record": {"steps": [0, 4], "probe_size": 0},
}


def test_training_records_what_was_planned(monkeypatch):
    """A store of a version that recorded less is trained to its end, as it was planned."""
    fewer = {name: METRICS[name] for name in ("test_loss", "step_lr")}
    monkeypatch.setattr(planner, "recorded", lambda *_: fewer)
    plan = planner.plan(Sweep.from_dict(SWEEP), backend="eager")
    monkeypatch.undo()
    trainer = TaskTrainer(plan, plan.cohorts[0], next(plan.tasks()))
    assert [list(c.metrics) for c in trainer.run()] == [list(fewer)] * 2


def test_training_refuses_what_it_does_not_compute(monkeypatch):
    more = {**METRICS, "calibration_error": "of the test set"}
    monkeypatch.setattr(planner, "recorded", lambda *_: more)
    plan = planner.plan(Sweep.from_dict(SWEEP), backend="eager")
    with pytest.raises(TrainError, match="record calibration_error, which this phasezoo does not"):
        TaskTrainer(plan, plan.cohorts[0], next(plan.tasks()))


BAD = {
    "no list": (None, "is no list of metrics"),
    "no table": ([5], "no table"),
    "no name": ([{"name": "a b", "doc": "", "dtype": "float32"}], "without a name"),
    "no words": ([{"name": "a", "dtype": "float32"}], "a is not described"),
    "no type": ([{"name": "a", "doc": "", "dtype": "complex64"}], "a is of no type"),
    "twice": ([{"name": "a", "doc": "", "dtype": "float32"}] * 2, "twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_plan_with_bad_metrics(empty, case):
    value, said = BAD[case]
    with_plan(empty, lambda body: body["plan"]["cohorts"][0].update(metrics=value))
    with pytest.raises(StoreCorruptError, match=rf"cohorts\[0\]\.metrics.*{said}"):
        read_plan(empty)
