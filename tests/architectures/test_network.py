"""The stacked network against the plain module: forward, backward, buffers, every part."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from zoo.architectures import ACTIVATIONS, ARCHITECTURES, NORMS, Mode, build, row_to_state_dict
from zoo.architectures.network import state_dict_to_row
from zoo.architectures.symmetry import permutation_groups, unit_symmetries, verify
from zoo.architectures.weights import WEIGHT_TRANSFORMS
from zoo.data import DataShape
from zoo.errors import SpecError
from zoo.kernels.cross_entropy import cross_entropy
from zoo.spec.run import RunSpec

G, B = 3, 6
SHAPES = {"image": (2, 9, 8), "signal": (1, 13)}

CASES = [
    (family, norm, activation, data, "none")
    for family, norm, activation, data in itertools.product(
        ARCHITECTURES, NORMS, ACTIVATIONS, SHAPES
    )
    if not (family == "mlp" and (norm in ("instance", "frn") or data == "signal"))
    # every norm with one activation, every activation with one norm
    and (activation == "relu" or norm in ("none", "layer"))
    # a norm that has an activation of its own, with that one
    and not (NORMS[norm].fixes and activation != "relu")
]
# every weight transform, where a symmetry of the activation could survive it
CASES += [
    (family, norm, activation, data, transform)
    for family, norm, activation, transform in itertools.product(
        ARCHITECTURES, ("none", "batch"), ("relu", "tanh", "identity"), WEIGHT_TRANSFORMS
    )
    for data in SHAPES
    if transform != "none" and not (family == "mlp" and data == "signal")
]
#: The kinds of factor that a transform hands from one output's weights to the output.
HANDED_ON = {"none": {"scale", "sign"}, "standardize": {"sign"}}


def spec_of(family, norm, activation, transform="none", **more):
    return RunSpec(
        architecture=family,
        norm=norm,
        activation=activation,
        width=8,
        depth=2,
        norm_groups=2,
        virtual_batch=3,
        weight_transform=transform,
        **more,
    )


def network_of(family, norm, activation, data, transform="none", **more):
    return build(spec_of(family, norm, activation, transform, **more), DataShape(SHAPES[data], 5))


def random_slab(network, seed=0):
    gen = torch.Generator().manual_seed(seed)
    slab = torch.randn(G, network.layout.params, generator=gen) * 0.5
    for s in network.layout.segments:
        if s.name.endswith("running_var"):
            slab[:, s.offset : s.stop] = slab[:, s.offset : s.stop].abs() + 0.5
    return slab


def module_of(network, row):
    module = network.module().double()
    state = row_to_state_dict(network.layout, row.numpy())
    module.load_state_dict(
        {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
    )
    return module


@pytest.mark.parametrize("conv", ["im2col", "grouped"])
@pytest.mark.parametrize(("family", "norm", "activation", "data", "transform"), CASES)
@pytest.mark.parametrize("training", [True, False])
def test_stacked_equals_module(family, norm, activation, data, transform, training, conv):
    network = network_of(family, norm, activation, data, transform)
    slab = random_slab(network)
    gen = torch.Generator().manual_seed(1)
    x = torch.randn(G, B, *SHAPES[data], generator=gen)
    y = torch.randint(0, 5, (G, B), generator=gen)
    mode = Mode(training=training, conv=conv)
    views = network.views(slab)
    stacked = network.inputs(x.flatten(0, 1)).unflatten(0, (G, B))
    logits, saved = network.forward(views, stacked, mode)
    _, dlogits = cross_entropy(logits, y, torch.zeros(G))
    grads = network.flat_gradient(network.backward(views, saved, dlogits, mode))
    for g in range(G):
        module = module_of(network, slab[g]).train(training)
        out = module(x[g].double())
        F.cross_entropy(out, y[g]).backward()
        torch.testing.assert_close(logits[g].double(), out, rtol=2e-5, atol=2e-5)
        want = torch.cat(
            [
                dict(module.named_parameters())[s.name].grad.reshape(-1)
                for s in network.layout.segments
                if s.role != "buffer"
            ]
        )
        scale = want.abs().max()
        assert float((grads[g].double() - want).abs().max() / scale) < 2e-5
        for name, value in mode.new_buffers.items():
            torch.testing.assert_close(
                value[g].double(), dict(module.named_buffers())[name], rtol=1e-5, atol=1e-6
            )
    buffers = {s.name for s in network.layout.segments if s.role == "buffer"}
    assert set(mode.new_buffers) == (buffers if training else set())
    assert bool(buffers) == (norm in ("batch", "ghost_batch"))


@pytest.mark.parametrize(("family", "norm", "activation", "data", "transform"), CASES)
def test_symmetries_hold_and_cover(family, norm, activation, data, transform):
    network = network_of(family, norm, activation, data, transform)
    errors = verify(network)
    assert max(errors.values()) < 1e-5
    groups = permutation_groups(network)
    assert [g.size for g in groups] == [8, 8]
    # every tensor with units is moved by some group: nothing was forgotten
    moved = {key for g in groups for key, _ in g.axes}
    assert moved >= {s.name for s in network.layout.segments if s.name.startswith("hidden")}
    passes = {"relu": {"scale"}, "leaky_relu": {"scale"}, "tanh": {"sign"},
              "identity": {"scale", "sign"}}  # fmt: skip
    kinds = passes.get(spec_of(family, norm, activation).activation, set())
    kinds &= {"scale"} if norm == "frn" else {"scale", "sign"}  # a threshold has no sign symmetry
    found = {group.name: set() for group in groups}
    for symmetry in unit_symmetries(network):
        found[symmetry.group].add(symmetry.kind)
    first, last = found.values()
    # an affine norm takes the factor on; a transformed consumer cannot undo it
    assert last == (kinds if norm != "none" else kinds & HANDED_ON[transform])
    assert first == (last if transform == "none" else set())


def test_a_wrong_permutation_is_noticed():
    """The verification can fail: group norm's channels do not move freely."""
    network = network_of("cnn", "group", "relu", "image")
    groups = permutation_groups(network)
    assert {g.blocks for g in groups} == {2}
    slab = random_slab(network)
    module = module_of(network, slab[0])
    x = torch.randn(4, *SHAPES["image"], dtype=torch.float64)
    order = torch.tensor([4, 1, 2, 3, 0, 5, 6, 7])  # swaps two channels across blocks
    state = module.state_dict()
    for key, axis in groups[0].axes:
        state[key] = state[key].index_select(axis, order)
    changed = torch.func.functional_call(module, state, (x,))
    assert float((changed - module(x)).detach().abs().max()) > 1e-3


