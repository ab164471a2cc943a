"""Ghost norms against the gradients themselves, in float64."""

from __future__ import annotations

import pytest
import torch
from bounds import same_bits

from zoo.kernels.ghost_norm import (
    affine_square_norms,
    affine_square_norms_torch,
    linear_square_norms,
    linear_square_norms_torch,
    sequence_square_norms,
    sequence_square_norms_torch,
)

SHAPES = [(1, 5, 3), (4, 40, 30), (37, 70, 50), (20, 5, 7), (3, 1, 1), (49, 9, 16)]


def exact(a, d):
    """The squared norm of Σ_t d_t [a_t, 1]ᵀ, instantiated."""
    a = torch.cat([a, torch.ones_like(a[..., :1])], -1).double()
    return torch.einsum("gbto,gbti->gboi", d.double(), a).square().sum((2, 3))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_norms_of_linear_maps(normal, shape):
    T, inputs, outputs = shape
    a, d = normal(2, 3, T, inputs), normal(2, 3, T, outputs)
    wanted = exact(a, d)
    for form in (sequence_square_norms, sequence_square_norms_torch):
        torch.testing.assert_close(form(a, d).double(), wanted, rtol=1e-5, atol=1e-9)
    if T == 1:
        for form in (linear_square_norms, linear_square_norms_torch):
            found = form(a[:, :, 0], d[:, :, 0]).double()
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (64, 300)], ids=str)
def test_norms_of_affine_maps(normal, shape):
    xhat, d = normal(2, 3, *shape), normal(2, 3, *shape)
    weight = torch.einsum("gbtc,gbtc->gbc", xhat.double(), d.double())
    wanted = weight.square().sum(-1) + d.double().sum(2).square().sum(-1)
    for form in (affine_square_norms, affine_square_norms_torch):
        torch.testing.assert_close(form(xhat, d).double(), wanted, rtol=1e-5, atol=1e-9)


def test_slots_do_not_matter_and_nan_stays_in_its_row(normal):
    a, d = normal(4, 3, 5, 40), normal(4, 3, 5, 30)
    wanted = sequence_square_norms(a, d)
    order = torch.tensor([2, 0])
    assert same_bits(sequence_square_norms(a[order], d[order]), wanted[order])
    d[1, 1] = float("nan")
    found = sequence_square_norms(a, d)
    assert torch.isnan(found).nonzero().tolist() == [[1, 1]]
    found[1, 1] = wanted[1, 1]
    assert same_bits(found, wanted)
