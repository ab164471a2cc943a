"""Entries of one's own train as plain PyTorch does, and neighbours, slots and dummies do not count.

The plug-in is the one of docs/extend.md. The plain loop here shares the data order with the engine
and nothing else.
"""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zoo
from zoo.errors import SpecError, TrainError
from zoo.landscape.batch_stats import with_fresh_statistics
from zoo.seeds import Stream, permutation
from zoo.spec import RunSpec
from zoo.spec.record import RecordSpec
from zoo.train.checkpoint import ResumePoint
from zoo.train.plan import Task
from zoo.train.planner import plan
from zoo.train.trainer import TaskTrainer

pytestmark = pytest.mark.usefixtures("page_plugin")

STEPS = 20
BASE = {"data": "my_stripes", "batch_size": 32, "steps": STEPS, "width": 8, "lr": 0.05}
KINDS = {
    "resnet": {"architecture": "my_resnet"},
    "attention": {"architecture": "my_attention"},
    "norm": {"norm": "my_scale"},
    "norm-cnn": {"norm": "my_scale", "architecture": "cnn", "lr": 0.01},
    "activation": {"activation": "my_squareplus"},
    "loss": {"objective": "my_focal", "gamma": 2.0},
    "optimizer": {"optimizer": "my_signum", "lr": 0.002, "weight_decay": 0.1},
    "augmentation": {"augmentation": "my_dark"},
}


def runs_of(kind, count=5):
    return [RunSpec(**{**BASE, **KINDS.get(kind, {}), "seed": s}) for s in range(count)]


def trainer_of(runs, *, backend="eager", group_rows=None):
    sweep = SimpleNamespace(
        name="t", runs=lambda: tuple(runs), axes={}, paths={}, options={},
        record=RecordSpec(steps=(7, STEPS), probe_size=4),
    )  # fmt: skip
    planned = plan(sweep, backend=backend)
    (cohort,) = planned.cohorts
    if group_rows is not None:
        cohort = dataclasses.replace(cohort, group_rows=group_rows)
    return TaskTrainer(planned, cohort, Task(cohort.id, 0, 0, cohort.models))


def rows(trainer, resume=None):
    return {
        run_id: [c.weights[row] for c in found]
        for found in [list(trainer.run(resume))]
        for row, run_id in enumerate(trainer.cohort.run_ids)
    }


