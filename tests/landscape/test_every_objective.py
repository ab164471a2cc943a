"""Landscape metrics on every objective: what applies, and that it is of that objective's loss."""

import cases
import numpy as np
import pytest
import torch
from torch.func import functional_call

from zoo.architectures.network import row_to_state_dict
from zoo.landscape.base import MODEL_METRICS, ModelBlock, applying
from zoo.landscape.hessian import Hessian, double_backward_product
from zoo.landscape.noise import squared_norms
from zoo.landscape.stacked import Probe, losses, mean_gradient
from zoo.objectives import OBJECTIVES

G, N = 3, 40
CASES = [(name, kind) for name in OBJECTIVES for kind in OBJECTIVES[name].takes]


def setting(name, kind, architecture="mlp"):
    network = cases.network_of(architecture=architecture, width=8)
    slab = cases.rows_of(network, G)
    x, y = cases.examples_of(N)
    make = torch.Generator().manual_seed(0)
    if kind == "binary":
        y = torch.randint(0, 2, (N, cases.CLASSES), generator=make).float()
    elif kind == "vector":
        y = torch.randn(N, cases.CLASSES, generator=make)
    mean = torch.full((1, N), 1 / N)
    probe = Probe(network.inputs(x)[None], y[None], mean, OBJECTIVES[name](kind))
    return network, slab, x, y, probe


def block_of(network, slab, probe):
    return ModelBlock(
        network=network, slab=slab, initial=cases.rows_of(network, G, seed=9), train=probe,
        test=probe, seeds=torch.arange(G), edge=torch.ones(G, dtype=torch.float64),
        classes=cases.CLASSES,
    )  # fmt: skip


def loss_of(network, row, x, y, objective):
    """Return the mean loss as a function of the flat trained parameters, in float64."""
    module = network.module().double().eval()
    state = {
        k: v.double() if v.is_floating_point() else v
        for k, v in row_to_state_dict(network.layout, row.numpy()).items()
    }
    names = [n for n, _ in module.named_parameters()]
    flat = torch.cat([state[n].reshape(-1) for n in names])

    def run(v):
        parts = dict(state)
        at = 0
        for n in names:
            size = state[n].numel()
            parts[n] = v[at : at + size].view(state[n].shape)
            at += size
        z = functional_call(module, parts, (x.double(),))
        return objective.losses(z, y)

    return run, flat


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_gradient_hessian_and_noise_are_of_that_loss(name, kind):
    network, slab, x, y, probe = setting(name, kind)
    hessian = Hessian(network, slab, probe)
    v = torch.randn(G, hessian.size, generator=torch.Generator().manual_seed(3))
    found, twice = hessian.product(v), double_backward_product(network, slab, probe, v)
    scale = twice.abs().max()
    torch.testing.assert_close(found, twice, rtol=1e-3, atol=1e-5 * float(scale))
    loss, slope = mean_gradient(network, slab, probe)
    squares = squared_norms(network, slab, probe)
    for g in range(G):
        run, flat = loss_of(network, slab[g], x, y, probe.objective)
        wanted = torch.autograd.functional.jacobian(run, flat)
        torch.testing.assert_close(loss[g], run(flat).mean(), rtol=1e-5, atol=1e-7)
        mean = wanted.mean(0)
        torch.testing.assert_close(slope[g].double(), mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(hessian.gradient[g].double(), mean, rtol=1e-4, atol=1e-6)
        each = wanted.square().sum(1)
        torch.testing.assert_close(squares[g], each, rtol=1e-4, atol=1e-7)
        along = wanted @ v[g].double()
        torch.testing.assert_close(hessian.loss_tangent(v)[g].double(), along, rtol=1e-3, atol=1e-4)
    assert torch.equal(losses(network, slab, probe), loss)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_metrics_give_the_columns_that_apply(name, kind):
    network, slab, _, _, probe = setting(name, kind)
    objective = probe.objective
    for metric in MODEL_METRICS:
        entry = MODEL_METRICS[metric]
        if objective.lack(entry.needs):
            assert metric == "collapse"
            assert kind != "class"
            continue
        found = entry.compute(block_of(network, slab, probe), entry.options)
        names = {column.name for column in applying(entry.columns, objective)}
        assert names <= set(found)
        if metric == "behaviour":
            assert names == set(found)
            assert ("probe_train_nll" in names) == objective.softmax
            assert ("probe_train_loss" in names) != objective.softmax
            assert ("probe_train_error" in names) == (kind != "vector")
            assert ("probe_train_r2" in names) == (kind == "vector")
            for column in names:
                assert torch.isfinite(found[column]).all(), column


def test_r2_of_the_probe_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    network, slab, x, y, probe = setting("mse", "vector")
    entry = MODEL_METRICS["behaviour"]
    found = entry.compute(block_of(network, slab, probe), entry.options)
    for g in range(G):
        module = network.module().eval()
        module.load_state_dict(row_to_state_dict(network.layout, slab[g].numpy()))
        with torch.no_grad():
            z = module(x).numpy()
        wanted = metrics.r2_score(y, z, multioutput="variance_weighted")
        np.testing.assert_allclose(found["probe_train_r2"][g], wanted, rtol=1e-5)
        np.testing.assert_allclose(
            found["probe_train_loss"][g], ((z - y.numpy()) ** 2).mean(), rtol=1e-5
        )
