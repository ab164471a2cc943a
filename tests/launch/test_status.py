"""Status from files, cost of a plan, and one model trained again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zoo.errors import StoreMissingError, UnknownNameError
from zoo.launch import reproduce as reproduce_module
from zoo.launch.calibrate import _rates, plan_cost
from zoo.launch.local import run
from zoo.launch.reproduce import reproduce
from zoo.launch.status import STATES, store_status
from zoo.spec import Sweep
from zoo.store import (
    StoreReader,
    TaskWriter,
    claim_task,
    create_store,
    read_plan,
    verify_store,
)
from zoo.train.plan import Plan
from zoo.train.planner import plan as make_plan
from zoo.train.trainer import TaskTrainer


def stamps(path):
    """When each file changed last; an owner's lease beats by itself, and only its name counts."""
    times = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    return {p: 0 if p.parent.suffix == ".lease" else time for p, time in times.items()}


def test_status_follows_a_store_from_plan_to_done(sweep, tmp_path):
    path = tmp_path / "z.zarr"
    plan = make_plan(sweep)
    create_store(path, plan, sweep_toml=sweep.to_toml(), provenance={})
    found = store_status(path)
    assert tuple(found.counts) == STATES
    assert found.counts["missing"] == found.models == 82
    assert {line.state for line in found.tasks} == {"waiting"}
    task = next(plan.tasks())
    cohort = plan.cohort(task.cohort)
    with claim_task(path, task):
        writer = TaskWriter(path, cohort, task)
        steps = TaskTrainer(plan, cohort, task).run()
        writer.commit(next(steps))
        writer.commit(next(steps))
        before = stamps(path)
        found = store_status(path)
        assert found.tasks[0].state == "running"
        assert stamps(path) == before  # looking changes nothing
    found = store_status(path)
    assert found.tasks[0].state == "stopped"
    assert (found.tasks[0].committed, found.tasks[0].checkpoints) == (2, 7)
    assert found.counts["running"] == task.models
    assert found.checkpoints == (2 * task.models, 7 * 82)
    assert not found.complete
    run(path, workers=0)
    found = store_status(path)
    assert found.complete
    assert found.counts["done"] == 82
    assert {line.state for line in found.tasks} == {"done"}
    assert json.loads(json.dumps(found.to_json()))["counts"]["done"] == 82


def test_no_status_of_no_store(tmp_path):
    with pytest.raises(StoreMissingError):
        store_status(tmp_path / "nothing.zarr")


def test_bytes_and_shards_of_a_plan_are_those_of_its_store(clean):
    plan = read_plan(clean)
    cost = plan_cost(plan, workers=2, budget_s=0)
    assert cost.shards == verify_store(clean).shards
    reader = StoreReader(clean)
    total = 0
    for cohort in reader.cohorts:
        rows, ks = np.nonzero(cohort.recorded)
        total += cohort.read_weights(rows, ks).nbytes + cohort.read_probe(rows, ks).nbytes
        total += 9 * 4 * len(rows)
    assert cost.bytes == total
    assert not any(c.measured for c in cost.cohorts)
    assert cost.core_seconds > 0


def test_calibration_measures_and_scales(clean):
    plan = read_plan(clean)
    cost = plan_cost(plan, workers=1, budget_s=60)
    assert all(c.measured and c.seconds > 0 for c in cost.cohorts)
    assert cost.seconds >= cost.core_seconds
    some = plan_cost(plan, workers=1, budget_s=1e-6)
    assert sum(c.measured for c in some.cohorts) == 1
    assert all(c.seconds > 0 for c in some.cohorts)
    nothing = plan_cost(Plan(plan.name, plan.axes, plan.record, plan.data, ()), workers=2)
    assert (nothing.seconds, nothing.bytes, nothing.shards) == (0.0, 0, 0)


def test_what_is_measured_grows_with_the_steps():
    base = {"data": "digits", "width": 2, "batch_size": 256}
    cohorts = [{**base, "epochs": epochs, "seed": {"range": [0, 4]}} for epochs in (20, 2000)]
    seconds = []
    for grid in cohorts:
        grid = {name: value if name == "seed" else [value] for name, value in grid.items()}
        sweep = Sweep.from_dict({"name": "s", "grid": grid, "record": {"log_steps": 4}})
        seconds.append(plan_cost(make_plan(sweep), workers=1, budget_s=60).core_seconds)
    assert seconds[1] > 10 * seconds[0]  # a hundred times the steps, as many evaluations


