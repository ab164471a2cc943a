"""Planning: a pure function that gives every run its cohort, row and task."""

from __future__ import annotations

import json

import numpy as np
import pytest
from engine_cases import plan_of, specs, sweep_of
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.errors import DataError, SpecError
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.train.plan import Plan
from zoo.train.planner import plan


def rows_of(planned):
    return {
        run_id: (c.id, row, next(t.index for t in c.tasks() if t.start <= row < t.stop))
        for c in planned.cohorts
        for row, run_id in enumerate(c.run_ids)
    }


def test_runs_stack_by_computation_and_only_by_it():
    vectors = [
        RunSpec(width=16, steps=4, lr=lr, momentum=m, weight_decay=wd, label_noise=n, seed=s,
                schedule=sch, init=i, label_smoothing=ls)
        for lr, m, wd, n, s, sch, i, ls in [
            (0.1, 0.0, 0.0, 0.0, 0, "constant", "default", 0.0),
            (0.2, 0.9, 1e-3, 0.1, 1, "cosine", "orthogonal", 0.1),
            (0.3, 0.5, 0.0, 0.0, 2, "one_cycle", "normal", 0.0),
        ]
    ]  # fmt: skip
    assert len(plan_of(vectors).cohorts) == 1
    tuned = [
        RunSpec(width=16, steps=4, optimizer="lars", trust=t, momentum=m, weight_decay=wd,
                clip_norm=clip, z_loss=z, eps=e)
        for t, m, wd, clip, z, e in ((1e-3, 0.9, 0, 1, 0.1, 1e-8), (1.0, 0.0, 0.1, 5, 1, 1.0))
    ]  # fmt: skip
    assert len(plan_of(tuned).cohorts) == 1
    base = {"width": 16, "steps": 4}
    apart = [
        base,
        {**base, "width": 32},
        {**base, "norm": "layer"},
        {**base, "optimizer": "adam"},
        {**base, "batch_size": 16},
        {**base, "nesterov": True},
        {**base, "dropout": 0.1},
        {**base, "train_size": 100},
        {**base, "precision": "bfloat16"},
        {**base, "architecture": "cnn"},
        {**base, "weight_transform": "standardize"},
        {**base, "norm": "ghost_batch", "virtual_batch": 8},
        {**base, "norm": "ghost_batch", "virtual_batch": 16},
        {**base, "clip_norm": 1.0},
        {**base, "z_loss": 0.1},
        {**base, "weight_decay": 0.1, "decay_mask": "kernels"},
        {**base, "weight_decay": 0.1, "decay_mask": "no_norms"},
    ]
    assert len(plan_of([RunSpec(**f) for f in apart]).cohorts) == len(apart)


def test_plan_survives_json():
    planned = plan_of(specs(9) + specs(3, norm="batch"))
    again = Plan.from_json(json.loads(json.dumps(planned.to_json())))
    assert json.dumps(again.to_json()) == json.dumps(planned.to_json())
    assert rows_of(again) == rows_of(planned)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=40), st.integers(1, 20))
def test_every_run_has_one_row_and_one_task(seeds, task_models):
    runs = [RunSpec(width=16, steps=2, seed=s) for s in seeds]
    planned = plan_of(runs, task_models=task_models)
    rows = rows_of(planned)
    assert len(rows) == len(set(seeds)) == planned.models
    for cohort in planned.cohorts:
        tasks = list(cohort.tasks())
        assert [t.start for t in tasks] == list(range(0, cohort.models, cohort.task_rows))
        assert sum(t.models for t in tasks) == cohort.models


def test_planning_twice_gives_the_same_plan():
    runs = specs(20) + specs(7, norm="layer")
    a, b = plan_of(runs).to_json(), plan_of(runs).to_json()
    assert a == b


def test_extending_adds_and_never_moves():
    first = plan_of(specs(6))
    wider = sweep_of(specs(10) + specs(2, norm="layer"))
    second = plan(wider, base=first)
    assert second.models == 12
    assert {k: v for k, v in rows_of(second).items() if k in rows_of(first)} == rows_of(first)
    assert second.cohorts[0].id + ".1" in {c.id for c in second.cohorts}
    assert plan(wider, base=second).cohorts == second.cohorts


