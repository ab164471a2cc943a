"""The stacked convolution and its gradients against torch's own in float64."""

from __future__ import annotations

import pytest
import torch
from bounds import assert_near, same_bits

from zoo.kernels.conv import conv, conv_backward, conv_backward_torch, conv_torch

#: (models, batch, spatial, inputs, outputs, stride)
CASES = [
    (2, 3, (5, 6), 3, 7, 1),
    (2, 2, (5, 7), 4, 5, 2),
    (1, 1, (1, 1), 1, 1, 1),
    (3, 2, (9,), 2, 17, 1),
    (2, 3, (8,), 5, 3, 2),
    (1, 1, (2,), 1, 1, 2),
    (1, 2, (6, 6), 13, 70, 1),
]


def tensors(normal, G, B, spatial, inputs, outputs, stride):
    T = torch.Size(spatial).numel()
    out = torch.Size([(extent - 1) // stride + 1 for extent in spatial]).numel()
    x = normal(G, B, T, inputs)
    weight = normal(G, outputs, inputs, *(3,) * len(spatial), scale=0.3)
    return x, weight, normal(G, outputs), normal(G, B, out, outputs)


def wide(*values):
    return [v.double() for v in values]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_torch(normal, case):
    x, weight, bias, dy = tensors(normal, *case)
    spatial, stride = case[2], case[5]
    floor = 1e-6 * (x.shape[-1] * 9) ** 0.5
    terms = 9 * max(x.shape[-1], dy.shape[-1])
    plain = conv_torch(x, weight, bias, spatial, stride)
    wanted = conv_torch(*wide(x, weight, bias), spatial, stride)
    assert_near(conv(x, weight, bias, spatial, stride), wanted, floor, torch32=plain)
    found = conv_backward(x, weight, dy, spatial, stride, need_dx=True)
    wanted = conv_backward_torch(*wide(x, weight, dy), spatial, stride, need_dx=True)
    plain = conv_backward_torch(x, weight, dy, spatial, stride, need_dx=True)
    for one, exact, rounded in zip(found, wanted, plain, strict=True):
        assert one.shape == exact.shape
        # sums of float32 products, dx over outputs × taps, in another order than torch's
        assert_near(one, exact, max(1e-5, 1e-6 * terms**0.5), torch32=rounded)
    no_dx, dw, db = conv_backward(x, weight, dy, spatial, stride, need_dx=False)
    assert no_dx is None
    assert same_bits(dw, found[1])
    assert same_bits(db, found[2])


def test_reference_is_the_gradient(normal):
    x, weight, bias, dy = wide(*tensors(normal, 2, 2, (4, 5), 3, 2, 2))
    for value in (x, weight, bias):
        value.requires_grad_()
    y = conv_torch(x, weight, bias, (4, 5), 2)
    wanted = torch.autograd.grad(y, (x, weight, bias), dy)
    found = conv_backward_torch(x, weight, dy, (4, 5), 2, need_dx=True)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_does_not_depend_on_its_neighbours_or_its_slot(normal):
    x, weight, bias, dy = tensors(normal, 3, 2, (4, 4), 3, 5, 1)
    y = conv(x, weight, bias, (4, 4), 1)
    grads = conv_backward(x, weight, dy, (4, 4), 1, need_dx=True)
    order = torch.tensor([2, 0, 1])
    other = conv_backward(x[order], weight[order], dy[order], (4, 4), 1, need_dx=True)
    for one, moved in zip(grads, other, strict=True):
        assert same_bits(one[order], moved)
    assert same_bits(conv(x[1:2], weight[1:2], bias[1:2], (4, 4), 1), y[1:2])


def test_a_broken_model_leaves_its_neighbours_alone(normal):
    x, weight, _, dy = tensors(normal, 2, 2, (3, 3), 2, 2, 1)
    clean = conv_backward(x, weight, dy, (3, 3), 1, need_dx=True)
    x[0, 0, 0, 0], weight[0, 0, 0, 1, 1], dy[0] = torch.nan, torch.inf, 1e30
    broken = conv_backward(x, weight, dy, (3, 3), 1, need_dx=True)
    for one, other in zip(clean, broken, strict=True):
        assert same_bits(one[1], other[1])
        assert not torch.equal(one[0], other[0])


def test_bfloat16_is_read_and_written(normal):
    x, weight, bias, _ = (v.bfloat16() for v in tensors(normal, 1, 2, (4, 4), 3, 5, 1))
    found = conv(x, weight, bias, (4, 4), 1)
    wanted = conv_torch(*wide(x, weight, bias), (4, 4), 1)
    assert found.dtype == torch.bfloat16
    assert ((found.double() - wanted).abs() <= 2.0**-7 * wanted.abs() + 1e-5).all()
