"""Gradient norms against torch.func's per-sample gradients of the plain module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from zoo.architectures import build, initial_row
from zoo.architectures.network import row_to_state_dict
from zoo.architectures.op import Mode
from zoo.data import DataShape
from zoo.diets.gradients import gradient_norms, last_features
from zoo.diets.scores import SCORES, Outputs
from zoo.objectives import OBJECTIVES
from zoo.spec import RunSpec

G, B = 2, 24
CASES = {
    "mlp": RunSpec(width=12, depth=3),
    "mlp layer norm": RunSpec(width=12, norm="layer"),
    "mlp batch norm": RunSpec(width=12, norm="batch"),
    "cnn": RunSpec(architecture="cnn", width=8),
    "cnn group norm": RunSpec(architecture="cnn", width=8, norm="group", activation="gelu"),
    "cnn standardized": RunSpec(architecture="cnn", width=8, weight_transform="standardize"),
}


LOSS = OBJECTIVES["cross_entropy"]("class")


def setting(run):
    network = build(run, DataShape((1, 8, 8), 10))
    rows = [initial_row(network.layout, init="default", scale=1.0, seed=s) for s in range(G)]
    slab = torch.from_numpy(np.stack(rows))
    noise = torch.Generator().manual_seed(0)
    slab += 0.05 * torch.rand(slab.shape, generator=noise)  # norms' weights and buffers too
    x = torch.randn(B, 1, 8, 8, generator=noise)
    labels = torch.arange(B) % 10
    return network, slab, x, labels


def per_sample_norms(network, row, x, labels, dtype=torch.float64):
    """Return ‖∇ℓ‖ of each example ``[B]`` by vmap(grad) over the plain module in eval mode."""
    module = network.module().to(dtype)
    state = {
        k: v.to(dtype) if v.is_floating_point() else v
        for k, v in row_to_state_dict(network.layout, row.numpy()).items()
    }
    names = dict(module.named_parameters())
    params = {k: state[k] for k in names}
    buffers = {k: v for k, v in state.items() if k not in names}

    def loss(p, one, label):
        logits = functional_call(module, (p, buffers), (one.unsqueeze(0),))
        return F.cross_entropy(logits, label.unsqueeze(0))

    grads = vmap(grad(loss), (None, 0, 0))(params, x.to(dtype), labels)
    return torch.stack([g.flatten(1).square().sum(1) for g in grads.values()]).sum(0).sqrt()


@pytest.mark.parametrize("case", CASES)
def test_ghost_norms_are_the_norms_of_per_sample_gradients(case):
    network, slab, x, labels = setting(CASES[case])
    xs = network.inputs(x)
    found = gradient_norms(
        network, LOSS, network.views(slab), xs.expand(G, *xs.shape), labels.expand(G, -1)
    )
    assert found.shape == (G, B)
    for g in range(G):
        wanted = per_sample_norms(network, slab[g], x, labels)
        rival = per_sample_norms(network, slab[g], x, labels, torch.float32)
        ours = float(((found[g].double() - wanted).abs() / wanted).max())
        theirs = float(((rival.double() - wanted).abs() / wanted).max())
        # Where few values share a statistic, float32 itself is worse than that, however it is done.
        assert ours < max(1e-5, 3 * theirs)
        assert ours < 2e-4


def test_labels_of_each_model():
    network, slab, x, labels = setting(CASES["mlp"])
    xs = network.inputs(x).expand(G, B, 1, 64)
    both = torch.stack([labels, (labels + 3) % 10])
    found = gradient_norms(network, LOSS, network.views(slab), xs, both)
    one = gradient_norms(network, LOSS, network.views(slab), xs, both[1].expand(G, -1))
    assert torch.equal(found[1], one[1])
    assert not torch.allclose(found[0], one[0])


def test_grand_of_the_last_layer_is_that_part_of_the_gradient():
    network, slab, x, labels = setting(CASES["mlp"])
    xs = network.inputs(x).expand(G, B, 1, 64)
    params = network.views(slab)
    logits, _ = network.forward(params, xs, Mode(training=False))
    labels = labels.expand(G, -1)
    said = SCORES["grand_last"].compute(Outputs(network, LOSS, params, xs, logits, labels))
    h = last_features(network, params, xs)
    error = torch.softmax(logits, -1) - F.one_hot(labels, 10)
    full = torch.einsum("gbc,gbf->gbcf", error, h).flatten(2)
    wanted = torch.cat([full, error], -1).norm(dim=-1)
    torch.testing.assert_close(said, wanted, rtol=1e-5, atol=1e-6)
    assert (said <= gradient_norms(network, LOSS, params, xs, labels) * (1 + 1e-5)).all()
