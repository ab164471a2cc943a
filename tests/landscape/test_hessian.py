"""Hessian products, eigenvalues and traces against the dense float64 Hessian, for every layer."""

from __future__ import annotations

import cases
import numpy as np
import pytest
import torch

from zoo.architectures.norms.ghost_batch import GhostBatchNorm
from zoo.architectures.rule import GenericRule
from zoo.architectures.tangent import rule_for
from zoo.landscape.base import MODEL_METRICS, ModelBlock, applying, layers
from zoo.landscape.curvature import curvature, stable_curvature
from zoo.landscape.hessian import Hessian, double_backward_product
from zoo.landscape.lanczos import Krylov
from zoo.landscape.random import signs
from zoo.landscape.spectrum import negative_share, spectrum
from zoo.landscape.stacked import EVAL
from zoo.spec.run import RunSpec

KINDS = cases.kinds()
MODELS = 3


@pytest.fixture(scope="module", params=KINDS, ids=str)
def world(request):
    """A network, rows, a probe, and each row's dense Hessian."""
    network = cases.network_of(**KINDS[request.param])
    slab = cases.rows_of(network, MODELS)
    x, y = cases.examples_of()
    dense = torch.stack([cases.dense_hessian(network, row, x, y) for row in slab])
    return network, slab, cases.probe_of(network, x, y), dense


def block_of(network, slab, probe, *, seeds=None):
    G = slab.shape[0]
    return ModelBlock(
        network=network,
        slab=slab,
        initial=cases.rows_of(network, 1, seed=99).expand(G, -1),
        train=probe,
        test=probe,
        seeds=torch.arange(G) if seeds is None else seeds,
        edge=torch.full((G,), 40.0, dtype=torch.float64),
        classes=cases.CLASSES,
    )


def test_there_is_a_case_for_every_kind():
    assert len(KINDS) > 20
    assert {"mlp-batch", "cnn-batch", "cnn-instance", "mlp-gelu", "cnn-group"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_oracle_is_the_plain_module_without_fused_norms(kind):
    network = cases.network_of(**KINDS[kind])
    x, _ = cases.examples_of()
    module = network.module().double()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(5)))
    expected = module(x.double())
    by_hand = cases.without_fused_norms(module)
    assert not any(isinstance(m, cases.FUSED) for m in by_hand.modules())
    torch.testing.assert_close(by_hand(x.double()), expected, rtol=1e-10, atol=1e-10)


def test_products_are_those_of_the_dense_hessian(world):
    network, slab, probe, dense = world
    v = signs(torch.arange(MODELS), "trace", 0, network.layout.trained)
    expected = torch.einsum("gij,gj->gi", dense, v.double())
    hessian = Hessian(network, slab, probe)
    found = hessian.product(v).double()
    error = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(error.max()) < 1e-5
    twice = double_backward_product(network, slab, probe, v).double()
    assert float(((found - twice).norm(dim=1) / twice.norm(dim=1)).max()) < 1e-5


def test_every_rule_agrees_with_the_generic_one(world):
    network, slab, probe, _ = world
    hessian = Hessian(network, slab, probe)
    v = signs(torch.arange(MODELS), "trace", 1, network.layout.trained)
    expected = hessian.product(v)
    rules = hessian._point.rules
    gradients = value_gradients(network, slab, probe)
    for index, rule in enumerate(rules):
        rules[index] = GenericRule(rule.op, rule.p, rule.xs, rule.mode)
        if index in gradients:
            rules[index].prepare(gradients[index])
    assert len(gradients) > 3
    found = hessian.product(v)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def value_gradients(network, slab, probe):
    """The gradient of every node's value, which its rule is prepared with."""
    p = network.views(slab)
    z, saved = network.forward(p, probe.inputs(MODELS), EVAL)
    d = probe.objective.gradient(z, probe.targets(MODELS)) * probe.weight.unsqueeze(-1)
    found = {}

    def visit(index, op, d, needs):
        found[index] = d
        return op.pull(p, saved[index], d, EVAL, needs)[0]

    network.graph.backward(network.output_gradient(d), visit)
    return found


def test_curvature_against_the_dense_spectrum(world):
    network, slab, probe, dense = world
    options = {**MODEL_METRICS["curvature"].options, "steps": 60, "more_steps": 120}
    found = curvature(block_of(network, slab, probe), options)
    values = torch.linalg.eigvalsh(dense)
    torch.testing.assert_close(found["lambda_max"], values[:, -1], rtol=1e-4, atol=1e-6)
    below = found["lambda_min"] - values[:, 0]
    scale = values.abs().amax(1)
    assert (below > -1e-5 * scale).all()
    assert (below <= found["lambda_min_residual"] + 1e-4 * scale).all()
    # no estimate is further from an eigenvalue than its residual says, rounding included
    for name in ("lambda_max", "lambda_min"):
        gap = (values - found[name][:, None]).abs().amin(1)
        assert (gap <= found[f"{name}_residual"]).all()
        assert (found[f"{name}_residual"] >= 2**-23 * scale).all()
    trace = dense.diagonal(dim1=1, dim2=2)
    off = (found["hessian_trace"] - trace.sum(1)).abs()
    assert (off <= 4 * found["hessian_trace_se"] + 1e-4 * scale).all()
    parts = torch.stack([trace[:, a:b].sum(1) for _, a, b in layers(network)], 1)
    off = (found["hessian_layer_trace"] - parts).abs()
    assert (off <= 4.5 * found["hessian_layer_trace_se"] + 1e-4 * scale[:, None]).all()
    edge = found["lambda_max"] / 40
    torch.testing.assert_close(found["edge_of_stability"], edge)