def test_small_cnn_zoo_has_4970_parameters():
    run = RunSpec(architecture="cnn", width=16)
    assert run.depth == 3
    assert build(run, DataShape((1, 28, 28), 10)).layout.params == 4970


def test_names_do_not_depend_on_hyper_parameters():
    names = [
        [s.name for s in network_of("mlp", "layer", activation, "image", dropout=p).layout.segments]
        for activation, p in [("relu", 0.0), ("tanh", 0.5)]
    ]
    assert names[0] == names[1]


def test_row_round_trip():
    network = network_of("cnn", "batch", "relu", "image")
    row = random_slab(network)[0].numpy()
    state = row_to_state_dict(network.layout, row)
    assert list(network.module().state_dict()) != []
    assert set(network.module().state_dict()) == set(state)
    assert (state_dict_to_row(network.layout, state) == row).all()
    del state["output.bias"]
    with pytest.raises(KeyError, match=r"output\.bias"):
        state_dict_to_row(network.layout, state)


def test_flops_agree_with_torch():
    from torch.utils.flop_counter import FlopCounterMode

    for family in ARCHITECTURES:
        network = network_of(family, "none", "relu", "image")
        with FlopCounterMode(display=False) as counter:
            network.module()(torch.randn(1, *SHAPES["image"]))
        # torch counts products alone; ours adds biases and activations
        assert counter.get_total_flops() <= network.flops() <= 1.15 * counter.get_total_flops()


@pytest.mark.parametrize(
    ("options", "shape", "match"),
    [
        ({"architecture": "mlp", "norm": "instance"}, (1, 8, 8), "more than one position"),
        ({"architecture": "mlp", "norm": "frn"}, (1, 8, 8), "more than one position"),
        ({"architecture": "cnn", "norm": "group", "width": 6}, (1, 8, 8), "do not divide"),
        ({"architecture": "cnn"}, (64,), "signals or images"),
        ({"architecture": "mlp", "norm": "group", "width": 4}, (64,), "one value per group"),
    ],
)
def test_what_does_not_fit_is_refused(options, shape, match):
    with pytest.raises(SpecError, match=match):
        build(RunSpec(**options), DataShape(shape, 10))


def test_cross_entropy_equals_torch():
    gen = torch.Generator().manual_seed(0)
    z = (torch.randn(G, 7, 11, generator=gen) * 8).requires_grad_()
    y = torch.randint(0, 11, (G, 7), generator=gen)
    s = torch.tensor([0.0, 0.1, 0.5])
    loss, dz = cross_entropy(z.detach(), y, s)
    for g in range(G):
        want = F.cross_entropy(z[g].double(), y[g], label_smoothing=float(s[g]))
        (grad,) = torch.autograd.grad(want, z, retain_graph=True)
        torch.testing.assert_close(loss[g].double(), want.detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(dz[g], grad[g], rtol=1e-5, atol=1e-7)
