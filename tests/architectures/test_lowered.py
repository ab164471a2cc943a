"""Modules that become graphs of our ops: what they compute, and which do not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.architectures.activations import Activation
from zoo.architectures.combine import Add, Multiply
from zoo.architectures.graph import Node, chain
from zoo.architectures.init import initial_row_of
from zoo.architectures.linear import Linear
from zoo.architectures.module import module_network
from zoo.architectures.network import Network, load_row
from zoo.architectures.op import Mode, Shape
from zoo.architectures.pool import GlobalAveragePool
from zoo.architectures.sequence import Attention, Embedding, PositionEmbedding, PositionLinear
from zoo.architectures.symmetry import permutation_groups, unit_symmetries, verify
from zoo.data import DataShape
from zoo.spec import RunSpec

IMAGE, SIGNAL, VECTOR = (2, 9, 7), (2, 11), (6,)
RUN = RunSpec()


class Net(nn.Module):
    """A module whose layers and forward pass a test gives."""

    def __init__(self, layers, forward):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def _residual(m, x):
    x = F.relu(m.a(x))
    y = m.relu(m.norm(m.b(x)))
    x = m.relu(x + m.c(y))
    return m.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _in_place(m, x):
    y = m.a(x)
    z = F.relu(y, inplace=True)
    return m.head((y + m.b(z)).mean(dim=(2, 3)))


KNOWN = {
    "residual": (IMAGE, lambda: Net({
        "a": nn.Conv2d(2, 5, 3, stride=2, padding=1), "b": nn.Conv2d(5, 4, 1, bias=False),
        "norm": nn.BatchNorm2d(4), "c": nn.Conv2d(4, 5, (3, 1), padding=(1, 0)),
        "relu": nn.ReLU(), "head": nn.Linear(5, 3),
    }, _residual)),
    "in place": (IMAGE, lambda: Net({
        "a": nn.Conv2d(2, 5, 5), "b": nn.Conv2d(5, 5, 3, padding=1), "head": nn.Linear(5, 3),
    }, _in_place)),
    "pools": (IMAGE, lambda: nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.AvgPool2d(2, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))),
    "signal": (SIGNAL, lambda: nn.Sequential(
        nn.Conv1d(2, 5, 4, stride=3), nn.BatchNorm1d(5), nn.SiLU(), nn.AdaptiveAvgPool1d(1),
        nn.Flatten(), nn.Linear(5, 3))),
    "flattened": (IMAGE, lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(126, 4), nn.Tanh(), nn.Identity(), nn.Linear(4, 3))),
    "vector": (VECTOR, lambda: Net(
        {"a": nn.Linear(6, 6), "b": nn.Linear(6, 3)},
        lambda m, x: m.b(torch.sigmoid(m.a(x)) * x + m.a(x)))),
}  # fmt: skip

UNKNOWN = {
    "layer norm": (VECTOR, lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4),
                                                 nn.Linear(4, 3))),
    "features of an image": (IMAGE, lambda: nn.Sequential(
        nn.Conv2d(2, 1, 3), nn.Flatten(), nn.Linear(35, 3))),
    "other momentum": (VECTOR, lambda: nn.Sequential(nn.BatchNorm1d(6, momentum=0.5),
                                                     nn.Linear(6, 3))),
    "groups": (IMAGE, lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2),
                                            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                            nn.Linear(4, 3))),
    "a number": (VECTOR, lambda: Net({"a": nn.Linear(6, 3)}, lambda m, x: 2 * m.a(x))),
    "two faces": (VECTOR, lambda: Net(
        {"a": nn.Linear(6, 3)}, lambda m, x: torch.tanh(m.a(x)) if m.training else m.a(x))),
}  # fmt: skip


def network_of(shape, make):
    return module_network(make, "net", DataShape(shape, 3), {})


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("training", [True, False])
def test_a_known_module_is_a_graph_that_computes_the_same(name, training):
    shape, make = KNOWN[name]
    network = network_of(shape, make)
    assert not network.bits_vary
    assert len(network.graph.nodes) > 1
    assert verify(network)
    rows = [initial_row_of(network, RUN.replace(seed=s, init_seed=s)) for s in (1, 2)]
    x = torch.randn(2, 5, *shape, generator=torch.Generator().manual_seed(0))
    p = network.views(torch.stack([torch.from_numpy(row) for row in rows]))
    mode = Mode(training=training)
    inputs = torch.stack([network.inputs(part) for part in x])
    z, saved = network.forward(p, inputs, mode)
    dz = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    grads = network.backward(p, saved, dz, mode)
    for g, row in enumerate(rows):
        module = network.module()
        load_row(module, network.layout, row)
        module.train(training)
        out = module(x[g])
        torch.testing.assert_close(z[g], out.detach(), rtol=1e-4, atol=1e-5)
        out.backward(dz[g])
        for key, value in module.named_parameters():
            torch.testing.assert_close(grads[key][g], value.grad, rtol=1e-3, atol=1e-5)
        for key, value in mode.new_buffers.items():
            wanted = dict(module.named_buffers())[key]
            torch.testing.assert_close(value[g], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_stays_one_op(name):
    network = network_of(*UNKNOWN[name])
    assert network.bits_vary
    assert len(network.graph.nodes) == 1
    assert verify(network)
    assert permutation_groups(network) == ()


def test_a_residual_stream_is_one_group():
    network = network_of(*KNOWN["residual"])
    groups = {group.name: group for group in permutation_groups(network)}
    assert set(groups) == {"a", "b"}
    assert {key for key, _ in groups["a"].axes} == {
        "a.weight", "a.bias", "b.weight", "c.weight", "c.bias", "head.weight",
    }  # fmt: skip


def test_initial_values_are_those_of_the_constructor():
    network = network_of(*KNOWN["pools"])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        module = KNOWN["pools"][1]()
    row = initial_row_of(network, RUN.replace(init_seed=7))
    for s in network.layout.segments:
        found = torch.from_numpy(row[s.offset : s.stop]).view(s.shape)
        assert torch.equal(found, module.state_dict()[s.name])


def transformer(causal):
    """Embeddings, attention and a gated layer, both with residual links, then a mean."""
    T, C, tokens = 6, 8, 5
    shape = Shape((T,), C)
    nodes = [
        *chain([Embedding("embed", (T,), tokens, C), PositionEmbedding("place", shape)]),
        Node(Attention("attend", shape, 2, causal=causal), (1,)),
        Node(Add("add", shape), (1, 2)),
        Node(PositionLinear("up", shape, 12), (3,)),
        Node(PositionLinear("gate", shape, 12), (3,)),
        Node(Activation("bend", Shape((T,), 12), "tanh"), (5,)),
        Node(Multiply("both", Shape((T,), 12)), (4, 6)),
        Node(PositionLinear("down", Shape((T,), 12), C), (7,)),
        Node(Add("more", shape), (3, 8)),
        Node(GlobalAveragePool("pool", shape), (9,)),
        Node(Linear("head", C, 3), (10,)),
    ]
    return Network("transformer", nodes, (T,), form="tokens", tokens=tokens)


@pytest.mark.parametrize("causal", ["no", "yes"])
def test_symmetries_of_a_transformer_follow_from_its_graph(causal):
    network = transformer(causal)
    found = {group.name: (group.size, group.blocks) for group in permutation_groups(network)}
    assert found == {"embed": (8, 1), "attend.heads": (8, 2), "up": (12, 1)}
    errors = verify(network)
    assert max(errors.values()) < 1e-5
    assert not [s for s in unit_symmetries(network) if s.group == "attend.heads"]
