"""Data of every role, trained end to end: tokens, windows, gaps, weights, splits, fresh points."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import zoo
from zoo.architectures import build
from zoo.architectures.network import row_to_state_dict, state_dict_to_row
from zoo.cli import main
from zoo.errors import SpecError
from zoo.spec import Sweep
from zoo.store import read_plan
from zoo.train.planner import plan
from zoo.train.trainer import TaskTrainer

PLUGIN = '''
@plugin.architecture("tiny_gpt")
class TinyGPT(nn.Module):
    """A causal transformer of one block."""

    def __init__(self, example_shape, outputs, tokens, width: int = 8):
        super().__init__()
        (self.positions,) = example_shape
        self.embed = nn.Embedding(tokens, width)
        self.place = nn.Parameter(torch.randn(self.positions, width) * 0.1)
        self.qkv = nn.Linear(width, 3 * width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, outputs)

    def forward(self, x):
        h = self.embed(x) + self.place
        q, k, v = self.qkv(self.norm(h)).chunk(3, -1)
        a = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        later = torch.ones(self.positions, self.positions, dtype=torch.bool).triu(1)
        a = a.masked_fill(later, float("-inf")).softmax(-1)
        return self.out(h + a @ v)


def surface(p):
    return (p[:, :1] * p[:, 1:]).sin()


@plugin.data("surface", function=surface)
def points(count: int = 64):
    """The sine of a product on a square."""
    gen = torch.Generator().manual_seed(0)
    a, b = (torch.rand(count, 2, generator=gen) * 4 - 2 for _ in range(2))
    return {"train_x": a.numpy(), "train_y": surface(a).numpy(), "test_x": b.numpy(),
            "test_y": surface(b).numpy(), "low": [-2.0, -2.0], "high": [2.0, 2.0]}
'''
STEPS = 20


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("own")
    draw = lambda n: rng.integers(0, 5, n)  # noqa: E731
    np.savez(folder / "text.npz", train_sequence=draw(400), test_sequence=draw(120),
             val_sequence=draw(90))  # fmt: skip
    x, y = rng.normal(size=(160, 6)).astype("f4"), rng.normal(size=(160, 3)).astype("f4")
    there = rng.random(y.shape) < 0.6
    there[:, 0] = True
    np.savez(
        folder / "gaps.npz", train_x=x[:96], train_y=y[:96], train_mask=there[:96],
        train_weight=rng.random(96) + 0.1, test_x=x[96:], test_y=y[96:], test_mask=there[96:],
        test_weight=rng.random(64) + 0.1,
    )  # fmt: skip
    return {f"npz:{name}": str(folder / f"{name}.npz") for name in ("text", "gaps")}


CASES = {
    "windows": {"data": "npz:text", "context": 8, "window_stride": 3, "architecture": "tiny_gpt"},
    "gaps": {"data": "npz:gaps", "objective": "mse"},
    "replacement": {"data": "npz:gaps", "objective": "mse", "sampler": "replacement"},
    "fresh": {"data": "surface", "objective": "mse", "sampler": "fresh"},
}


def sweep_of(files, seeds=3, **fields):
    base = {"width": 8, "steps": STEPS, "batch_size": 8, "lr": 0.05, "momentum": 0.9, **fields}
    return Sweep.from_dict(
        {"name": "own", "base": base, "grid": {"seed": list(range(seeds))},
         "record": {"steps": [0, 7], "probe_size": 4}, "paths": files}
    )  # fmt: skip


def trained(sweep, backend="eager", resume=None, group=None):
    planned = plan(sweep, backend=backend)
    (cohort,) = planned.cohorts
    if group is not None:
        cohort = dataclasses.replace(cohort, group_rows=group)
    trainer = TaskTrainer(planned, cohort, next(cohort.tasks()), paths=sweep.paths)
    return trainer, list(trainer.run(resume))


def plain_loss(case, module, x, y, weight):
    """Return the loss of a batch as a user would write it."""
    z = module(x)
    if case == "windows":
        return F.cross_entropy(z.flatten(0, 1), y.flatten())
    there = ~torch.isnan(y)
    each = torch.where(there, (z - torch.nan_to_num(y)).square(), 0).sum(1) / there.sum(1)
    return (each * weight).mean()


def batches(case, trainer, g):
    """Yield the batches of model g."""
    group, split = trainer.groups[0], trainer.data.prepared.splits["train"]
    x, y = (torch.from_numpy(np.array(a)) for a in (split.x, split.y))
    weight = torch.ones(len(x)) if split.weight is None else torch.from_numpy(split.weight.copy())
    numbers = np.repeat(np.arange(STEPS)[:, None], len(group.runs), 1)
    for step, ids in enumerate(group.order.block(numbers)[:, g]):
        if case == "fresh":
            seed = group.inputs.order_seed[g : g + 1]
            points, targets = trainer.recipe.fresh.draw(seed, torch.tensor([step]), 8)
            yield points[0], targets[0], torch.ones(8)
        else:
            yield x[ids], y[ids], weight[ids]


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_are_those_of_plain_pytorch(plugged, files, case):
    plugged(PLUGIN)
    sweep = sweep_of(files, **CASES[case])
    trainer, points = trained(sweep)
    _, reference = trained(sweep, "reference")
    layout = trainer.cohort.layout
    network = build(trainer.runs[0], trainer.cohort.data_shape)
    for g in range(3):
        module = network.module().train()
        module.load_state_dict(row_to_state_dict(layout, points[0].weights[g]))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        for x, y, weight in batches(case, trainer, g):
            optimizer.zero_grad()
            plain_loss(case, module, x, y, weight).backward()
            optimizer.step()
        wanted = state_dict_to_row(layout, module.state_dict())
        assert np.abs(points[-1].weights[g] - wanted).max() < 1e-6
        assert np.abs(reference[-1].weights[g] - wanted).max() < 1e-6
        test = trainer.data.prepared.splits["test"]
        x, y = (torch.from_numpy(np.array(a)) for a in (test.x, test.y))
        weight = torch.ones(len(x)) if test.weight is None else torch.from_numpy(test.weight.copy())
        with torch.no_grad():
            loss = float(plain_loss(case, module, x, y, weight))
        assert points[-1].metrics["test_loss"][g] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_bits_hang_on_nothing_else(plugged, files, case):
    """Neighbours, slots and an interruption change no bit."""
    plugged(PLUGIN)
    _, many = trained(sweep_of(files, seeds=3, **CASES[case]), group=4)
    _, alone = trained(sweep_of(files, seeds=1, **CASES[case]), group=4)
    assert alone[-1].weights[0].tobytes() == many[-1].weights[0].tobytes()
    for name, values in many[-1].metrics.items():
        assert alone[-1].metrics[name][0].tobytes() == values[0].tobytes()
    from zoo.train.checkpoint import ResumePoint

    point = ResumePoint(1, many[1].weights, many[1].diverged_step, many[1].resume)
    _, rest = trained(sweep_of(files, seeds=3, **CASES[case]), group=4, resume=point)
    assert rest[-1].weights.tobytes() == many[-1].weights.tobytes()


@pytest.mark.compile
@pytest.mark.parametrize("case", ["windows", "gaps", "fresh"])
def test_the_compiled_step_is_the_same(plugged, files, case):
    plugged(PLUGIN)
    sweep = sweep_of(files, **CASES[case])
    _, eager = trained(sweep)
    _, compiled = trained(sweep, "compiled")
    np.testing.assert_allclose(compiled[-1].weights, eager[-1].weights, rtol=1e-5, atol=1e-6)


def test_a_language_zoo_from_plan_to_model(plugged, files, tmp_path):
    """Two context lengths: two data keys, a third split in the columns, every stage runs."""
    plugged(PLUGIN)
    raw = sweep_of(files, seeds=2, **CASES["windows"]).to_dict()
    del raw["base"]["context"]
    raw["grid"]["context"] = [8, 12]
    path = tmp_path / "t.zarr"
    zoo.run(Sweep.from_dict(raw), path, workers=0)
    planned = read_plan(path)
    assert sorted(planned.data) == [
        "npz:text{context=12,window_stride=3}", "npz:text{context=8,window_stride=3}",
    ]  # fmt: skip
    assert {c.data_shape.example for c in planned.cohorts} == {(8,), (12,)}
    view = zoo.open(path).query("epoch == -1 and context == 12 and val_loss > 0")
    assert len(view) == 2
    key = planned.data_key(view.spec(0))
    data = zoo.open(path).data(key)
    module = view.model(0)
    split = data.splits["val"]
    with torch.no_grad():
        z = module(torch.from_numpy(np.array(split.x)))
    y = torch.from_numpy(np.array(split.y))
    assert float(F.cross_entropy(z.flatten(0, 1), y.flatten())) == pytest.approx(
        view["val_loss"][0], rel=1e-5
    )
    right = (z.argmax(-1) == y).double().mean()
    assert float(right) == pytest.approx(view["val_accuracy"][0], abs=1e-6)
    quick = ["--workers", "0", "--set", "probes.train=32", "--set", "connectivity.min_steps=8"]
    for stage, options in (("landscape", quick), ("label", []), ("report", [])):
        assert main([stage, str(path), *options]) == 0
    measured = zoo.open(path).query("epoch == -1")
    assert np.isfinite(measured["lambda_max"]).all()
    assert np.isfinite(measured["ntk_alignment"]).all()
    assert "nc1" not in zoo.open(path).column_info, "there is no class per example"


REFUSED = {
    "an mlp on tokens": (
        {"data": "npz:text", "context": 8}, r"architecture = 'mlp': reads numbers.*tiny_gpt",
    ),
    "no context": ({"data": "npz:text", "architecture": "tiny_gpt"}, r"context: .*has a length"),
    "augmented tokens": (
        {**CASES["windows"], "augmentation": "noise"}, r"augmentation = 'noise': changes numbers",
    ),
    "noisy labels of positions": (
        {**CASES["windows"], "label_noise": 0.1},
        r"label_noise = 0.1: needs one label per example",
    ),
    "gaps and a loss that mixes": (
        {"data": "npz:gaps", "objective": "cosine"},
        r"objective = 'cosine': mixes outputs, and some targets of npz:gaps are missing.*mse",
    ),
    "fresh without a domain": (
        {"data": "npz:gaps", "objective": "mse", "sampler": "fresh"},
        r"sampler = 'fresh': draws from a domain, and npz:gaps has none.*low and high",
    ),
    "fresh and a diet": (
        {**CASES["fresh"], "score": "random", "keep": 0.5},
        r"score = 'random': is about examples of a training set",
    ),
}  # fmt: skip
COSINE = '''

@plugin.objective("cosine", takes=("vector",))
def cosine(z, y):
    """1 - the cosine of outputs and targets."""
    return 1 - torch.nn.functional.cosine_similarity(z, y, -1)
'''


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_apply_is_refused_when_planning(plugged, files, name):
    plugged(PLUGIN + COSINE)
    fields, message = REFUSED[name]
    with pytest.raises((SpecError, zoo.errors.DataError), match=message):
        plan(sweep_of(files, **fields))
