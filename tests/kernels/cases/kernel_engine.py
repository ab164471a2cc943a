"""Training through kernels where things go wrong, and with the convolution's own kernel."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.train import trainer

sys.path.insert(0, str(Path(__file__).parents[2] / "train"))
from engine_cases import same_bits, specs, train, trajectories

SMALL = {"batch_size": 8, "steps": 4, "width": 8, "depth": 1}


def ids_of(runs):
    return [run.resolve(1437).run_id for run in runs]


def test_training_with_the_convolution_kernel_equals_the_grouped_form(monkeypatch):
    runs = specs(2, architecture="cnn", momentum=0.9, **SMALL)
    _, wanted = train(runs)
    # Of the step alone: evaluation goes through the whole data set, which the interpreter cannot.
    forms = {"cpu": "implicit", None: "grouped"}
    monkeypatch.setattr(trainer, "conv_form", lambda backend, device=None: forms[device])
    cohort, found = train(runs)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-5, atol=1e-5)
    alone = trajectories(*train(runs[1:]))
    (run_id,) = ids_of(runs[1:])
    assert same_bits(alone[run_id], trajectories(cohort, found)[run_id])


@pytest.mark.parametrize("optimizer", ["sgd", "lamb"])
def test_a_diverging_neighbour_changes_nothing(optimizer):
    good = specs(2, optimizer=optimizer, **SMALL)
    wild = specs(3, optimizer=optimizer, **{**SMALL, "lr": 1e30})[2:]
    wanted = trajectories(*train(good, group_rows=3))
    cohort, checkpoints = train([*good, *wild], group_rows=3)
    found = trajectories(cohort, checkpoints)
    assert all(same_bits(found[run_id], wanted[run_id]) for run_id in ids_of(good))
    row = cohort.run_ids.index(ids_of(wild)[0])
    assert np.isnan(checkpoints[-1].weights[row]).all()
    assert checkpoints[-1].diverged_step[row] >= 0


def test_a_model_that_is_done_keeps_its_bits():
    record = RecordSpec(every_epochs=1, probe_size=0)
    runs = [
        RunSpec(seed=s, width=8, depth=1, batch_size=32, train_size=size, epochs=1,
                optimizer="adamw", lr=0.05)
        for s, size in enumerate((64, 130))
    ]  # fmt: skip
    cohort, checkpoints = train(runs, record=record, group_rows=2)
    assert len({int(s) for s in cohort.steps[:, -1]}) == 2
    wanted = trajectories(cohort, checkpoints)
    for run in runs:
        for run_id, row in trajectories(*train([run], record=record, group_rows=2)).items():
            assert same_bits(row, wanted[run_id])
