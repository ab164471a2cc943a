"""Every op's own fast passes against the default ones, which follow from its forward pass alone."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import replace

import pytest
import torch

import zoo.architectures
from zoo.architectures import ACTIVATIONS, NORMS
from zoo.architectures.activations import Activation
from zoo.architectures.combine import Add, Concatenate, Multiply
from zoo.architectures.conv import Conv, Window
from zoo.architectures.default import pullback
from zoo.architectures.dropout import Dropout
from zoo.architectures.fused import NormActivation
from zoo.architectures.linear import Linear
from zoo.architectures.module import ModuleOp
from zoo.architectures.norms.own import OwnNorm
from zoo.architectures.op import Mode, Op, Shape
from zoo.architectures.pool import GlobalAveragePool, Pool
from zoo.architectures.rule import GenericRule
from zoo.architectures.sequence import Attention, Embedding, PositionEmbedding, PositionLinear
from zoo.architectures.stacked_module import StackedModule
from zoo.architectures.tangent import rule_for
from zoo.architectures.weights import WEIGHT_TRANSFORMS, transformed

G, B = 3, 4
VECTOR, SIGNAL, IMAGE = Shape((), 6), Shape((7,), 6), Shape((5, 4), 6)
OPTIONS = {"norm_groups": 2, "virtual_batch": 2}


class Whole(torch.nn.Module):
    """Takes [B, T, C] as a module of a user's own may, and makes [B, 3]."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(6, 3)
        self.size = torch.nn.Parameter(torch.ones(20))

    def forward(self, x):
        return (torch.tanh(self.linear(x)) * self.size.unsqueeze(1)).sum(1)


class Scale(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels))

    def forward(self, x):
        return torch.sin(x) * self.weight.reshape(-1, *[1] * (x.ndim - 2))


class OwnScale(OwnNorm):
    make = Scale
    per_channel = True


def own_module():
    example = lambda count: torch.linspace(-1, 1, count * 120).reshape(count, 20, 6)  # noqa: E731
    return ModuleOp(StackedModule(Whole, example), "whole", {})


#: Name -> (the op, shapes of its inputs).
CASES = {
    "linear": (Linear("op", 6, 5), (VECTOR,)),
    "conv of a signal": (Conv("op", SIGNAL, 4), (SIGNAL,)),
    "conv": (Conv("op", IMAGE, 4), (IMAGE,)),
    "conv by two": (Conv("op", IMAGE, 4, Window(2)), (IMAGE,)),
    "conv of one position": (Conv("op", IMAGE, 4, Window(1, kernel=1)), (IMAGE,)),
    "conv by two of one position": (Conv("op", IMAGE, 4, Window(2, kernel=1)), (IMAGE,)),
    "conv of five by three": (Conv("op", IMAGE, 4, Window(3, kernel=5, padding=1)), (IMAGE,)),
    "conv without padding": (Conv("op", IMAGE, 4, Window(1, padding=0)), (IMAGE,)),
    "conv with much padding": (Conv("op", IMAGE, 4, Window(2, kernel=2, padding=2)), (IMAGE,)),
    "conv without bias": (Conv("op", IMAGE, 4, Window(2), bias="without"), (IMAGE,)),
    "conv of two extents": (
        Conv("op", IMAGE, 4, Window((1, 2), kernel=(3, 2), padding=(1, 0))),
        (IMAGE,),
    ),
    "conv of a signal by three": (Conv("op", SIGNAL, 4, Window(3, kernel=4)), (SIGNAL,)),
    "sum": (Add("op", IMAGE, 3), (IMAGE,) * 3),
    "product": (Multiply("op", IMAGE, 2), (IMAGE,) * 2),
    "side by side": (Concatenate("op", (IMAGE, Shape((5, 4), 2))), (IMAGE, Shape((5, 4), 2))),
    "linear at positions": (PositionLinear("op", SIGNAL, 4), (SIGNAL,)),
    "linear at positions without bias": (
        PositionLinear("op", SIGNAL, 4, bias="without"),
        (SIGNAL,),
    ),
    "embedding": (Embedding("op", (7,), 5, 6), (Shape((7,), 1),)),
    "embedding of positions": (PositionEmbedding("op", SIGNAL), (SIGNAL,)),
    "attention": (Attention("op", SIGNAL, 2), (SIGNAL,)),
    "causal attention": (Attention("op", SIGNAL, 3, causal="yes"), (SIGNAL,)),
    "average of windows": (Pool("op", IMAGE, "average", 2), (IMAGE,)),
    "average of windows that overlap": (
        Pool("op", IMAGE, "average", 3, stride=2, padding=1),
        (IMAGE,),
    ),
    "maximum of windows": (Pool("op", IMAGE, "max", 3, stride=1, padding=1), (IMAGE,)),
    "maximum of windows of a signal": (Pool("op", SIGNAL, "max", 2), (SIGNAL,)),
    "mean over positions": (GlobalAveragePool("op", IMAGE), (IMAGE,)),
    "dropout": (Dropout("op", IMAGE, 1), (IMAGE,)),
}
CASES |= {f"{name} of f": (Activation("op", IMAGE, name), (IMAGE,)) for name in ACTIVATIONS}
CASES |= {
    f"{name} norm of {kind}": (NORMS[name]("op", shape, OPTIONS), (shape,))
    for name in NORMS
    for kind, shape in {"vectors": VECTOR, "images": IMAGE}.items()
    if NORMS[name]("op", shape, OPTIONS).problem() is None
}
CASES |= {
    f"{name} weights": (transformed(Conv("op", IMAGE, 4), name), (IMAGE,))
    for name in WEIGHT_TRANSFORMS
}
CASES["a module of one's own"] = (own_module(), (IMAGE,))
CASES["a norm of one's own"] = (OwnScale("op", IMAGE, {}), (IMAGE,))
#: It is run where there is a GPU, and held there to the two ops that it stands for.
ELSEWHERE = {NormActivation}


