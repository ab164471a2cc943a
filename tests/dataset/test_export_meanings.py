"""Names of other tools in our exports mean what they mean there."""

from __future__ import annotations

import ast
import csv
import gzip
import json
import re

import numpy as np
import pytest
import torch
from fabricated import EXAMPLE_SHAPE, EXAMPLES, MemoryCohort, MemoryStore, make_cohort, make_plan
from scipy.optimize import linear_sum_assignment

from zoo.architectures import INITS, build
from zoo.architectures.norms import NORMS
from zoo.data import DataShape
from zoo.dataset import Zoo
from zoo.dataset.exports import EXPORTS
from zoo.dataset.exports.permutation_spec import permutation_spec
from zoo.dataset.exports.small_cnn_columns import L2_OPTIMIZERS
from zoo.dataset.structure import only_structure
from zoo.errors import QueryError
from zoo.optim import OPTIMIZERS
from zoo.spec.run import RunSpec


def zoo_of(specs, *, checkpoints=3):
    cohort = make_cohort(specs, checkpoints=checkpoints)
    recorded = np.ones((len(specs), checkpoints), bool)
    source = MemoryCohort(cohort, recorded, np.random.default_rng(0))
    return Zoo(MemoryStore(make_plan((cohort,)), [source]))


# -- git-re-basin -------------------------------------------------------------------------------


def match_as_published(spec, a, b, seed=0):
    """Algorithm 1 of Ainsworth et al. 2023: coordinate descent over linear assignments.

    Every tensor that is listed under a permutation counts, and nothing but ``perm_to_axes`` and
    ``axes_to_perm`` is read.
    """

    def permuted(key, orders, but=None):
        w = b[key]
        for axis, name in enumerate(spec["axes_to_perm"][key]):
            if name is not None and axis != but:
                w = np.take(w, orders[name], axis=axis)
        return w

    first = {name: axes[0] for name, axes in spec["perm_to_axes"].items()}
    orders = {name: np.arange(a[key].shape[axis]) for name, (key, axis) in first.items()}
    rng = np.random.default_rng(seed)
    for _ in range(100):
        moved = False
        for name in rng.permutation(list(orders)):
            n = len(orders[name])
            scores = np.zeros((n, n))
            for key, axis in spec["perm_to_axes"][name]:
                left = np.moveaxis(a[key], axis, 0).reshape(n, -1)
                right = np.moveaxis(permuted(key, orders, axis), axis, 0).reshape(n, -1)
                scores += left @ right.T
            found = linear_sum_assignment(scores, maximize=True)[1]
            before, after = scores[range(n), orders[name]].sum(), scores[range(n), found].sum()
            moved |= after > before + 1e-12
            orders[name] = found
        if not moved:
            break
    return orders


def applied(mapping, orders, state):
    out = dict(state)
    for key, names in mapping.items():
        for axis, name in enumerate(names):
            if name is not None:
                out[key] = np.take(out[key], orders[name], axis=axis)
    return out


def model_of(architecture, norm):
    """Return (structure, module, its state as arrays), running statistics of a trained net."""
    view = zoo_of([RunSpec(width=12, architecture=architecture, norm=norm)]).query(epoch=-1)
    module = view.model(0).double()
    rng = np.random.default_rng(1)
    state = {}
    for key, value in module.state_dict().items():
        if key.endswith("running_mean"):
            state[key] = rng.normal(0, 30, value.shape)
        elif key.endswith("running_var"):
            state[key] = rng.uniform(100, 10_000, value.shape)
        elif not key.endswith("num_batches_tracked"):
            state[key] = rng.normal(size=value.shape)
    return only_structure(view), module, state


def logits(module, state):
    tensors = {key: torch.from_numpy(np.ascontiguousarray(v)) for key, v in state.items()}
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(8, *EXAMPLE_SHAPE)))
    with torch.no_grad():
        return torch.func.functional_call(module, tensors, (x,)).numpy()


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_git_re_basin_matches_weights_and_not_running_statistics(architecture):
    structure, module, a = model_of(architecture, "batch")
    spec = json.loads(json.dumps(permutation_spec(structure)))
    running = spec["running_statistics"]
    assert set(spec["axes_to_perm"]) == set(dict(module.named_parameters()))
    assert {k.rpartition(".")[2] for k in running["axes_to_perm"]} == {
        "running_mean",
        "running_var",
    }
    assert set(spec["axes_to_perm"]) | set(running["axes_to_perm"]) == set(a)
    for part in (spec, running):
        for name, axes in part["perm_to_axes"].items():
            for key, axis in axes:
                assert part["axes_to_perm"][key][axis] == name
    # b: the same weights in another order, with the statistics of another run
    rng = np.random.default_rng(3)
    sizes = {name: a[axes[0][0]].shape[axes[0][1]] for name, axes in spec["perm_to_axes"].items()}
    shuffled = {name: rng.permutation(n) for name, n in sizes.items()}
    b = applied(spec["axes_to_perm"], shuffled, a)
    for key in running["axes_to_perm"]:
        b[key] = rng.permutation(b[key]) * 10
    orders = match_as_published(spec, a, b)
    again = applied(spec["axes_to_perm"], orders, b)
    for key in spec["axes_to_perm"]:
        np.testing.assert_array_equal(again[key], a[key])
    # and with both mappings applied it is b's function that has moved
    whole = applied(running["axes_to_perm"], orders, again)
    np.testing.assert_allclose(logits(module, whole), logits(module, b), rtol=1e-9, atol=1e-9)
    assert np.abs(logits(module, again) - logits(module, b)).max() > 1e-3


