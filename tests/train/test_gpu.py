"""The same engine on a GPU; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_cases import plan_of, same_bits, specs, trajectories

from zoo.launch.local import run
from zoo.launch.reproduce import reproduce
from zoo.spec import Sweep
from zoo.store import read_plan
from zoo.train.plan import Task
from zoo.train.trainer import Engine, TaskTrainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def train_on(device, runs, *, backend="eager"):
    planned = plan_of(runs, backend=backend)
    (cohort,) = planned.cohorts
    task = Task(cohort.id, 0, 0, cohort.models)
    trainer = TaskTrainer(planned, cohort, task, engine=Engine(device=device))
    return cohort, list(trainer.run())


KINDS = [{}, {"norm": "batch"}, {"architecture": "cnn", "norm": "group"}, {"dropout": 0.2}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("backend", ["eager", "compiled"])
def test_gpu_equals_cpu_over_a_few_steps(kind, backend):
    runs = specs(4, activation="gelu", **kind)
    _, cpu = train_on("cpu", runs)
    _, gpu = train_on("cuda", runs, backend=backend)
    for a, b in zip(cpu, gpu, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_slots_do_not_matter_on_a_gpu(kind):
    runs = specs(8, **kind)
    wanted = trajectories(*train_on("cuda", runs))
    found = trajectories(*train_on("cuda", runs[::-1]))
    assert all(same_bits(found[run_id], wanted[run_id]) for run_id in wanted)


def test_a_store_is_trained_on_gpus_and_reproduced(tmp_path):
    tables = {
        "name": "gpu",
        "base": {"data": "digits", "width": 16, "norm": "batch", "epochs": 1},
        "grid": {"seed": {"range": [0, 6]}},
        "run": {"device": "cuda"},
    }
    path = tmp_path / "z.zarr"
    assert run(Sweep.from_dict(tables), path).complete
    (cohort,) = read_plan(path).cohorts
    assert cohort.device == "cuda"
    assert reproduce(path, cohort.run_ids[2]).matches