def kinds_of_op():
    """Every op that a network can have."""
    for module in pkgutil.walk_packages(zoo.architectures.__path__, "zoo.architectures."):
        importlib.import_module(module.name)
    todo, found = [Op], set()
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if not inspect.isabstract(kind) and kind.__module__.startswith("zoo.architectures"):
            found.add(kind)
    return found


def test_every_op_has_a_case():
    cases = {type(op) for op, _ in CASES.values()} - {OwnScale} | {OwnNorm}
    assert kinds_of_op() - ELSEWHERE == cases


def setting(name, *, training):
    """An op with parameters, inputs, an output gradient and directions for all of them."""
    op, shapes = CASES[name]
    gen = torch.Generator().manual_seed(len(name))

    def draw(*shape):
        return torch.randn(*shape, generator=gen, dtype=torch.float64)

    p = {op.key(param.suffix): draw(G, *param.shape) for param in op.params()}
    for key in p:
        if key.endswith("running_var"):
            p[key] = p[key].square() + 0.5
    xs = tuple(draw(G, B, shape.positions, shape.channels) for shape in shapes)
    if isinstance(op, Embedding):
        xs = (torch.randint(op.tokens, xs[0].shape, generator=gen),)
    mode = Mode(
        training=training,
        dtype=torch.float64,
        dropout_rate=torch.tensor([0.1, 0.5, 0.0], dtype=torch.float64),
        dropout_seed=torch.arange(G),
        step=torch.arange(G),
    )
    out = op.out_shape()
    return op, p, xs, draw(G, B, out.positions, out.channels), mode, draw


def moving(xs):
    """Which inputs have a gradient: tokens have none."""
    return tuple(x.is_floating_point() for x in xs)


def default_pullback(op, p, xs, mode):
    def forward(own, xs, mode):
        return op.value({**p, **own}, xs, mode)

    return pullback(forward, op.trained(p), xs, mode, moving(xs))


def assert_equal(found, wanted):
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9, msg=key)


