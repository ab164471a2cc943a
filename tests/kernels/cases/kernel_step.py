"""The whole training step through kernels: equal to plain torch, and blind to neighbours."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.kernels.language import without_kernels
from zoo.train.group import coefficient_table
from zoo.train.plan import Task
from zoo.train.span import Span
from zoo.train.trainer import TaskTrainer

sys.path.insert(0, str(Path(__file__).parents[2] / "train"))
from engine_cases import plan_of, same_bits, specs, train, trajectories

KINDS = {
    "mlp": {},
    # A bias before batch norm has no gradient but rounding, which Adam would blow up to full steps.
    "mlp-batch-adamw": {"norm": "batch", "optimizer": "adamw", "dropout": 0.2, "eps": 1e-3},
    "cnn-flip": {"architecture": "cnn", "augmentation": "flip", "width": 8, "momentum": 0.9},
    "cnn-standardized": {
        "architecture": "cnn",
        "norm": "group",
        "weight_transform": "standardize",
        "width": 8,
        "norm_groups": 2,
        "activation": "gelu",
    },
    "cnn-ghost": {
        "architecture": "cnn",
        "norm": "ghost_batch",
        "virtual_batch": 4,
        "width": 4,
    },
    "mlp-evonorm": {"norm": "evonorm_s0", "activation": "identity", "norm_groups": 1},
    "mlp-rms": {"norm": "rms", "activation": "tanh", "optimizer": "lion", "lr": 1e-3},
    "mlp-clipped": {"norm": "layer", "clip_norm": 0.5, "decay_mask": "kernels"},
}


def small(count, kind):
    return specs(count, **{"batch_size": 8, "steps": 3, "width": 8, **KINDS[kind]})


def stepped(runs, *, steps=2):
    """Return the slab of runs of one cohort after some steps, one row per run, dummies behind."""
    planned = plan_of(runs)
    (cohort,) = planned.cohorts
    cohort = dataclasses.replace(cohort, group_rows=3)
    trainer = TaskTrainer(planned, cohort, Task(cohort.id, 0, 0, cohort.models))
    (group,) = trainer.groups
    (state,) = trainer._states([trainer._initial_slab(group)], None)
    numbers = np.repeat(np.arange(steps)[:, None], 3, 1)
    ids = torch.from_numpy(group.order.block(numbers))
    table = coefficient_table(trainer.recipe.optimizer, group.runs, numbers)
    live = torch.ones(steps, 3, dtype=torch.bool)
    span = Span(ids, table, live, torch.from_numpy(numbers), 0, steps)
    trainer.take(state, group.inputs, span)
    return {run_id: state.slab[row] for row, run_id in enumerate(cohort.run_ids)}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_plain_torch(kind):
    runs = small(3, kind)
    found = stepped(runs)
    with without_kernels():
        wanted = stepped(runs)
    for run_id, row in wanted.items():
        torch.testing.assert_close(found[run_id], row, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_group_slot_and_dummies_do_not_matter(kind):
    runs = small(3, kind)
    wanted = stepped(runs)
    found = stepped(runs[::-1])
    assert all(same_bits(found[run_id].numpy(), row.numpy()) for run_id, row in wanted.items())
    ((run_id, alone),) = stepped(runs[1:2]).items()
    assert same_bits(alone.numpy(), wanted[run_id].numpy())


def test_training_to_the_end_equals_plain_torch():
    runs = small(3, "mlp")
    cohort, found = train(runs)
    with without_kernels():
        _, wanted = train(runs)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-5, atol=1e-5)
        for name in a.metrics:
            np.testing.assert_allclose(a.metrics[name], b.metrics[name], rtol=1e-4, atol=1e-5)
    again = trajectories(*train(runs[::-1]))
    assert all(same_bits(again[i], row) for i, row in trajectories(cohort, found).items())