@pytest.mark.parametrize("norm", ["group", "layer", "evonorm_s0"])
def test_free_matching_never_changes_what_a_model_computes(norm):
    """Units of a group norm keep to their blocks, which Git Re-Basin cannot be told."""
    structure, module, a = model_of("mlp", norm)
    spec = permutation_spec(structure)
    assert set(spec["axes_to_perm"]) == set(a)
    b = {key: np.random.default_rng(4).normal(size=v.shape) for key, v in a.items()}
    moved = applied(spec["axes_to_perm"], match_as_published(spec, a, b), b)
    np.testing.assert_allclose(logits(module, moved), logits(module, b), rtol=1e-9, atol=1e-9)
    blocks = {group.name: group.blocks for group in structure.groups}
    assert {n: part["blocks"] for n, part in spec["within_blocks"].items()} == {
        name: n for name, n in blocks.items() if n > 1
    }
    assert set(spec["perm_to_axes"]) == {name for name, n in blocks.items() if n == 1}
    for group in structure.groups:
        if group.blocks > 1:
            assert spec["within_blocks"][group.name]["axes"] == [list(x) for x in group.axes]


# -- the Small CNN Zoo --------------------------------------------------------------------------


def exported(specs, folder, *, checkpoints=3, query=None):
    """Return (view, lines of metrics.csv.gz as text, weights as float64, layout)."""
    view = zoo_of(specs, checkpoints=checkpoints).query(query)
    EXPORTS["small-cnn-zoo"].write(view, folder, None)
    with gzip.open(folder / "metrics.csv.gz", "rt") as file:
        lines = list(csv.DictReader(file))
    with (folder / "layout.csv").open() as file:
        layout = list(csv.DictReader(file))
    return view, lines, np.load(folder / "weights.npy").astype(np.float64), layout


def one(folder, **fields):
    """Return the first line of a zoo of two such runs."""
    specs = [RunSpec(**{"width": 8, "epochs": 4, "seed": s, **fields}) for s in (0, 1)]
    return exported(specs, folder)[1][0]


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_l2reg_is_written_where_decay_is_the_gradient_of_a_penalty(name):
    """As torch does it: a step with decay λ is one without, on the gradient of loss + λ/2·‖w‖²."""

    def stepped(decay, gradient):
        run = RunSpec(optimizer=name, weight_decay=decay, lr=0.1)
        p = torch.linspace(-1, 2, 12, dtype=torch.float64).view(3, 4).requires_grad_()
        twin = OPTIMIZERS[name].torch([p], run)
        for _ in range(3):
            p.grad = gradient(p.detach())
            twin.step()
        return p.detach()

    def loss(p):
        return torch.cos(p)

    same = torch.allclose(stepped(0.25, loss), stepped(0.0, lambda p: loss(p) + 0.25 * p))
    assert same == (name in L2_OPTIMIZERS)


def test_l2reg_and_the_losses_are_those_of_keras(tmp_path):
    """There: loss = cross-entropy + l2reg · sum of squared kernels."""
    specs = [
        RunSpec(width=8, epochs=4, seed=s, weight_decay=0.02 * s, decay_mask="kernels", lr=0.01)
        for s in range(4)
    ]
    view, lines, weights, layout = exported(specs, tmp_path / "x")
    kernels = np.zeros(weights.shape[1], bool)
    for row in layout:
        if row["varname"].endswith("kernel:0"):
            kernels[int(row["start_idx"]) : int(row["end_idx"])] = True
            assert len(ast.literal_eval(row["shape"])) == 2
    seen = set()
    for i, line in enumerate(lines):
        l2 = float(line["config.l2reg"])
        assert 2 * l2 == pytest.approx(view[i]["weight_decay"])
        for name in ("train_loss", "test_loss"):
            whole = view[i][name] + l2 * (weights[i, kernels] ** 2).sum()
            assert float(line[name]) == pytest.approx(whole)
            assert float(line[f"zoo.{name}"]) == pytest.approx(view[i][name])
        seen.add(l2)
    assert seen == {0.0, 0.01, 0.02, 0.03}
    plain = one(tmp_path / "y", optimizer="adamw", weight_decay=0.02)
    assert (plain["config.l2reg"], plain["zoo.weight_decay"]) == ("", "0.02")
    assert plain["train_loss"] == plain["zoo.train_loss"]