def test_extending_checks_record_and_data():
    first = plan_of(specs(3))
    with pytest.raises(SpecError, match="differs from the store's"):
        plan(sweep_of(specs(4), record=RecordSpec(every_epochs=1)), base=first)
    other = plan(sweep_of([*specs(3), *specs(1, normalization="unit")]), base=first)
    assert set(other.data["digits"]["normalization"]) == {"standard", "unit"}
    first.data["digits"]["fingerprint"] = "0" * 64
    with pytest.raises(DataError, match="not what the store was planned with"):
        plan(sweep_of(specs(4)), base=first)


def test_train_size_given_or_not_is_the_same_run():
    planned = plan_of([RunSpec(steps=3, width=16), RunSpec(steps=3, width=16, train_size=1437)])
    assert planned.models == 1


def test_group_size_does_not_grow_with_the_sweep():
    few, many = plan_of(specs(64)), plan_of(specs(300))
    assert few.cohorts[0].group_rows == many.cohorts[0].group_rows
    assert plan_of(specs(3)).cohorts[0].group_rows == 4


def test_groups_for_gpus_fill_the_card_instead_of_a_cache():
    sweep = sweep_of(specs(200, width=16), task_models=None)
    (here,), (there,) = (plan(sweep, device=d).cohorts for d in ("cpu", "cuda"))
    assert (here.device, here.group_rows) == ("cpu", 64)
    assert (there.device, there.group_rows, there.task_rows) == ("cuda", 256, 200)
    assert there.backend == "eager"
    # what the user wants in a task bounds the group, and tasks then share out the models
    few = sweep_of(specs(200, width=16), task_models=30)
    (cohort,) = plan(few, device="cuda").cohorts
    assert (cohort.group_rows, cohort.task_rows) == (32, 32)
    # a wide net takes the room of many narrow ones
    large = sweep_of(specs(64, width=2048, depth=8), task_models=None)
    (wide,) = plan(large, device="cuda").cohorts
    assert wide.group_rows == 4


def test_a_plan_keeps_its_device_when_it_grows():
    base = plan(sweep_of(specs(2)), device="cuda")
    assert Plan.from_json(json.loads(json.dumps(base.to_json()))).cohorts[0].device == "cuda"
    grown = plan(sweep_of(specs(2, width=64)), base=base)
    assert [c.device for c in grown.cohorts] == ["cuda", "cuda"]
    with pytest.raises(SpecError, match=r"device.*'tpu'.*cpu, cuda"):
        plan(sweep_of(specs(2)), device="tpu")


def test_checkpoint_steps():
    assert RecordSpec().checkpoint_steps(10, 5) == (0, 5, 10)
    assert RecordSpec(every_epochs=2).checkpoint_steps(25, 5) == (0, 10, 20, 25)
    assert RecordSpec(epochs=(0.5, 3)).checkpoint_steps(20, 10) == (0, 5, 20)
    assert RecordSpec(steps=(3, 400)).checkpoint_steps(20, 10) == (0, 3, 20)
    log = RecordSpec(log_steps=5).checkpoint_steps(1000, 10)
    assert log[:2] == (0, 1)
    assert log[-1] == 1000
    assert np.allclose(np.diff(np.log(log[1:])), np.log(1000) / 4, rtol=0.05)


def test_what_does_not_fit_is_said_once_with_a_count():
    runs = [
        *specs(3, batch_size=2000),
        *specs(2, train_size=99999),
        *specs(2, norm="batch", batch_size=1),
        *specs(2, norm="ghost_batch", virtual_batch=7),
        *specs(1, augmentation="flip", data="mnist1d"),
    ]
    with pytest.raises(SpecError) as caught:
        plan_of(runs)
    text = str(caught.value)
    assert "5 problems" in text
    assert "virtual_batch = 7: batch_size = 16 is no multiple of it" in text
    assert "batch_size = 2000" in text
    assert "(3 runs)" in text
    assert "<= 1437 (digits)" in text
    with pytest.raises(SpecError, match=r"do not divide .*\(2 runs\)"):
        plan_of(specs(2, architecture="cnn", norm="group", width=6))
    with pytest.raises(SpecError, match="unknown backend"):
        plan_of(specs(1), backend="quick")


def test_probe_is_recorded_and_fixed():
    a, b = plan_of(specs(1)), plan_of(specs(2, norm="layer"))
    indices = a.data["digits"]["probe_indices"]
    assert indices == b.data["digits"]["probe_indices"]
    assert len(indices) == 8
    assert indices == sorted(set(indices))