def test_steps_and_evaluations_are_told_apart():
    taken = np.array([3, 8, 72])
    spent = np.array([0.9, 0.5 + 3 * 0.01, 0.5 + 8 * 0.01, 0.5 + 72 * 0.01])
    np.testing.assert_allclose(_rates(spent, taken), (0.5, 0.01))
    # with less measured, a step costs something and no more than all of what was measured
    for part, steps in ((spent[:2], 3), (spent[:3], 8), (np.array([9.0, 1.0, 1.0, 1.0]), 72)):
        evaluation, a_step = _rates(part, taken)
        assert evaluation > 0
        assert part[-1] / steps / 2 <= a_step <= part[-1] / steps


@pytest.mark.parametrize("place", [(0, 0), (0, 2), (-1, 0), (-1, 69)])
def test_a_model_trained_alone_has_the_same_bits(clean, place):
    cohort = read_plan(clean).cohorts[place[0]]
    run_id = cohort.run_ids[place[1]]
    result = reproduce(clean, run_id[:12])
    assert result.matches
    assert (result.run_id, result.row, result.checkpoints) == (run_id, place[1] % 70, 7)
    assert result.warnings == ()
    assert result.to_json()["difference"] is None


@pytest.mark.parametrize("what", ["weights", "probe_logits", "grad_norm"])
def test_one_other_bit_is_found(clean, monkeypatch, what):
    class Other(TaskTrainer):
        def run(self, resume=None):
            for checkpoint in super().run(resume):
                if checkpoint.index == 3:
                    arrays = {"weights": checkpoint.weights, "probe_logits": checkpoint.probe}
                    array = {**arrays, **checkpoint.metrics}[what].reshape(-1)
                    array[-1] = np.nextafter(array[-1], array.dtype.type(np.inf))
                yield checkpoint

    monkeypatch.setattr(reproduce_module, "TaskTrainer", Other)
    cohort = read_plan(clean).cohorts[0]
    result = reproduce(clean, cohort.run_ids[1])
    assert not result.matches
    first = result.difference
    assert (first.checkpoint, first.step, first.what, first.differing) == (3, 12, what, 1)
    assert 0 < first.largest < 0.01


def test_a_diverged_model_diverges_again(tmp_path):
    sweep = Sweep.from_dict(
        {
            "name": "hot",
            "base": {"data": "digits", "steps": 12, "width": 4, "batch_size": 32},
            "grid": {"lr": [0.1, 1e30], "seed": [0, 1]},
            "record": {"steps": [0, 4, 8, 12], "probe_size": 0},
        }
    )
    run(sweep, tmp_path / "z.zarr", workers=0)
    (cohort,) = StoreReader(tmp_path / "z.zarr").cohorts
    assert sorted(cohort.status.tolist()) == ["diverged", "diverged", "done", "done"]
    assert store_status(tmp_path / "z.zarr").complete
    for row, run_id in enumerate(cohort.cohort.run_ids):
        result = reproduce(tmp_path / "z.zarr", run_id)
        assert result.matches
        assert result.checkpoints == int(cohort.recorded[row].sum())


def test_another_machine_is_warned_of(clean, monkeypatch):
    now = reproduce_module.fingerprint()
    monkeypatch.setattr(reproduce_module, "fingerprint", lambda: {**now, "cpu": "abacus"})
    result = reproduce(clean, read_plan(clean).cohorts[0].run_ids[0])
    (warning,) = result.warnings
    assert warning.endswith("is abacus")


def test_unknown_and_ambiguous_runs(clean, sweep, tmp_path):
    with pytest.raises(UnknownNameError, match="no run of this store"):
        reproduce(clean, "zzz")
    with pytest.raises(UnknownNameError, match="no run of this store"):
        reproduce(clean, "")
    first = [r[0] for c in read_plan(clean).cohorts for r in c.run_ids]
    twice = next(letter for letter in first if first.count(letter) > 1)
    with pytest.raises(UnknownNameError, match="is the beginning of"):
        reproduce(clean, twice)
    run(sweep, tmp_path / "z.zarr", limit=0)
    with pytest.raises(UnknownNameError, match="recorded yet"):
        reproduce(tmp_path / "z.zarr", read_plan(clean).cohorts[0].run_ids[0])