def test_the_default_recipe_and_its_error_bars():
    """30 + 30 products: λ_max within 1e-4, traces off by about their standard error."""
    network = cases.network_of(architecture="mlp", width=16)
    slab = cases.rows_of(network, 24)
    x, y = cases.examples_of(64)
    dense = torch.stack([cases.dense_hessian(network, row, x, y) for row in slab])
    block = block_of(network, slab, cases.probe_of(network, x, y))
    found = curvature(block, MODEL_METRICS["curvature"].options)
    torch.testing.assert_close(
        found["lambda_max"], torch.linalg.eigvalsh(dense)[:, -1], rtol=1e-4, atol=0
    )
    z = (found["hessian_trace"] - dense.diagonal(dim1=1, dim2=2).sum(1)) / found["hessian_trace_se"]
    assert float(z.abs().max()) < 4
    assert 0.6 < float(z.std()) < 1.6  # the error bars are neither too wide nor too narrow


@pytest.mark.parametrize("name", ["mlp-relu", "mlp-tanh", "cnn-batch"])
def test_quadrature_integrates_the_density(name):
    """Moments of the spectrum from nodes and weights, and the ratio of its ends."""
    network = cases.network_of(**KINDS[name])
    slab = cases.rows_of(network, MODELS)
    x, y = cases.examples_of()
    dense = torch.stack([cases.dense_hessian(network, row, x, y) for row in slab])
    probe = cases.probe_of(network, x, y)
    found = spectrum(block_of(network, slab, probe), {"nodes": 40, "vectors": 24})
    nodes, weights = found["slq_nodes"], found["slq_weights"]
    torch.testing.assert_close(weights.sum(2), torch.ones_like(weights[:, :, 0]))
    D = dense.shape[1]
    moments = {1: dense.diagonal(dim1=1, dim2=2).sum(1), 2: dense.square().sum((1, 2))}
    for power, exact in moments.items():
        draws = D * (weights * nodes**power).sum(2)
        error = draws.std(1) / draws.shape[1] ** 0.5
        scale = dense.square().sum((1, 2))
        assert ((draws.mean(1) - exact).abs() < 4.5 * error + 1e-3 * scale).all()
    # the first moment as a column: that of the stored density, and as far off as its error says
    own = D * (weights * nodes).sum(2)
    torch.testing.assert_close(found["slq_trace"], own.mean(1))
    torch.testing.assert_close(found["slq_trace_se"], own.std(1) / 24**0.5)
    off = (found["slq_trace"] - moments[1]).abs()
    assert (off < 4.5 * found["slq_trace_se"]).all()
    values = torch.linalg.eigvalsh(dense)
    exact = (values[:, 0] / values[:, -1]).abs()
    torch.testing.assert_close(found["r_e"], exact, rtol=2e-2, atol=1e-3)


def test_negative_share_is_the_formula():
    nodes = torch.tensor([-4.0, -1.0, 0.0, 9.0])
    weights = torch.tensor([0.25, 0.25, 0.25, 0.25])
    expected = (1.0 + 0.5) / 1.5
    assert float(negative_share(nodes, weights)) == pytest.approx(expected)


def test_an_exhausted_space_keeps_its_eigenvalues():
    matrix = torch.diag(torch.tensor([3.0, 3.0, -1.0, 0.5, 0.5]))
    krylov = Krylov.start(lambda v: v @ matrix, torch.ones(1, 5))
    krylov.grow(5)
    values, residuals, weights = krylov.ritz()
    assert values[0, -1] == pytest.approx(3.0, abs=1e-6)
    assert values[0, 0] == pytest.approx(-1.0, abs=1e-6)
    assert float((values * weights).sum()) == pytest.approx(6.0 / 5, abs=1e-6)
    assert float(residuals.abs().max()) < 1e-5


def test_slots_and_neighbours_do_not_matter():
    """Another slot, another neighbour, a neighbour of NaN or of infinite loss: the same bits."""
    network = cases.network_of(architecture="mlp", norm="batch", width=8)
    x, y = cases.examples_of(64)
    probe = cases.probe_of(network, x, y)
    slab = cases.rows_of(network, 6)
    seeds = torch.arange(6) + 10
    for name in MODEL_METRICS:
        entry = MODEL_METRICS[name]
        base = entry.compute(block_of(network, slab, probe, seeds=seeds), entry.options)
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        wild = slab[order].clone()
        wild[0] = 1e30  # model 3's slot: overflows, stays finite as weights
        moved = entry.compute(block_of(network, wild, probe, seeds=seeds[order]), entry.options)
        for column in applying(entry.columns, probe.objective):
            there = base[column.name][order][1:]
            np.testing.assert_array_equal(moved[column.name][1:], there, err_msg=column.name)


def test_where_training_turns_unstable():
    sgd = RunSpec(data="digits", optimizer="sgd", momentum=0.9, nesterov=False)
    assert stable_curvature(sgd, 0.1) == pytest.approx(38.0)
    plain = RunSpec(data="digits", optimizer="sgd", momentum=0.0)
    assert stable_curvature(plain, 0.1) == pytest.approx(20.0)
    nesterov = RunSpec(data="digits", optimizer="sgd", momentum=0.9, nesterov=True)
    assert stable_curvature(nesterov, 0.1) == pytest.approx(38.0 / 2.8)
    assert np.isnan(stable_curvature(RunSpec(data="digits", optimizer="adamw"), 0.1))


def test_rules_are_chosen_by_exact_type():
    network = cases.network_of(architecture="mlp", norm="ghost_batch")
    slab = cases.rows_of(network, 1)
    kinds = {
        type(op).__name__: type(rule_for(op, network.views(slab), (slab,), EVAL)).__name__
        for op in network.ops_of(GhostBatchNorm)
    }
    assert kinds == {"GhostBatchNorm": "GenericRule"}
