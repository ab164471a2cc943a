"""Norms fused with activations, forward and backward, against float64 and against the ops."""

from __future__ import annotations

import pytest
import torch
from bounds import assert_near, same_bits

from zoo.architectures.activations import ACTIVATIONS
from zoo.kernels.activation import FUSED
from zoo.kernels.batch_norm import BatchNormForm, batch_norm, batch_norm_backward, batch_norm_torch
from zoo.kernels.norm import Affine, NormSpec, norm, norm_backward, norm_torch

NAMES = ("weight", "bias", "gate")
KINDS = {
    "layer": NormSpec(activation="relu"),
    "group": NormSpec(groups=2, activation="gelu"),
    "instance": NormSpec(groups=6, activation="tanh"),
    "rms": NormSpec("rms", activation="silu"),
    "evonorm_s0": NormSpec("evonorm_s0", groups=3),
}
PARTS = {"rms": ("weight",), "evonorm_s0": NAMES}


def affine_of(normal, kind, G, C):
    names = PARTS.get(kind, ("weight", "bias"))
    return Affine(**{n: normal(G, C, scale=0.3, offset=1.0) for n in names})


def wide(affine):
    return Affine(
        **{n: getattr(affine, n).double() for n in NAMES if getattr(affine, n) is not None}
    )


def gradients(x, affine, spec, dy, true=None):
    """Autograd through the plain form, in the type of its arguments."""
    leaves = {n: getattr(affine, n) for n in NAMES if getattr(affine, n) is not None}
    leaves = {n: p.detach().requires_grad_() for n, p in leaves.items()}
    x = x.detach().requires_grad_()
    y = norm_torch(x, Affine(**leaves), spec, true)
    found = torch.autograd.grad(y, [x, *leaves.values()], dy)
    return y.detach(), dict(zip(("x", *leaves), found, strict=True))


def check(x, affine, spec, dy, true=None):
    y, saved = norm(x, affine, spec, true_channels=true)
    dx, grads = norm_backward(x, affine, spec, saved, dy, true_channels=true)
    exact_y, exact = gradients(x.double(), wide(affine), spec, dy.double(), true)
    plain_y, plain = gradients(x, affine, spec, dy, true)
    rows = x.shape[1] * x.shape[2]
    assert_near(y, exact_y, 2e-6, torch32=plain_y)
    for name, found in {"x": dx, **grads}.items():
        floor = 4e-6 if name == "x" else 5e-6 * max(1, rows) ** 0.5
        floor *= max(1.0, exact[name].abs().max().item())
        assert_near(found, exact[name], floor, torch32=plain[name])
    assert set(grads) == set(exact) - {"x"}


SHAPES = [(2, 5, 1, 6), (1, 3, 20, 6), (2, 2, 400, 6)]
#: One value a group has no norm.
CASES = [(kind, s) for kind in KINDS for s in SHAPES if kind != "instance" or s[2] > 1]


@pytest.mark.parametrize(("kind", "shape"), CASES, ids=str)
def test_equals_float64(normal, kind, shape):
    check(normal(*shape), affine_of(normal, kind, shape[0], 6), KINDS[kind], normal(*shape))


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_one_value_and_large_offsets(normal, kind):
    spec = NormSpec(kind)
    check(normal(1, 1, 1, 1), affine_of(normal, kind, 1, 1), spec, normal(1, 1, 1, 1))
    far = normal(2, 3, 4, 8, scale=0.1, offset=1000.0)
    check(far, affine_of(normal, kind, 2, 8), spec, normal(2, 3, 4, 8))


@pytest.mark.parametrize("name", sorted(FUSED))
def test_activations(normal, name):
    x = torch.cat([normal(1, 2, 1, 30, scale=3), torch.full((1, 2, 1, 2), 100.0)], 3)
    check(x, affine_of(normal, "layer", 1, 32), NormSpec(activation=name), normal(*x.shape))
    kind = ACTIVATIONS[name]
    torch.testing.assert_close(FUSED[name](x), kind.value(x), rtol=0, atol=0)


def test_every_activation_of_the_registry_is_fused():
    assert set(ACTIVATIONS.names()) == set(FUSED)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_padded_channels_count_for_nothing(normal, kind):
    spec, true = NormSpec(kind, activation="relu"), torch.tensor([5, 8], dtype=torch.int32)
    x, dy = normal(2, 3, 2, 8), normal(2, 3, 2, 8)
    affine = affine_of(normal, kind, 2, 8)
    check(x, affine, spec, dy, true)
    y, _ = norm(x, affine, spec, true_channels=true)
    assert (y[0, ..., 5:] == 0).all()
    own = Affine(**{n: p[:1, :5] for n in NAMES if (p := getattr(affine, n)) is not None})
    torch.testing.assert_close(norm(x[:1, ..., :5], own, spec)[0], y[:1, ..., :5])


