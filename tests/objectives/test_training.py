"""Stacked training on every objective, beside a plain module, torch's loss and torch.optim."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zoo.architectures import build
from zoo.architectures.network import row_to_state_dict, state_dict_to_row
from zoo.data import load, prepare
from zoo.data.load import _load
from zoo.errors import SpecError
from zoo.objectives import OBJECTIVES
from zoo.spec import Sweep
from zoo.train.planner import plan
from zoo.train.trainer import TaskTrainer

N, TEST, D, OUT = 96, 40, 6, 3
STEPS = 20
RANDOM = np.random.default_rng(0)


def targets_of(x, kind):
    """Return targets that depend on the inputs."""
    z = np.tanh(x @ np.random.default_rng(1).normal(size=(D, OUT)))
    if kind == "class":
        return z.argmax(1)
    if kind == "binary":
        return (z > 0.1).astype(np.uint8)
    return z.astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    paths = {}
    for kind in ("class", "binary", "vector"):
        x, test = (RANDOM.normal(size=(n, D)).astype(np.float32) for n in (N, TEST))
        arrays = {"train_x": x, "train_y": targets_of(x, kind)}
        arrays |= {"test_x": test, "test_y": targets_of(test, kind)}
        np.savez(folder / f"{kind}.npz", **arrays)
        paths[f"npz:{kind}"] = str(folder / f"{kind}.npz")
    return paths


def sweep_of(files, kind, name, seeds=3, **fields):
    base = {"data": f"npz:{kind}", "objective": name, "width": 8, "depth": 1, "batch_size": 16,
            "lr": 0.05, "momentum": 0.9, "steps": STEPS, **fields}  # fmt: skip
    return Sweep.from_dict(
        {"name": "q", "base": base, "grid": {"seed": list(range(seeds))},
         "record": {"steps": [STEPS], "probe_size": 4}, "paths": files},
        source="test",
    )  # fmt: skip


def trained(sweep, backend="eager"):
    planned = plan(sweep, backend=backend)
    (cohort,) = planned.cohorts
    (task,) = cohort.tasks()
    trainer = TaskTrainer(planned, cohort, task, paths=sweep.paths)
    return trainer, list(trainer.run())


def torch_loss(name, z, y):
    values = y if y.is_floating_point() else F.one_hot(y, z.shape[-1]).to(z.dtype)
    if name == "cross_entropy":
        return F.cross_entropy(z, y)
    if name == "mse":
        return F.mse_loss(z, values)
    if name == "bce":
        return F.binary_cross_entropy_with_logits(z, values)
    return (torch.softmax(z, -1) - values).square().sum(-1).mean()


CASES = [(name, kind) for name in OBJECTIVES for kind in OBJECTIVES[name].takes]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_twenty_steps_are_those_of_torch(files, name, kind):
    """Each stacked model, and each of the reference backend, within 1e-6 of plain PyTorch."""
    sweep = sweep_of(files, kind, name)
    trainer, points = trained(sweep)
    start, end = points[0], points[-1]
    _, reference = trained(sweep, "reference")
    data = prepare(load(f"npz:{kind}", path=files[f"npz:{kind}"]))
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    group, layout = trainer.groups[0], trainer.cohort.layout
    steps = np.repeat(np.arange(STEPS)[:, None], len(group.runs), 1)
    ids = torch.from_numpy(group.order.block(steps))
    network = build(trainer.runs[0], data.shape)
    for g in range(3):
        module = network.module()
        module.load_state_dict(row_to_state_dict(layout, start.weights[g]))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        for batch in ids[:, g]:
            optimizer.zero_grad()
            loss = torch_loss(name, module(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
        wanted = state_dict_to_row(layout, module.state_dict())
        assert np.abs(end.weights[g] - wanted).max() < 1e-6
        assert np.abs(reference[-1].weights[g] - wanted).max() < 1e-6
        with torch.no_grad():
            z = module(torch.from_numpy(data.test_x))
            test = torch_loss(name, z, torch.from_numpy(data.test_y))
        assert end.metrics["test_loss"][g] == pytest.approx(float(test), rel=1e-4)
    assert end.metrics["train_loss"].mean() < start.metrics["train_loss"].mean()
    assert end.metrics["train_loss"].mean() < OBJECTIVES[name](kind).guessing(data.train_y, OUT)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_neighbours_do_not_matter(files, name, kind):
    """Three models and one of them alone, in groups of one size: the same bits."""
    fields = {"train_size": 64, "score": "random", "keep": 0.5} if kind == "vector" else {}
    many = trained_subset(files, kind, name, fields, 3)
    alone = trained_subset(files, kind, name, fields, 1)
    assert alone.weights[0].tobytes() == many.weights[0].tobytes()
    for metric in many.metrics:
        assert alone.metrics[metric][0].tobytes() == many.metrics[metric][0].tobytes()


def trained_subset(files, kind, name, fields, seeds):
    import dataclasses

    sweep = sweep_of(files, kind, name, seeds=seeds, **fields)
    planned = plan(sweep)
    (cohort,) = planned.cohorts
    cohort = dataclasses.replace(cohort, group_rows=4)
    (task,) = cohort.tasks()
    kept = {run.run_id: np.arange(run.examples) for run in cohort.runs if run.keep is not None}
    return list(TaskTrainer(planned, cohort, task, kept=kept, paths=sweep.paths).run())[-1]


def test_what_is_recorded_of_floats(files):
    _, points = trained(sweep_of(files, "vector", "mse", epochs=40.0, steps=None))
    metrics = points[-1].metrics
    assert not any("accuracy" in name for name in metrics)
    assert (metrics["train_r2"] > 0.5).all()
    assert (metrics["test_r2"] <= 1).all()
    spread = load("npz:vector", path=files["npz:vector"]).train_y.var(0).mean()
    # both are over all outputs together: R² = 1 - loss/variance
    np.testing.assert_allclose(metrics["train_r2"], 1 - metrics["train_loss"] / spread, rtol=1e-4)


def test_objectives_split_cohorts_and_keep_the_run_ids_of_cross_entropy(files):
    sweep = Sweep.from_dict(
        {"name": "q", "base": {"data": "npz:class", "epochs": 1}, "paths": files,
         "grid": {"objective": list(OBJECTIVES)}, "record": {"steps": [0]}},
        source="test",
    )  # fmt: skip
    planned = plan(sweep)
    assert len(planned.cohorts) == len(OBJECTIVES["cross_entropy"].takes) + 3
    assert {c.runs[0].objective for c in planned.cohorts} == set(OBJECTIVES)


REFUSED = {
    "labels for floats": ("vector", {"objective": "cross_entropy"},
                          r"objective = 'cross_entropy': takes class labels, and the targets of"
                          r" npz:vector are floats .*allowed: mse"),
    "one-hot labels": ("binary", {"objective": "cross_entropy"}, r"train_y\.argmax\(1\)"),
    "floats for bce": ("vector", {"objective": "bce"}, r"train_y\.astype\('uint8'\)"),
    "noise on floats": ("vector", {"objective": "mse", "label_noise": 0.1},
                        r"label_noise = 0\.1: needs class labels, and the targets are floats"),
    "classes of floats": ("vector", {"objective": "mse", "score": "random", "balance": "class"},
                          r"balance = 'class': needs class labels"),
    "EL2N of floats": ("vector", {"objective": "mse", "score": "el2n"},
                       r"score = 'el2n': needs probabilities of classes, and the squared error"
                       r" makes none .*allowed: .*loss"),
    "margins of bce": ("class", {"objective": "bce", "score": "margin"}, r"score = 'margin'"),
    "forgetting of bits": ("binary", {"objective": "bce", "score": "forgetting"},
                           r"needs class labels, and the targets are zeros and ones"),
    "smoothing of mse": ("vector", {"objective": "mse", "label_smoothing": 0.1},
                         r"base\.label_smoothing = 0\.1: no run reads it; allowed:"
                         r" objective = 'cross_entropy'"),
    "a typo": ("vector", {"objective": "mes"}, r"unknown objective; .*did you mean 'mse'"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_apply_is_refused_when_planning(files, kind, fields, message):
    _load.cache_clear()
    base = {"data": f"npz:{kind}", "epochs": 1, **fields}
    with pytest.raises(SpecError, match=message):
        plan(Sweep.from_dict({"name": "q", "base": base, "paths": files}, source="test"))