@pytest.mark.parametrize("kind", ["resnet", "attention"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_module_is_trained_as_by_plain_pytorch(page_plugin, kind, optimizer):
    lr = 0.05 if optimizer == "sgd" else 0.001
    # the bias of keys has no gradient but rounding, which Adam would blow up without a large eps
    own = {"eps": 1e-2} if optimizer == "adamw" else {}
    run = RunSpec(**{**BASE, **KINDS[kind], **own, "optimizer": optimizer, "lr": lr, "seed": 3})
    trainer = trainer_of([run])
    run = trainer.runs[0]
    ((_, _, final),) = rows(trainer).values()

    module = sys.modules[f"zoo_plugin_{page_plugin.sha256[:16]}"]
    kinds = {"my_resnet": module.MyResNet, "my_attention": module.MyAttention}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(run.init_seed)
        net = kinds[run.architecture]((1, 8, 8), 2, width=8).train()
    x, y = trainer.data.train_x, torch.from_numpy(trainer.data.prepared.train_y)
    if optimizer == "sgd":
        steps = torch.optim.SGD(net.parameters(), lr=lr, momentum=run.momentum)
    else:
        steps = torch.optim.AdamW(net.parameters(), lr=lr, betas=(run.beta1, run.beta2),
                                  eps=run.eps, weight_decay=run.weight_decay)  # fmt: skip
    per_epoch = len(y) // run.batch_size
    for step in range(STEPS):
        epoch, place = divmod(step, per_epoch)
        order = permutation(run.order_seed, Stream.ORDER, epoch, len(y))
        ids = torch.from_numpy(order[place * run.batch_size :][: run.batch_size])
        loss = torch.nn.functional.cross_entropy(net(x[ids]), y[ids])
        steps.zero_grad()
        loss.backward()
        steps.step()
    state = net.state_dict()
    for s in trainer.cohort.layout.segments:
        mine = torch.from_numpy(final[s.offset : s.stop]).view(s.shape)
        torch.testing.assert_close(mine, state[s.name], rtol=1e-5, atol=1e-6, msg=s.name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_equals_the_reference(kind):
    fast = rows(trainer_of(runs_of(kind, 3)))
    slow = rows(trainer_of(runs_of(kind, 3), backend="reference"))
    for run_id, found in slow.items():
        for a, b in zip(fast[run_id], found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.compile
@pytest.mark.parametrize("kind", ["resnet", "attention", "norm", "loss", "optimizer"])
def test_every_entry_compiles(kind):
    fast = rows(trainer_of(runs_of(kind, 3)))
    for run_id, found in rows(trainer_of(runs_of(kind, 3), backend="compiled")).items():
        for a, b in zip(fast[run_id], found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_slots_and_dummies_change_no_bit(kind):
    runs = runs_of(kind, 11)
    # groups of code that is not ours are of one size whatever the number of models
    size = {} if kind in ("attention", "norm", "norm-cnn") else {"group_rows": 8}
    wanted = rows(trainer_of(runs, **size))
    order = np.random.default_rng(0).permutation(11)
    for some in ([runs[i] for i in order], runs[3:6], runs[7:8]):
        for run_id, found in rows(trainer_of(some, **size)).items():
            for a, b in zip(found, wanted[run_id], strict=True):
                assert a.tobytes() == b.tobytes()


def test_groups_of_own_modules_are_all_of_one_size():
    sizes = {trainer_of(runs_of("attention", n)).cohort.group_rows for n in (1, 3, 11)}
    assert len(sizes) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_is_uninterrupted(kind):
    trainer = trainer_of(runs_of(kind, 3))
    whole = list(trainer.run())
    for k in (0, 1):
        at = whole[k]
        resume = ResumePoint(at.index, at.weights, at.diverged_step, at.resume)
        rest = list(trainer_of(runs_of(kind, 3)).run(resume))
        assert rest[-1].weights.tobytes() == whole[-1].weights.tobytes()


def test_fresh_statistics_of_a_module_are_those_of_its_layers():
    trainer = trainer_of(runs_of("resnet", 2))
    final = torch.from_numpy(np.stack([found[-1] for found in rows(trainer).values()]))
    network, x = trainer.recipe.network, trainer.data.train_x[:64]
    fresh = network.views(with_fresh_statistics(network, final, network.inputs(x)[None]))
    views = network.views(final)
    stem = torch.nn.functional.conv2d(x, views["stem.weight"][0], views["stem.bias"][0], padding=1)
    first = torch.nn.functional.conv2d(stem, views["blocks.0.conv1.weight"][0], padding=1)
    mean, var = fresh["blocks.0.norm1.running_mean"][0], fresh["blocks.0.norm1.running_var"][0]
    torch.testing.assert_close(mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(var, first.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


ONE_BY_ONE = """
@plugin.architecture("branching")
class Branching(nn.Module):
    def __init__(self, example_shape, outputs):
        super().__init__()
        self.linear = nn.Linear(64, outputs)
    def forward(self, x):
        z = self.linear(x.flatten(1))
        return z if z.sum() > 0 else 2 * z
"""


def test_what_cannot_be_stacked_is_trained_one_by_one_and_says_so(plugged):
    plugged(ONE_BY_ONE)
    runs = [RunSpec(**{**BASE, "architecture": "branching", "seed": s}) for s in range(3)]
    trainer = trainer_of(runs)
    (op,) = trainer.cohort.architecture["ops"]
    assert "data-dependent control flow" in op["one_by_one"]
    fast, slow = rows(trainer), rows(trainer_of(runs, backend="reference"))
    for run_id, found in slow.items():
        np.testing.assert_allclose(fast[run_id][-1], found[-1], rtol=1e-4, atol=2e-5)


def test_zoo_plan_says_what_is_trained_one_by_one(plugged, tmp_path, capsys):
    from zoo.cli.main import main

    found = plugged(ONE_BY_ONE)
    sweep = tmp_path / "s.toml"
    sweep.write_text('name = "s"\n[base]\ndata = "my_stripes"\narchitecture = "branching"\n')
    assert main(["plan", str(sweep), "--plugin", str(found.path), "--calibrate", "0"]) == 0
    said = capsys.readouterr().out
    assert "branching: models are trained one by one, since torch.func.vmap cannot" in said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("self.drop = nn.Dropout(0.5)|self.drop(self.linear(x.flatten(1)))", "draws random"),
        ("|self.linear(x.flatten(1))[:, :1]", r"must make \[B, 2\]"),
        ("|self.linear(x)", "fails on an input of shape"),
        ("self.norm = nn.BatchNorm1d(64, momentum=None)|self.linear(self.norm(x.flatten(1)))",
         "give it a momentum"),
        ("self.linear.double()|self.linear(x.flatten(1).double())", "is torch.float64"),
        ("raise OSError('no file')|x", "cannot be made: OSError: no file"),
        ("self.linear.requires_grad_(False)|self.linear(x.flatten(1))", "no parameter to train"),
        ("self.register_buffer('n', torch.zeros((), dtype=torch.int64))"
         "|self.linear(x.flatten(1)) + 0 * self.n.add_(1)", "changes the buffer n"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_be_trained_is_refused_when_planning(plugged, body, said):
    made, _, out = body.partition("|")
    plugged(
        f"""
        @plugin.architecture("odd")
        class Odd(nn.Module):
            def __init__(self, example_shape, outputs):
                super().__init__()
                self.linear = nn.Linear(64, outputs)
                {made or "pass"}
            def forward(self, x):
                return {out}
        """
    )
    with pytest.raises(SpecError, match=said):
        trainer_of([RunSpec(**{**BASE, "architecture": "odd"})])


def test_half_precision_and_last_layers_are_refused_of_modules():
    with pytest.raises(SpecError, match="computes in float32"):
        trainer_of([RunSpec(**{**BASE, "architecture": "my_attention", "precision": "bfloat16"})])
    with pytest.raises(SpecError, match="el2n, grand"):
        trainer_of([RunSpec(**{**BASE, "architecture": "my_attention", "score": "prototype"})])


def test_constants_frozen_and_tied_tensors(plugged, tmp_path):
    plugged(
        """
        @plugin.architecture("held")
        class Held(nn.Module):
            def __init__(self, example_shape, outputs):
                super().__init__()
                self.register_buffer("order", torch.arange(63, -1, -1))
                self.register_buffer("scale", torch.full((64,), 0.5))
                self.first = nn.Linear(64, 64)
                self.second = nn.Linear(64, 64)
                self.second.weight = self.first.weight
                self.head = nn.Linear(64, outputs)
                self.head.bias.requires_grad_(False)
            def forward(self, x):
                x = x.flatten(1)[:, self.order] * self.scale
                return self.head(torch.relu(self.second(torch.relu(self.first(x)))))
        """
    )
    sweep = tmp_path / "held.toml"
    sweep.write_text(
        'name = "held"\n[base]\ndata = "my_stripes"\narchitecture = "held"\nsteps = 4\n'
        "[record]\nsteps = [4]\n"
    )
    assert zoo.run(str(sweep), tmp_path / "held.zarr", workers=0).complete
    opened = zoo.open(tmp_path / "held.zarr")
    layout = opened.plan.cohorts[0].layout
    names = [s.name for s in layout.segments]
    assert "second.weight" not in names
    assert "order" not in names
    assert [s.name for s in layout.segments if s.role == "buffer"] == ["head.bias", "scale"]
    first, last = opened.query("epoch == 0").model(0), opened.query("epoch == -1").model(0)
    assert torch.equal(first.head.bias, last.head.bias)
    assert last.second.weight is last.first.weight
    assert not torch.equal(first.first.weight, last.first.weight)


def test_an_own_metric_that_returns_something_else_says_so(plugged):
    plugged(
        """
        @plugin.metric("two", columns={"one": "1", "other": "2"})
        def two(model):
            return {"one": 1.0}
        """
    )
    from zoo.landscape import MODEL_METRICS
    from zoo.landscape.base import ModelBlock
    from zoo.landscape.probes import held_out_probe

    trainer = trainer_of(runs_of("none", 2))
    slab = torch.from_numpy(np.stack([f[-1] for f in rows(trainer).values()]))
    probe = held_out_probe(trainer.data, 16)
    block = ModelBlock(trainer.recipe.network, slab, slab, probe, probe, torch.zeros(2).long(),
                  torch.zeros(2), 2)  # fmt: skip
    with pytest.raises(TrainError, match="its columns: one, other"):
        MODEL_METRICS["two"].compute(block, {})