@pytest.mark.parametrize("conv", ["im2col", "grouped"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients(name, training, conv):
    op, p, xs, dy, mode, _ = setting(name, training=training)
    mode = replace(mode, conv=conv)
    other = replace(mode, new_buffers={})
    y, back = default_pullback(op, p, xs, other)
    wanted, grads = back(dy)
    found, saved = op.run(p, xs, mode, moving(xs))
    torch.testing.assert_close(found, y, rtol=1e-12, atol=1e-12)
    assert found.shape == dy.shape
    dxs, own = op.pull(p, saved, dy, mode, moving(xs))
    assert_equal(own, grads)
    assert_equal(dict(enumerate(dxs)), dict(enumerate(wanted)))
    assert_equal(mode.new_buffers, other.new_buffers)
    alone = op.pull_inputs(p, saved, dy, mode, moving(xs))
    assert_equal(dict(enumerate(alone)), dict(enumerate(wanted)))


@pytest.mark.parametrize("name", CASES)
def test_tangents_and_second_derivatives(name):
    op, p, xs, dy, mode, draw = setting(name, training=False)
    v = {key: draw(*value.shape) for key, value in op.trained(p).items()}
    dd = draw(*dy.shape)
    for moves in (True, False):
        needs = tuple(moves and moving for moving in moving(xs))
        dxs = tuple(draw(*x.shape) if need else None for x, need in zip(xs, needs, strict=True))
        fast, slow = rule_for(op, p, xs, mode), GenericRule(op, p, xs, mode)
        for rule in (fast, slow):
            rule.prepare(dy)
        along = {"tangent": fast.push(v, dxs)}, {"tangent": slow.push(v, dxs)}
        if along[1]["tangent"] is None:
            assert along[0]["tangent"] is None
            continue
        assert_equal(*along)
        (found, own), (wanted, grads) = fast.pull(v, dd, needs), slow.pull(v, dd, needs)
        assert_equal(own, grads)
        if not all(needs):  # a rule may return what is not wanted
            continue
        assert_equal(dict(enumerate(found)), dict(enumerate(wanted)))

        # the slow rule differentiates the op's own backward pass; this one knows the forward alone
        def gradients(q, xs, d, op=op, p=p, mode=mode):
            return default_pullback(op, {**p, **q}, xs, mode)[1](d)

        own_p = op.trained(p)
        _, (second, moved) = torch.func.jvp(gradients, (own_p, xs, dy), (v, dxs, dd))
        assert_equal(grads, moved)
        assert_equal(dict(enumerate(wanted)), dict(enumerate(second)))


def as_module_takes(op, x, shape):
    images = x.mT.reshape(B, shape.channels, *shape.spatial)
    return images.movedim(1, -1) if op.channels_last else images


@pytest.mark.parametrize("name", [n for n in CASES if "own" not in n and "dropout" not in n])
def test_the_plain_module_computes_the_same(name):
    op, p, xs, dy, mode, _ = setting(name, training=False)
    y, _ = op.run(p, xs, mode, moving(xs))
    module = op.module().double().eval()
    for g in range(G):
        state = {param.suffix: p[op.key(param.suffix)][g] for param in op.params()}
        module.load_state_dict(state, strict=False)
        shapes = CASES[name][1]
        made = module(*(as_module_takes(op, x[g], s) for x, s in zip(xs, shapes, strict=True)))
        wanted = as_module_takes(op, y[g], op.out_shape())
        torch.testing.assert_close(made, wanted, rtol=1e-9, atol=1e-9)
    assert dy.shape == y.shape


@pytest.mark.parametrize("conv", ["im2col", "grouped"])
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0].params()])
def test_gradients_of_single_examples(name, conv):
    op, p, xs, dy, mode, _ = setting(name, training=False)
    mode = replace(mode, conv=conv)
    _, saved = op.run(p, xs, mode, moving(xs))
    fast = op.example_gradients(p, xs, saved, dy, mode)
    slow = op.written_gradients(p, xs, dy, mode)
    # norms are added up in float32, whatever comes in
    for found, wanted in ((fast.square_norms(), slow.square_norms()), (fast.gram(), slow.gram())):
        torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-5, atol=1e-6)
    total = {key: grad.sum(1) for key, grad in slow.gradients.items()}
    assert_equal(total, op.pull(p, saved, dy, mode, moving(xs))[1])
    for n in range(B):  # an example by itself
        one = tuple(x[:, n : n + 1] for x in xs)
        _, grads = default_pullback(op, p, one, mode)[1](dy[:, n : n + 1])
        assert_equal({key: grad[:, n] for key, grad in slow.gradients.items()}, grads)
