"""The whole training step through kernels: equal to plain torch, and blind to neighbours."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from zoo.kernels.language import without_kernels

sys.path.insert(0, str(Path(__file__).parents[2] / "train"))
from engine_cases import same_bits, specs, train, trajectories

KINDS = {
    "mlp": {},
    # A bias before batch norm has no gradient but rounding, which Adam would blow up to full steps.
    "mlp-batch-adamw": {"norm": "batch", "optimizer": "adamw", "dropout": 0.2, "eps": 1e-3},
    "cnn-flip": {"architecture": "cnn", "augmentation": "flip", "width": 8, "momentum": 0.9},
    "mlp-clipped": {"norm": "layer", "clip_norm": 0.5, "decay_mask": "kernels"},
}


def small(count, kind):
    return specs(count, **{"batch_size": 8, "steps": 3, "width": 8, **KINDS[kind]})


@pytest.mark.parametrize("kind", KINDS)
def test_training_equals_plain_torch(kind):
    runs = small(3, kind)
    _, found = train(runs)
    with without_kernels():
        _, wanted = train(runs)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_group_slot_and_dummies_do_not_matter(kind):
    runs = small(3, kind)
    wanted = trajectories(*train(runs, group_rows=3))
    found = trajectories(*train(runs[::-1], group_rows=3))
    alone = trajectories(*train(runs[1:2], group_rows=3))
    assert all(same_bits(found[run_id], wanted[run_id]) for run_id in wanted)
    assert same_bits(alone[runs[1].resolve(1437).run_id], wanted[runs[1].resolve(1437).run_id])
