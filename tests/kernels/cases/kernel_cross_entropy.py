"""Cross-entropy and its scores against float64, at ordinary and at degenerate shapes."""

from __future__ import annotations

import pytest
import torch
from bounds import assert_near, double, same_bits
from torch.nn import functional as F

from zoo.kernels.cross_entropy import (
    PLAIN,
    TILE,
    LossTerms,
    cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_torch,
)
from zoo.kernels.softmax import two_pass_logsumexp_torch

FLOORS = {
    "loss": 4e-6, "mean": 4e-6, "dlogits": 1e-6, "el2n": 1e-6, "correct": 0, "margin": 2e-6,
    "entropy": 4e-6,
}  # fmt: skip
SHAPES = [(3, 5, 10), (1, 1, 1), (2, 3, 2), (1, 7, 100), (2, 3, TILE + 77), (1, 300, 3)]


def inputs(normal, random, G, B, C, *, scale=5.0):
    z = normal(G, B, C, scale=scale)
    labels = torch.randint(0, C, (G, B), generator=random)
    return z, labels, torch.linspace(0, 0.3, G)


def both(z, labels, smoothing, *, form="online", terms=PLAIN):
    given = {"terms": terms, "scores": True}
    found = softmax_cross_entropy(z, labels, smoothing, form=form, **given)
    plain = softmax_cross_entropy_torch(z, labels, smoothing, **given)
    given["terms"] = LossTerms(*(None if term is None else double(term) for term in terms))
    wanted = softmax_cross_entropy_torch(z.double(), labels, smoothing.double(), **given)
    return found, wanted, plain


def check(found, wanted, plain):
    for name, floor in FLOORS.items():
        assert_near(
            getattr(found, name), getattr(wanted, name), floor, torch32=getattr(plain, name)
        )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", ["online", "two_pass"])
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "soft-weighted-z"])
def test_equals_float64(normal, random, shape, form, rich):
    z, labels, smoothing = inputs(normal, random, *shape)
    terms = LossTerms()
    if rich:
        weights = torch.rand(shape[:2], generator=random)
        weights[:, 0] = 0
        terms = LossTerms(normal(*shape).softmax(-1), weights, smoothing / 9)
    check(*both(z, labels, smoothing, form=form, terms=terms))


def test_reference_equals_torch(normal, random):
    z, labels, _ = inputs(normal, random, 2, 6, 5)
    z = z.double().requires_grad_()
    for smoothing in (0.0, 0.2):
        found = softmax_cross_entropy_torch(z, labels, torch.full((2,), smoothing))
        for g in range(2):
            loss = F.cross_entropy(z[g], labels[g], label_smoothing=smoothing)
            (wanted,) = torch.autograd.grad(loss, z)
            torch.testing.assert_close(found.mean[g], loss, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(found.dlogits[g], wanted[g], rtol=1e-6, atol=1e-6)


def test_reference_with_soft_targets_weights_and_z_loss_is_the_gradient_of_its_mean(normal, random):
    z, labels, smoothing = inputs(normal, random, 2, 4, 3)
    z = z.double().requires_grad_()
    weights = torch.tensor([[1.0, 0, 2, 0.5], [0, 0, 0, 0]])
    terms = LossTerms(normal(2, 4, 3).double().softmax(-1), weights, smoothing)
    found = softmax_cross_entropy_torch(z, labels, smoothing, terms=terms)
    (wanted,) = torch.autograd.grad(found.mean.sum(), z)
    torch.testing.assert_close(found.dlogits, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["online", "two_pass"])
@pytest.mark.parametrize("C", [4, TILE + 4])
def test_masked_huge_and_broken_logits(form, C):
    z = torch.zeros(1, 6, C)
    z[0, 0, 1] = float("-inf")
    z[0, 1] = 1e4
    z[0, 1, 2] = -1e4
    z[0, 2, 3] = float("nan")
    z[0, 3, 0] = float("inf")
    z[0, 4] = float("-inf")
    z[0, 4, 2] = 3.0
    labels = torch.tensor([[0, 0, 0, 1, 2, 1]])
    found, wanted, plain = both(z, labels, torch.zeros(1), form=form)
    for name in ("loss", "dlogits", "el2n", "entropy"):
        rows = [0, 1, 4, 5]
        assert_near(
            getattr(found, name)[:, rows], getattr(wanted, name)[:, rows], 2e-6,
            torch32=getattr(plain, name)[:, rows],
        )  # fmt: skip
    assert not torch.isfinite(found.loss[0, 2])
    assert not torch.isfinite(found.loss[0, 3])
    assert not torch.isfinite(found.mean).any()


def test_ties_are_wrong_and_padded_rows_are_silent(normal, random):
    z = torch.zeros(1, 3, 4)
    z[0, 1, 2] = 1
    weights = torch.tensor([[1.0, 1.0, 0.0]])
    z[0, 2] = float("nan")
    found = softmax_cross_entropy(
        z, torch.tensor([[0, 2, 1]]), torch.zeros(1), terms=LossTerms(weights=weights), scores=True
    )
    assert found.correct[0, :2].tolist() == [False, True]
    assert found.loss[0, 2] == 0
    assert (found.dlogits[0, 2] == 0).all()
    assert torch.isfinite(found.mean).all()
    nothing = softmax_cross_entropy(
        z, torch.zeros(1, 3).long(), torch.zeros(1), terms=LossTerms(weights=0 * weights)
    )
    assert nothing.mean.tolist() == [0]


def test_bfloat16_in_and_out(normal, random):
    z, labels, smoothing = inputs(normal, random, 2, 5, 10)
    z = z.bfloat16()
    found = softmax_cross_entropy(z, labels, smoothing)
    wanted = softmax_cross_entropy_torch(z.double(), labels, smoothing.double())
    assert found.dlogits.dtype == torch.bfloat16
    near = wanted.dlogits.bfloat16().double()
    ulp = near.abs().clamp(min=1e-8) * 2.0**-7
    assert ((found.dlogits.double() - near).abs() <= ulp).all()
    assert_near(found.loss, wanted.loss, 4e-6)


@pytest.mark.parametrize("C", [10, TILE + 5])
def test_neighbours_and_slots_do_not_matter(normal, random, C):
    z, labels, smoothing = inputs(normal, random, 5, 4, C)
    before = z.clone()
    loss, dz = cross_entropy(z, labels, smoothing)
    assert same_bits(z, before)
    order = torch.tensor([3, 0, 4])
    alone = cross_entropy(z[order], labels[order], smoothing[order])
    assert same_bits(loss[order], alone[0])
    assert same_bits(dz[order], alone[1])


def test_two_pass_form_in_torch_equals_logsumexp(normal):
    x = normal(3, 5000, scale=30).double()
    x[0, :100] = float("-inf")
    torch.testing.assert_close(two_pass_logsumexp_torch(x), x.logsumexp(-1), rtol=1e-12, atol=0)