def test_init_std_is_a_standard_deviation(tmp_path):
    drawn = one(tmp_path / "a", init="normal", init_scale=2.0)
    assert drawn["config.w_init"] == "RandomNormal"
    network = build(RunSpec(width=64), DataShape(EXAMPLE_SHAPE, 10))
    segment = network.layout["hidden.0.linear.weight"]
    spread = 2.0 * INITS["normal"](segment, 0, 0).std()
    assert float(drawn["config.init_std"]) == pytest.approx(spread, rel=0.05)
    for number, init in enumerate(name for name in INITS if name != "normal"):
        line = one(tmp_path / str(number), init=init, init_scale=1.5)
        assert line["config.init_std"] == ""
        assert (line["config.w_init"], line["zoo.init_scale"]) == (f"zoo.{init}*1.5", "1.5")


@pytest.mark.parametrize(
    ("fields", "column", "value"),
    [
        ({"init": "kaiming_uniform"}, "config.w_init", "he_uniform"),
        ({"init": "kaiming_normal"}, "config.w_init", "zoo.kaiming_normal"),  # theirs is truncated
        ({"init": "orthogonal"}, "config.b_init", "zeros"),
        ({"init": "default"}, "config.b_init", "zoo.default"),
        ({"optimizer": "sgd"}, "config.optimizer", "sgd"),
        ({"optimizer": "sgd", "momentum": 0.9}, "config.optimizer", "zoo.sgd_momentum"),
        ({"optimizer": "adam"}, "config.optimizer", "adam"),
        ({"optimizer": "lion"}, "config.optimizer", "zoo.lion"),
        ({"activation": "relu"}, "config.activation", "relu"),
        ({"activation": "leaky_relu"}, "config.activation", "zoo.leaky_relu"),  # another slope
        ({"architecture": "mlp"}, "config.dnn_architecture", "fcn"),
        ({"architecture": "cnn"}, "config.dnn_architecture", "zoo.cnn"),  # theirs does not pad
        ({"architecture": "cnn"}, "config.num_layers", "3"),
        ({"depth": 4}, "config.num_layers", "4"),
        ({"width": 12}, "config.num_units", "12"),
        ({"epochs": 2}, "config.epochs", "2"),
        ({"train_size": EXAMPLES // 4, "batch_size": 4}, "config.train_fraction", "0.25"),
        (
            {"score": "random", "keep": 0.5, "train_size": EXAMPLES // 2, "batch_size": 4},
            "config.train_fraction",
            "0.25",
        ),
        ({}, "config.random_seed", "0"),
        ({"order_seed": 7}, "config.random_seed", ""),
    ],
)
def test_a_column_of_theirs_says_what_it_says_there(tmp_path, fields, column, value):
    assert one(tmp_path / "x", **fields)[column] == value


def test_a_step_is_an_epoch_and_every_column_of_ours_is_there_too(tmp_path):
    specs = [RunSpec(width=8, epochs=4, seed=s) for s in range(2)]
    view, lines, _, _ = exported(specs, tmp_path / "x", checkpoints=5)
    assert [line["step"] for line in lines] == ["0", "1", "2", "3", "86"] * 2
    assert [float(line["zoo.epoch"]) for line in lines] == view["epoch"].tolist()
    for name in view.columns:
        shown = [line.get(f"zoo.{name}", "") for line in lines]
        values = [row[name] for row in view]
        assert [v == "" for v in shown] == [v is None or v == "" for v in values], name
    assert lines[0]["modeldir"] == lines[0]["zoo.run_id"] == view[0]["run_id"]


def test_epochs_that_the_loaders_would_take_for_the_end_are_refused(tmp_path):
    specs = [RunSpec(width=8, epochs=172, seed=s) for s in range(2)]
    with pytest.raises(QueryError, match="2 rows at epoch 86 or later") as told:
        exported(specs, tmp_path / "x")
    assert not list(tmp_path.iterdir())
    advice = re.search(r"query '(.*)'", str(told.value))[1]
    lines = exported(specs, tmp_path / "x", query=advice)[1]
    assert [line["step"] for line in lines] == ["0", "86"] * 2


@pytest.mark.parametrize("norm", [name for name in NORMS if name != "none"])
def test_no_norm_gets_into_the_small_cnn_zoo(tmp_path, norm):
    specs = [RunSpec(width=8, architecture="cnn", depth=2, norm=norm, seed=s) for s in range(2)]
    with pytest.raises(QueryError, match=re.escape(f"norm {norm!r}")):
        exported(specs, tmp_path / "x")


# -- safetensors --------------------------------------------------------------------------------


def test_safetensors_name_their_format_as_transformers_wants_it(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    view = zoo_of([RunSpec(width=8)]).query(epoch=-1)
    EXPORTS["safetensors"].write(view, tmp_path / "x", None)
    (file,) = (tmp_path / "x" / "models").iterdir()
    with safetensors.safe_open(file, "pt") as opened:
        assert opened.metadata()["format"] == "pt"