def test_weights_are_standardised_by_the_same_kernel(normal):
    w, d = normal(2, 7, 1, 27, offset=0.5), normal(2, 7, 1, 27)
    check(w, Affine(), NormSpec(eps=1e-10), d)


def test_slab_views_neighbours_and_broken_models(normal):
    spec = NormSpec(groups=2, activation="relu")
    slab = normal(4, 37)
    affine = Affine(slab[:, 3:11], slab[:, 20:28])
    x, dy = normal(4, 5, 3, 8), normal(4, 5, 3, 8)
    y, saved = norm(x, affine, spec)
    dx, grads = norm_backward(x, affine, spec, saved, dy)
    x[2] = float("nan")
    dy[2] = float("inf")
    order = torch.tensor([3, 2, 0])
    some = Affine(affine.weight[order], affine.bias[order])
    y2, saved2 = norm(x[order], some, spec)
    dx2, grads2 = norm_backward(x[order], some, spec, saved2, dy[order])
    for found, wanted in ((y2, y), (dx2, dx), *((grads2[n], grads[n]) for n in grads)):
        assert same_bits(found[0], wanted[3])
        assert same_bits(found[2], wanted[0])
        assert not torch.isfinite(found[1]).any()


def batch_case(normal, G, B, T, C):
    weight, bias = normal(G, C, offset=1.0, scale=0.3), normal(G, C)
    running = (normal(G, C), normal(G, C).square())
    return normal(G, B, T, C, offset=3.0), weight, bias, running, torch.linspace(0.1, 0.3, G)


@pytest.mark.parametrize("masked", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize(
    ("shape", "virtual", "activation"),
    [((3, 6, 1, 5), 6, "relu"), ((2, 8, 9, 20), 4, "gelu"), ((1, 2, 1, 1), 2, "identity"),
     ((1, 4, 300, 3), 2, "silu")],
    ids=str,
)  # fmt: skip
def test_batch_norm(normal, shape, virtual, activation, masked):
    x, weight, bias, running, momentum = batch_case(normal, *shape)
    dy = normal(*shape)
    valid = None
    if masked:
        valid = torch.ones(shape[:2], dtype=torch.bool)
        valid[0, 1] = False
    form = BatchNormForm(virtual, activation, valid=valid)
    y, new, saved = batch_norm(x, weight, bias, running, momentum, form)
    found = batch_norm_backward(x, weight, bias, saved, dy, form)
    results = []
    for dtype in (torch.float64, torch.float32):
        leaves = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
        stats = tuple(r.to(dtype) for r in running)
        out, moved = batch_norm_torch(*leaves, stats, momentum.to(dtype), form)
        results.append((out.detach(), moved, torch.autograd.grad(out, leaves, dy.to(dtype))))
    exact, plain = results
    assert_near(y, exact[0], 4e-6, torch32=plain[0])
    for one, wanted, rounded in zip(new, exact[1], plain[1], strict=True):
        assert_near(one, wanted, 1e-6, torch32=rounded)
    rows = shape[1] * shape[2]
    for one, wanted, rounded in zip(found, exact[2], plain[2], strict=True):
        assert_near(one, wanted, 5e-6 * rows**0.5, torch32=rounded)


def test_batch_norm_of_one_model_is_torchs(normal):
    x, weight, bias, running, _ = batch_case(normal, 1, 6, 4, 5)
    module = torch.nn.BatchNorm1d(5).train()
    with torch.no_grad():
        for old, value in zip(
            (module.weight, module.bias, module.running_mean, module.running_var),
            (weight[0], bias[0], running[0][0], running[1][0]), strict=True,
        ):  # fmt: skip
            old.copy_(value)
    wanted = torch.relu(module(x[0].mT)).mT
    y, new, _ = batch_norm(x, weight, bias, running, torch.tensor([0.1]), BatchNormForm(6, "relu"))
    torch.testing.assert_close(y[0], wanted, rtol=1e-5, atol=4e-6)
    torch.testing.assert_close(new[0][0], module.running_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(new[1][0], module.running_var, rtol=1e-6, atol=1e-6)


def test_batch_norm_of_neighbours_and_broken_models(normal):
    x, weight, bias, running, momentum = batch_case(normal, 3, 4, 3, 5)
    y, new, saved = batch_norm(x, weight, bias, running, momentum, BatchNormForm(2))
    wanted = (y, *new, *batch_norm_backward(x, weight, bias, saved, x, BatchNormForm(2)))
    x[1] = float("nan")
    order = torch.tensor([2, 1])
    parts = [t[order] for t in (x, weight, bias, running[0], running[1], momentum)]
    y, new, saved = batch_norm(*parts[:3], tuple(parts[3:5]), parts[5], BatchNormForm(2))
    found = (y, *new, *batch_norm_backward(*parts[:3], saved, parts[0], BatchNormForm(2)))
    for one, all_of in zip(found, wanted, strict=True):
        assert same_bits(one[0], all_of[2])
